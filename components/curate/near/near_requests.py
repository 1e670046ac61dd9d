"""Find requests too similar to be on different sides, and those of which one is enough."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import pyarrow as pa

from components.curate import split
from components.curate.interaction import read_tools
from components.curate.near import duplicates, hashed_words, kept_words, shared_text, shingles
from components.curate.near.comparison_cache import ComparisonCache
from components.curate.near.hashed_words import (
    IS_SYMBOL,
    DigestedWords,
    Hashes,
    Marks,
    Positions,
    SpilledWords,
    TextColumn,
    Texts,
    WordColumn,
    Words,
)
from components.curate.near.kept_words import KeptWords
from components.curate.near.shared_text import (
    NOTHING,
    OWN,
    SHARED,
    WHOLE,
    RightAnswers,
    SharedWords,
    Uses,
)
from components.curate.near.word_runs import MANY
from components.curate.split import LABEL_CHARACTERS
from components.schema import Answer, Json, Message
from components.store import manifest

WORDS_AT_ONCE = 1 << 20  # words of requests that are held at once
JOINED_AT_ONCE = 1024  # instructions, which may have long texts of many

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


class RequestTurns(Protocol):
    """The texts of requests' turns; request i has the next ``sizes[i]``."""

    @property
    def sizes(self) -> Positions:
        """The number of turns of each request."""
        ...

    @property
    def digests(self) -> Hashes:
        """The digest of each turn's text, of two values."""
        ...

    def at(self, places: Positions) -> Iterator[TextColumn]:
        """Yield the texts of some turns, in their order, in parts."""
        ...


class RequestColumns(NamedTuple):
    """Requests as Arrow columns; ``roles`` are those of all turns."""

    turns: RequestTurns
    roles: Any
    answer_name: Any
    system: Any
    tools: Any
    tool_names: Any
    form: Any


class ComparedRequests(NamedTuple):
    """Requests as hashed words: ``words`` without shared text, and ``asked``, the users' of them.

    ``whole`` are the users' words, shared text included. Request i has the instruction
    ``instructions[instructed[i]]``, its shared text: system prompt and templates. ``parts`` are
    what the words are of.
    """

    words: DigestedWords
    asked: DigestedWords
    whole: DigestedWords
    instructions: DigestedWords
    instructed: Positions
    parts: "_Parts"


class Places(NamedTuple):
    """Each request's near-duplicates: the place of the request with the group's smallest id."""

    clusters: Positions
    twins: Positions
    equals: Positions


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
    return RequestColumns(
        _ListedTurns(
            np.array([len(request.turns) for request in requests], np.int64),
            pa.array([turn for request in requests for turn in request.turns], pa.large_string()),
        ),
        _dictionary(role for request in requests for role in request.roles),
        *(
            _dictionary(getattr(request, name) for request in requests)
            for name in RequestColumns._fields[2:]
        ),
    )


class _ListedTurns(NamedTuple):
    """Turns whose ``texts`` are in memory."""

    sizes: Positions
    texts: TextColumn

    @property
    def digests(self) -> Hashes:
        return kept_words.digests_of(self.texts)

    def at(self, places: Positions) -> Iterator[TextColumn]:
        yield from hashed_words.taken(self.texts, places)


def _dictionary(texts: Iterable[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return texts as an Arrow column in which each different one is once."""
    numbers: dict[str, int] = {}
    indices = pa.array([numbers.setdefault(text, len(numbers)) for text in texts], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array([*numbers], pa.large_string()))


def compare(
    requests: RequestColumns,
    kept: ComparisonCache,
    scratch: Path | None = None,
    *,
    with_whole: bool = False,
) -> ComparedRequests:
    """Return the requests without text shared by many; order does not matter.

    Their words are in files of the folder ``scratch``, or in memory if it is ``None``. ``kept`` has
    what earlier comparisons left. Without ``with_whole``, ``whole`` is ``asked``.
    """
    systems, prompts = _codes(requests.system)
    of_prompts = kept.words.add_column(prompts)
    turns = _Turns.of(requests, kept.words)
    answers = RightAnswers(turns.texts[turns.bounds[1:] - 1], _codes(requests.answer_name)[0])
    shared = shared_text.find_shared(kept.words, turns.kept, answers, kept.arrays, scratch)
    are_own = turns.places >= np.repeat(_beginnings(turns), np.diff(turns.bounds))
    uses = np.where(are_own, OWN, NOTHING).astype(np.uint8)
    parts = _Parts(turns, kept.words.column.at(turns.kept), shared, uses)
    written = SpilledWords(scratch)
    rows = np.arange(len(turns.bounds) - 1)
    sizes = np.bincount(turns.rows, parts.texts.sizes[turns.texts], len(rows)).astype(np.int64)
    for block in _blocks(rows, sizes):
        written.add(parts.words_or_whole(block))
    by_users = np.where(turns.are_users, uses, NOTHING).astype(np.uint8)
    mixed = np.flatnonzero(np.bincount(turns.rows[by_users != uses], minlength=len(rows)))
    for block in _blocks(mixed, sizes):
        written.add(parts.words_of(block, by_users))
    if with_whole:
        all_of_users = np.where(turns.are_users, WHOLE, NOTHING).astype(np.uint8)
        for block in _blocks(rows, sizes):
            written.add(parts.words_of(block, all_of_users))
    instructions = _instructions(systems, kept.words.column.at(of_prompts), parts, scratch)
    column = DigestedWords.of(written.column())
    places = rows.copy()
    places[mixed] = len(rows) + np.arange(len(mixed))
    asked = column.at(places)
    whole = column.at(slice(len(rows) + len(mixed), None)) if with_whole else asked
    return ComparedRequests(column.at(rows), asked, whole, *instructions, parts)


def _blocks(places: Positions, sizes: Positions) -> Iterator[Positions]:
    """Split places of about as many words together; those at place i are ``sizes[i]``."""
    for part in hashed_words.slices(hashed_words.bounds_of(sizes[places]), WORDS_AT_ONCE):
        yield places[part]


class _Turns(NamedTuple):
    """The turns of all requests; request i has the turns ``bounds[i]:bounds[i + 1]``.

    Turn k is of request ``rows[k]``, its number ``places[k]``; it has the role ``roles[k]`` by
    number, and a text of the kept number ``kept[texts[k]]``.
    """

    kept: Positions
    texts: Positions
    bounds: Positions
    rows: Positions
    roles: Positions
    are_users: Marks
    places: Positions

    @classmethod
    def of(cls, requests: RequestColumns, words: KeptWords) -> "_Turns":
        numbers = words.add(requests.turns.digests, requests.turns.at)
        kept, texts = np.unique(numbers, return_inverse=True)
        roles, names = _codes(requests.roles)
        is_user = np.array([name == "user" for name in names.to_pylist()], np.bool_)
        sizes = requests.turns.sizes
        bounds = hashed_words.bounds_of(sizes)
        rows = np.repeat(np.arange(len(sizes)), sizes)
        places = np.arange(len(texts)) - bounds[rows]
        return cls(kept, texts, bounds, rows, roles, is_user[roles], places)


class _Parts(NamedTuple):
    """What the requests' words are of: turn k's text, of which ``uses[k]`` says which words.

    The text of turn k is ``texts[turns.texts[k]]``.
    """

    turns: _Turns
    texts: WordColumn
    shared: SharedWords
    uses: Uses

    def words_or_whole(self, rows: Positions) -> Words:
        """Return the used words of some requests: all, if all of a request's text is shared."""
        words = self.words_of(rows, self.uses)
        wordless = ~_have_words(words)
        if not wordless.any():
            return words
        begins, ends = self.turns.bounds[rows[wordless]], self.turns.bounds[rows[wordless] + 1]
        self.uses[hashed_words.members(begins, ends - begins)] = WHOLE
        return self.words_of(rows, self.uses)

    def words_of(self, rows: Positions, uses: Uses) -> Words:
        """Return those words of some requests of which ``uses`` are, for each turn."""
        bounds = self.turns.bounds
        sizes = bounds[rows + 1] - bounds[rows]
        at = hashed_words.members(bounds[rows], sizes)
        used = uses[at] != NOTHING
        at, ends = at[used], np.concatenate([[0], np.cumsum(used)])[hashed_words.bounds_of(sizes)]
        words = self.cut(self.turns.texts[at], uses[at])
        return Words(words.hashes, words.bounds[ends])

    def cut(self, texts: Positions, uses: Uses) -> Words:
        """Return the words of some texts of which ``uses`` are, for each text."""
        return shared_text.used_words(self.texts, self.shared, texts, uses)


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


def _instructions(
    systems: Positions, prompts: WordColumn, parts: _Parts, scratch: Path | None
) -> tuple[DigestedWords, Positions]:
    """Return the different instructions, in the order of their digests, and each request's number.

    Request i has the system prompt ``prompts[systems[i]]``.
    """
    turns, is_nothing = parts.turns, parts.uses == NOTHING
    has_template = (parts.uses == OWN) & parts.shared.have_shared[turns.texts]
    texts = [hashed_words.sorted_set(turns.texts[marks]) for marks in (has_template, is_nothing)]
    pieces = SpilledWords(scratch)
    for block in _blocks(np.arange(len(prompts)), prompts.sizes):
        pieces.add(prompts.at(block).words())
    of_turn = np.full(len(turns.texts), -1)
    before = len(prompts)
    for marks, used, use in zip((has_template, is_nothing), texts, (SHARED, WHOLE), strict=True):
        for block in _blocks(used, parts.texts.sizes):
            pieces.add(parts.cut(block, np.full(len(block), use, np.uint8)))
        of_turn[marks] = before + np.searchsorted(used, turns.texts[marks])
        before += len(used)
    column = DigestedWords.of(pieces.so_far())
    same, firsts = column.numbered()
    of_piece = np.where(_column_has_words(column.words), firsts[same], -1)
    of_turn = np.where(of_turn < 0, -1, of_piece[of_turn])
    every = np.insert(of_turn, turns.bounds[:-1], of_piece[systems])
    bounds = turns.bounds + np.arange(len(turns.bounds))
    sizes = shingles.count_marks(every >= 0, bounds)
    joined = _Joined(column, every[every >= 0], sizes)
    digests = joined.digests()
    numbers, firsts = hashed_words.numbered(digests)
    order = np.lexsort((digests[firsts, 1], digests[firsts, 0]))
    words = joined.words(firsts[order], pieces)
    return DigestedWords(words, digests[firsts[order]]), np.argsort(order)[numbers]


class _Joined(NamedTuple):
    """Texts of the next ``sizes[i]`` of the ``places`` in a column each."""

    column: DigestedWords
    places: Positions
    sizes: Positions

    def digests(self) -> Hashes:
        """Return a digest of each text: of its piece, or of the digests of several."""
        bounds = hashed_words.bounds_of(self.sizes)
        steps = (np.arange(len(self.places)) - np.repeat(bounds[:-1], self.sizes)).astype(np.uint64)
        of_pieces = self.column.digests[self.places]
        of_pieces = hashed_words.mixed(of_pieces + (steps * hashed_words.STEP)[:, None])
        sums = np.zeros((len(of_pieces) + 1, 2), np.uint64)
        np.cumsum(of_pieces, axis=0, out=sums[1:])
        digests = np.diff(sums[bounds], axis=0)
        alone = self.sizes == 1
        digests[alone] = self.column.digests[self.places[bounds[:-1][alone]]]
        return digests

    def words(self, texts: Positions, pieces: SpilledWords) -> WordColumn:
        """Return the words of some texts; ``pieces`` has those of the column by now."""
        begins, alone = hashed_words.bounds_of(self.sizes)[texts], self.sizes[texts] == 1
        places = np.zeros(len(texts), np.int64)
        places[alone] = self.places[begins[alone]]
        several = np.flatnonzero(~alone)
        for start in range(0, len(several), JOINED_AT_ONCE):
            block = several[start : start + JOINED_AT_ONCE]
            sizes = self.sizes[texts[block]]
            words = self.column.words.at(self.places[hashed_words.members(begins[block], sizes)])
            joined = words.words()
            pieces.add(Words(joined.hashes, joined.bounds[hashed_words.bounds_of(sizes)]))
        places[several] = len(self.column) + np.arange(len(several))
        return pieces.column().at(places)


def place(
    order: Positions,
    requests: RequestColumns,
    compared: ComparedRequests,
    jaccard: float,
    kept: ComparisonCache,
) -> Places:
    """Return each request's cluster, twins and equals; ``order`` is that of their ids."""
    clusters = duplicates.find_clusters(order, compared.words, jaccard, kept.near_requests)
    alike = duplicates.find_clusters(
        # Which of a cluster is first does not matter.
        np.arange(len(compared.instructions)),
        compared.instructions,
        jaccard,
        kept.near_instructions,
    ).firsts[compared.instructed]
    tool_names = _codes(requests.tool_names)[0]
    near = duplicates.smallest(order, clusters.firsts, tool_names)
    alike_words = duplicates.without_replaced(order, compared.words, clusters, kept.passages)
    tools, forms = _codes(requests.tools)[0], _codes(requests.form)[0]
    twins = duplicates.smallest(order, alike_words, tools, alike, forms)
    are_ascii = kept.words.are_ascii[compared.parts.turns.kept]
    same = _same_words(twins, clusters.numbers, are_ascii, requests, compared.parts)
    return Places(near, twins, duplicates.smallest(order, twins, same))


def _same_words(
    twins: Positions,
    numbers: Positions,
    are_ascii: Marks,
    requests: RequestColumns,
    parts: _Parts,
) -> Positions:
    """Return a number per request, equal for twins with equal words.

    Hashed words differ by the case and the signs of other languages, so that twins of which one
    has such are read; ``are_ascii`` are the others' texts.
    """
    turns = parts.turns
    others = np.bincount(twins[turns.rows[~are_ascii[turns.texts]]], minlength=len(twins)) > 0
    read = np.flatnonzero(others[twins] & (np.bincount(twins)[twins] > 1))
    texts: dict[str, int] = {}
    same = numbers.copy()
    for row, text in zip(read.tolist(), _own_texts(read, requests.turns, parts), strict=True):
        same[row] = len(numbers) + texts.setdefault(_spaced(text) or text, len(texts))
    return same


def _own_texts(rows: Positions, texts: RequestTurns, parts: _Parts) -> Iterator[str]:
    """Yield the texts of some requests without what is shared."""
    bounds, shared = parts.turns.bounds, parts.shared
    turns = hashed_words.members(bounds[rows], bounds[rows + 1] - bounds[rows])
    own: list[str] = []
    for column, places in _with_places(texts.at(turns), turns):
        for place, turn in enumerate(places.tolist()):
            number, row = parts.turns.texts[turn], parts.turns.rows[turn]
            text = column.slice(place, 1)
            if parts.uses[turn] == OWN and shared.have_shared[number]:
                marks = shared.are_shared[shared.bounds[number] : shared.bounds[number + 1]]
                located = hashed_words.hash_words(Texts.of(text))
                own.append(_without(text[0].as_py(), located.starts.tolist(), marks.tolist()))
            elif parts.uses[turn] != NOTHING:
                own.append(text[0].as_py())
            if turn + 1 == bounds[row + 1]:
                yield "\n".join(own)
                own.clear()


def _with_places(
    columns: Iterable[TextColumn], places: Positions
) -> Iterator[tuple[Any, Positions]]:
    """Yield parts of texts with the places of each part's."""
    for column in columns:
        yield column, places[: len(column)]
        places = places[len(column) :]


def _without(text: str, starts: list[int], marks: list[bool]) -> str:
    """Return a text without the marked words, which begin at ``starts``, in bytes."""
    content = text.encode()
    ends = [*starts[1:], len(content)]
    pieces = [
        (content[start:end].decode(), is_after)
        for start, end, mark, is_after in zip(
            starts, ends, marks, [False, *marks[:-1]], strict=True
        )
        if not mark
    ]
    return "".join(f" {piece}" if is_after else piece for piece, is_after in pieces)


def _spaced(text: str) -> str:
    """Return a text's words in lower case, separated by single spaces."""
    folded = text.casefold()
    words = folded.translate(_BREAKS).split() if folded.isascii() else _WORD.findall(folded)
    return " ".join(words)


_WORD = re.compile(r"[^\W_]+")
_BREAKS = {code: " " for code in range(128) if not chr(code).isalnum()}
"""ASCII characters outside ``_WORD``; ``translate`` is faster than the regex on ASCII."""


def _have_words(words: Words) -> Marks:
    """Mark the texts with a word that has a letter or digit."""
    return shingles.count_marks((words.hashes & IS_SYMBOL) == 0, words.bounds) > 0


def _column_has_words(column: WordColumn) -> Marks:
    marks = [_have_words(chunk.words()) for chunk in column.chunks()]
    return np.concatenate([np.zeros(0, np.bool_), *marks])


@lru_cache(maxsize=4096)
def _offered(tools: str) -> str:
    """Return the digest of a list of tools in any order; cached, as most requests share it."""
    return manifest.digest(sorted({json.dumps(tool, sort_keys=True) for tool in json.loads(tools)}))


@lru_cache(maxsize=4096)
def _named(tools: str) -> str:
    return split.tools(read_tools(tools)[1])
