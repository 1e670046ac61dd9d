"""Find requests too similar to be on different sides, and those of which one is enough."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.curate import split
from components.curate.interaction import read_tools
from components.curate.near import duplicates, shared_text, shingles, spilled_texts
from components.curate.near.shared_text import MANY, RightAnswers
from components.curate.near.shingles import Positions, TextColumn
from components.curate.near.spilled_texts import SpilledTexts
from components.curate.split import LABEL_CHARACTERS
from components.schema import Answer, Json, Message
from components.store import manifest

ROWS_AT_ONCE = 8192  # rows whose texts are held as Python's at once

FREE = ""  # the name of longer texts, which never conflict

_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


def answer_name(answer: Answer) -> str:
    """Return an answer's name, equal for equal calls, labels and short JSON in any formatting.

    Longer texts within calls and JSON are ignored, and so are thoughts before the answer.
    """
    if answer.calls:
        calls = [_short({"name": call.name, "arguments": call.arguments}) for call in answer.calls]
        return _write_call(sorted(calls, key=_write_call))
    text = " ".join(_THOUGHTS.sub("", answer.text).casefold().split())
    if text[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            return _write_call(_short(cast("Json", json.loads(text))))
    return FREE if len(text) > LABEL_CHARACTERS else text


def _short(value: Json) -> Json:
    """Replace longer texts by ``None``, and whole floats by integers."""
    match value:
        case str():
            text = " ".join(value.casefold().split())
            return text if len(text) <= LABEL_CHARACTERS else None
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_short(item) for item in value]
        case dict():
            return {key: _short(item) for key, item in value.items()}
        case _:
            return value


def _write_call(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class NearRequest:
    """The compared parts of one request.

    ``tools``, ``tool_names`` and ``form`` (roles, last message) are digests. ``turns`` are its
    messages without system messages, ``roles`` their roles; ``answer_name`` is by ``answer_name``.
    """

    turns: tuple[str, ...]
    roles: tuple[str, ...]
    answer_name: str
    system: str
    tools: str
    tool_names: str
    form: str

    @property
    def user_text(self) -> str:
        """The users' text, templates included."""
        users = zip(self.turns, self.roles, strict=True)
        return "\n".join(turn for turn, role in users if role == "user")


class RequestColumns(NamedTuple):
    """Requests as Arrow columns; ``turns`` and ``roles`` are lists."""

    turns: Any
    roles: Any
    answer_name: Any
    system: Any
    tools: Any
    tool_names: Any
    form: Any


class ComparedRequests(NamedTuple):
    """Requests without shared text, as Arrow columns: their ``words``, and the users' part of them.

    Request i has the instruction ``instructions[instructed[i]]``, its shared text: system prompt
    and templates.
    """

    words: TextColumn
    user_texts: TextColumn
    instructions: TextColumn
    instructed: Positions


@dataclass(frozen=True, slots=True)
class Place:
    """A request's near-duplicates: each id is the smallest interaction id of its group."""

    cluster_id: str
    twin_id: str
    equal_id: str


def read(
    rendered: Sequence[Message], system: Sequence[str], tools: str, answer: Answer
) -> NearRequest:
    """Return the compared parts of a request; ``tools`` are JSON."""
    turns = [message for message in rendered if message["role"] != "system"]
    roles = tuple(turn["role"] for turn in turns)
    last = " ".join(turns[-1]["content"].casefold().split()) if len(turns) > 1 else ""
    return NearRequest(
        turns=tuple(turn["content"] for turn in turns),
        roles=roles,
        answer_name=answer_name(answer),
        system="\n\n".join(system),
        tools=_offered(tools),
        tool_names=_named(tools),
        form=manifest.digest([[*roles], last]),
    )


def columns_of(requests: Sequence[NearRequest]) -> RequestColumns:
    """Return requests as columns."""
    bounds = pa.array(np.cumsum([0, *(len(request.turns) for request in requests)]), pa.int64())
    turns = pa.array([turn for request in requests for turn in request.turns], pa.large_string())
    roles = _dictionary(role for request in requests for role in request.roles)
    return RequestColumns(
        pa.LargeListArray.from_arrays(bounds, turns),
        pa.LargeListArray.from_arrays(bounds, roles),
        *(
            _dictionary(getattr(request, name) for request in requests)
            for name in RequestColumns._fields[2:]
        ),
    )


def _dictionary(texts: Iterable[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return texts as an Arrow column in which each different one is once."""
    numbers: dict[str, int] = {}
    indices = pa.array([numbers.setdefault(text, len(numbers)) for text in texts], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array([*numbers], pa.large_string()))


def compare(requests: RequestColumns, scratch: Path | None = None) -> ComparedRequests:
    """Return the requests without text shared by many; order does not matter.

    Their texts are kept in files of the folder ``scratch``, or in memory if it is ``None``.
    """
    turns = _Turns.of(requests, scratch)
    answers = RightAnswers(turns.texts[turns.bounds[1:] - 1], _codes(requests.answer_name)[0])
    parted = shared_text.split_texts(turns.different, answers, scratch)
    are_own = turns.places >= np.repeat(_beginnings(turns), np.diff(turns.bounds))
    words, user_texts = SpilledTexts(scratch), SpilledTexts(scratch)
    are_whole = np.zeros(len(are_own), np.bool_)
    for start in range(0, len(turns.bounds) - 1, ROWS_AT_ONCE):
        bounds = turns.bounds[start : start + ROWS_AT_ONCE + 1]
        block = slice(int(bounds[0]), int(bounds[-1]))
        numbers, mine, by_users = turns.texts[block], are_own[block], turns.are_users[block]
        own = _joined(parted.own, numbers, bounds, mine)
        asked = _joined(parted.own, numbers, bounds, mine & by_users)
        wordless = ~_have_words(own)
        if wordless.any():  # all of their text is shared: then none of it is
            whole = are_whole[block] = np.repeat(wordless, np.diff(bounds))
            texts = _joined(turns.different, numbers, bounds, whole)
            users = _joined(turns.different, numbers, bounds, whole & by_users)
            own = pc.call_function("if_else", [pa.array(wordless), texts, own])
            asked = pc.call_function("if_else", [pa.array(wordless), users, asked])
        words.add(own)
        user_texts.add(asked)
    instructions = _instructions(requests.system, turns, parted.shared, are_own, are_whole, scratch)
    return ComparedRequests(words.column(), user_texts.column(), *instructions)


class _Turns(NamedTuple):
    """The turns of all requests; request i has the turns ``bounds[i]:bounds[i + 1]``.

    Turn k has the text ``different[texts[k]]``, the role ``roles[k]`` by number, and is number
    ``places[k]`` of its request.
    """

    different: TextColumn
    texts: Positions
    bounds: Positions
    roles: Positions
    are_users: npt.NDArray[np.bool_]
    places: Positions

    @classmethod
    def of(cls, requests: RequestColumns, scratch: Path | None) -> "_Turns":
        texts, firsts = spilled_texts.numbered_texts(requests.turns.flatten())
        different = spilled_texts.at(requests.turns.flatten(), firsts, scratch)
        roles, names = _codes(requests.roles.flatten())
        is_user = np.array([name == "user" for name in names.to_pylist()], np.bool_)
        sizes = pc.call_function("list_value_length", [requests.turns]).to_numpy()
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(len(texts)) - np.repeat(bounds[:-1], sizes)
        return cls(different, texts, bounds, roles, is_user[roles], places)


def _codes(column: Any) -> tuple[Positions, Any]:  # noqa: ANN401 - pyarrow has no types
    """Return a column's values as numbers, and the different values."""
    is_encoded = pa.types.is_dictionary(column.type)
    encoded = column if is_encoded else column.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _beginnings(turns: _Turns) -> Positions:
    """Return the number of leading messages that each request shares with many.

    A shared beginning is followed by many different user messages; in a conversation logged turn by
    turn, each beginning has one continuation.
    """
    sizes = np.diff(turns.bounds)
    beginnings = np.zeros(len(sizes), np.int64)
    requests = np.arange(len(sizes))
    nodes = np.zeros(len(sizes), np.int64)  # numbers of the beginnings of so many turns
    for depth in range(int(sizes.max(initial=0)) + 1):
        longer = sizes[requests] > depth
        here = turns.bounds[requests[longer]] + depth
        steps = duplicates.numbered(nodes[longer], turns.roles[here], turns.texts[here])
        firsts = np.unique(steps, return_index=True)[1]
        following = nodes[longer][firsts]
        by_users = turns.are_users[here[firsts]]
        many = np.bincount(following[by_users], minlength=int(nodes.max(initial=0)) + 1) >= MANY
        beginnings[requests[many[nodes]]] = depth
        # Fewer requests than that can't be followed by so many, however long they go on.
        crowded = np.bincount(steps)[steps] >= MANY
        requests = requests[longer][crowded]
        nodes = duplicates.numbered(steps[crowded])
        if not len(requests):
            break
    return beginnings


def _joined(
    texts: TextColumn, numbers: Positions, bounds: Positions, marks: npt.NDArray[np.bool_]
) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Join the marked ones of each request's texts; the first request's begin at ``bounds[0]``."""
    ends = np.concatenate([[0], np.cumsum(marks)])[bounds - bounds[0]]
    lists = pa.LargeListArray.from_arrays(pa.array(ends), texts.take(numbers[marks]))
    return pc.call_function("binary_join", [lists, pa.scalar("\n", pa.large_string())])


def _instructions(
    systems: Any,  # noqa: ANN401 - pyarrow has no types
    turns: _Turns,
    shared: TextColumn,
    are_own: npt.NDArray[np.bool_],
    are_whole: npt.NDArray[np.bool_],
    scratch: Path | None,
) -> tuple[TextColumn, Positions]:
    """Return the different instructions, and the number of each request's."""
    asked, prompts = _codes(systems)
    templates, firsts = spilled_texts.numbered_texts(shared)
    begin = ~(are_own | are_whole)
    beginnings, of_beginning = np.unique(turns.texts[begin], return_inverse=True)
    parts = [
        [prompts],
        shingles.taken(shared, firsts),
        shingles.taken(turns.different, beginnings),
    ]
    pieces = spilled_texts.spilled(chain.from_iterable(parts), scratch)
    have_words = _have_words(pieces)
    of_turn = len(prompts) + templates[turns.texts]
    of_turn[begin] = len(prompts) + len(firsts) + of_beginning
    of_turn[are_whole | ~have_words[of_turn]] = -1
    numbers: dict[tuple[int, ...], int] = {}
    listed, first = of_turn.tolist(), np.where(have_words[asked], asked, -1).tolist()
    instructed = [
        numbers.setdefault((first[n], *listed[start:stop]), len(numbers))
        for n, (start, stop) in enumerate(pairwise(turns.bounds.tolist()))
    ]
    named = [[piece for piece in number if piece >= 0] for number in numbers]
    joined = spilled_texts.spilled(_joined_pieces(pieces, named), scratch)
    different, firsts = spilled_texts.numbered_texts(joined)
    return spilled_texts.at(joined, firsts, scratch), different[np.array(instructed, np.int64)]


def _joined_pieces(pieces: TextColumn, named: Sequence[list[int]]) -> Iterator[TextColumn]:
    separator = pa.scalar("\n\n", pa.large_string())
    for start in range(0, len(named), ROWS_AT_ONCE):
        block = named[start : start + ROWS_AT_ONCE]
        texts = pieces.take(np.array([*chain.from_iterable(block)], np.int64))
        ends = pa.array(np.cumsum([0, *map(len, block)]), pa.int64())
        lists = pa.LargeListArray.from_arrays(ends, texts)
        yield pc.call_function("binary_join", [lists, separator])


def place(
    ids: list[str],
    requests: RequestColumns,
    compared: ComparedRequests,
    jaccard: float,
    scratch: Path | None = None,
) -> list[Place]:
    """Return each request's cluster, twins and equals; order does not matter."""
    clusters = duplicates.find_clusters(ids, compared.words, jaccard, scratch)
    alike = duplicates.find_clusters(
        # No two are equal, and which of a cluster is first does not matter.
        [f"{number:012d}" for number in range(len(compared.instructions))],
        compared.instructions,
        jaccard,
        scratch,
    ).firsts[compared.instructed]
    tool_names = _codes(requests.tool_names)[0]
    near = duplicates.smallest(ids, clusters.firsts, tool_names)
    alike_words = duplicates.without_replaced(ids, compared.words, clusters)
    tools, forms = _codes(requests.tools)[0], _codes(requests.form)[0]
    twins = duplicates.smallest(ids, alike_words, tools, alike, forms)
    equals = duplicates.smallest(ids, twins, _same_words(twins, compared.words))
    return [
        Place(ids[cluster], ids[twin], ids[equal])
        for cluster, twin, equal in zip(near.tolist(), twins.tolist(), equals.tolist(), strict=True)
    ]


def _same_words(twins: Positions, words: Any) -> Positions:  # noqa: ANN401 - pyarrow has no types
    """Return a number per request, equal for twins with equal words."""
    several = np.flatnonzero(np.bincount(twins)[twins] > 1)
    numbers: dict[str, int] = {}
    same = np.zeros(len(twins), np.int64)
    for block in np.array_split(several, len(several) // ROWS_AT_ONCE + 1):
        texts = words.take(block).to_pylist()
        same[block] = [numbers.setdefault(_spaced(text) or text, len(numbers)) for text in texts]
    return same


def _spaced(text: str) -> str:
    """Return a text's words in lower case, separated by single spaces."""
    folded = text.casefold()
    words = folded.translate(_BREAKS).split() if folded.isascii() else _WORD.findall(folded)
    return " ".join(words)


_WORD = re.compile(r"[^\W_]+")
_BREAKS = {code: " " for code in range(128) if not chr(code).isalnum()}
"""ASCII characters outside ``_WORD``; ``translate`` is faster than the regex on ASCII."""


def _have_words(texts: Any) -> npt.NDArray[np.bool_]:  # noqa: ANN401 - pyarrow has no types
    common = pc.MatchSubstringOptions("[0-9A-Za-z]")
    marks = pc.call_function("match_substring_regex", [texts], common)
    marks = marks.to_numpy(zero_copy_only=False).copy()
    others = np.flatnonzero(~marks)
    marks[others] = [_WORD.search(text) is not None for text in texts.take(others).to_pylist()]
    return marks


@lru_cache(maxsize=4096)
def _offered(tools: str) -> str:
    """Return the digest of a list of tools in any order; cached, as most requests share it."""
    return manifest.digest(sorted({json.dumps(tool, sort_keys=True) for tool in json.loads(tools)}))


@lru_cache(maxsize=4096)
def _named(tools: str) -> str:
    return split.tools(read_tools(tools)[1])
