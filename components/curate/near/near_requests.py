"""Find requests too similar to be on different sides, and those of which one is enough."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.curate import split
from components.curate.interaction import read_tools
from components.curate.near import duplicates, shared_text
from components.curate.near.shared_text import MANY, RightAnswers
from components.curate.near.shingles import Positions, TextColumn
from components.curate.split import LABEL_CHARACTERS
from components.schema import Answer, Json, Message
from components.store import manifest

ROWS_AT_ONCE = 8192  # rows whose texts are held as Python's at once

FREE = ""  # the name of longer texts, which never conflict

_TEXTS = pa.list_(pa.large_string())
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

    words: Any
    user_texts: Any
    instructions: Any
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
    names = RequestColumns._fields
    types = [_TEXTS, _TEXTS, *[pa.large_string()] * (len(names) - 2)]
    return RequestColumns(
        *(
            pa.array([getattr(request, name) for request in requests], kind)
            for name, kind in zip(names, types, strict=True)
        )
    )


def compare(requests: RequestColumns) -> ComparedRequests:
    """Return the requests without text shared by many; order does not matter."""
    turns = _Turns.of(requests)
    lasts = turns.bounds[1:] - 1
    answers = RightAnswers(turns.texts[lasts], _codes(requests.answer_name)[0])
    parted = shared_text.split_texts(turns.different, answers)
    beginnings = _beginnings(turns)
    is_own = turns.places >= np.repeat(beginnings, np.diff(turns.bounds))
    words = _joined(parted.own, turns.texts, turns.bounds, is_own, "\n")
    user_texts = _joined(parted.own, turns.texts, turns.bounds, is_own & turns.are_users, "\n")
    wordless = np.flatnonzero(~_have_words(words))
    if len(wordless):  # all of their text is shared: then none of it is
        marks = np.zeros(len(words), np.bool_)
        marks[wordless] = True
        theirs = np.repeat(marks, np.diff(turns.bounds))
        users = theirs & turns.are_users
        whole = _joined(turns.different, turns.texts, turns.bounds, theirs, "\n")
        by_users = _joined(turns.different, turns.texts, turns.bounds, users, "\n")
        words = pc.call_function("if_else", [pa.array(marks), whole, words])
        user_texts = pc.call_function("if_else", [pa.array(marks), by_users, user_texts])
        beginnings[wordless] = 0
        is_own |= theirs
    else:
        theirs = np.zeros(len(is_own), np.bool_)
    return ComparedRequests(
        words, user_texts, *_instructions(requests.system, turns, parted.shared, is_own, theirs)
    )


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
    def of(cls, requests: RequestColumns) -> "_Turns":
        texts, different = _codes(requests.turns.flatten())
        order = pc.call_function("array_sort_indices", [different]).to_numpy()
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        roles, names = _codes(requests.roles.flatten())
        is_user = np.array([name == "user" for name in names.to_pylist()], np.bool_)
        sizes = pc.call_function("list_value_length", [requests.turns]).to_numpy()
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(len(texts)) - np.repeat(bounds[:-1], sizes)
        return cls(different.take(order), ranks[texts], bounds, roles, is_user[roles], places)


def _codes(column: Any) -> tuple[Positions, Any]:  # noqa: ANN401 - pyarrow has no types
    """Return a column's values as numbers, and the different values."""
    encoded = column.dictionary_encode()
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
        requests, nodes = requests[longer], steps
    return beginnings


def _joined(
    texts: TextColumn,
    chosen: Positions,
    bounds: Positions,
    marks: npt.NDArray[np.bool_],
    separator: str,
) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Join the marked ones of each request's texts."""
    ends = np.concatenate([[0], np.cumsum(marks)])[bounds]
    lists = pa.LargeListArray.from_arrays(pa.array(ends), texts.take(chosen[marks]))
    return pc.call_function("binary_join", [lists, pa.scalar(separator, pa.large_string())])


def _instructions(
    systems: Any,  # noqa: ANN401 - pyarrow has no types
    turns: _Turns,
    shared: TextColumn,
    is_own: npt.NDArray[np.bool_],
    are_whole: npt.NDArray[np.bool_],
) -> tuple[Any, Positions]:
    """Return the different instructions, and the number of each request's."""
    asked, prompts = _codes(systems)
    templates, shared_texts = _codes(shared)
    beginnings, of_beginning = np.unique(turns.texts[~is_own], return_inverse=True)
    pieces = pa.concat_arrays([prompts, shared_texts, turns.different.take(beginnings)])
    have_words = _have_words(pieces)
    of_turn = len(prompts) + templates[turns.texts]
    of_turn[~is_own] = len(prompts) + len(shared_texts) + of_beginning
    of_turn[are_whole | ~have_words[of_turn]] = -1
    numbers: dict[tuple[int, ...], int] = {}
    bounds = turns.bounds.tolist()
    listed, first = of_turn.tolist(), np.where(have_words[asked], asked, -1).tolist()
    instructed = [
        numbers.setdefault((first[n], *listed[start:stop]), len(numbers))
        for n, (start, stop) in enumerate(pairwise(bounds))
    ]
    named = [[piece for piece in number if piece >= 0] for number in numbers]
    ends = np.cumsum([0, *map(len, named)])
    texts = pieces.take(pa.array([*chain.from_iterable(named)], pa.int64()))
    lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), texts)
    separator = pa.scalar("\n\n", pa.large_string())
    different, instructions = _codes(pc.call_function("binary_join", [lists, separator]))
    return instructions, different[np.array(instructed, np.int64)]


def place(
    ids: list[str], requests: RequestColumns, compared: ComparedRequests, jaccard: float
) -> list[Place]:
    """Return each request's cluster, twins and equals; order does not matter."""
    clusters = duplicates.find_clusters(ids, compared.words, jaccard)
    of_instructions = duplicates.find_clusters(
        compared.instructions.to_pylist(), compared.instructions, jaccard
    )
    alike = of_instructions.firsts[compared.instructed]
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
