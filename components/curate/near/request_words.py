"""Separate requests' own words from what many share: system prompts, templates, beginnings."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.curate.near import duplicates, hashed_words, shared_text, shingles
from components.curate.near.hashed_words import (
    IS_SYMBOL,
    DigestedWords,
    Hashes,
    Marks,
    Positions,
    SpilledWords,
    WordColumn,
    Words,
)
from components.curate.near.request_columns import RequestColumns, codes_of
from components.curate.near.shared_text import (
    NOTHING,
    OWN,
    SHARED,
    WHOLE,
    RightAnswers,
    SharedWords,
    Uses,
)
from components.curate.near.text_words import TextWords
from components.curate.near.word_runs import MANY

WORDS_AT_ONCE = 1 << 20  # words of requests that are held at once
JOINED_AT_ONCE = 1024  # instructions, which may have long texts of many


class RequestWords(NamedTuple):
    """Requests as hashed words: ``words`` without shared text, and ``asked``, the users' of them.

    ``whole`` are the users' words, shared text included. Request i has the instruction
    ``instructions[instructed[i]]``, its shared text: system prompt and templates; and it is about
    ``documents[systems[i]]``, what its system prompt has besides a template. ``parts`` are what the
    words are of.
    """

    words: DigestedWords
    asked: DigestedWords
    whole: DigestedWords
    instructions: DigestedWords
    instructed: Positions
    documents: DigestedWords
    systems: Positions
    parts: "RequestParts"


def separate(
    requests: RequestColumns, scratch: Path | None = None, *, with_whole: bool = False
) -> RequestWords:
    """Return the requests without text shared by many; order does not matter.

    Their words are in files of the folder ``scratch``, or in memory if it is ``None``.
    Without ``with_whole``, ``whole`` is ``asked``.
    """
    systems, prompts = codes_of(requests.system)
    prompt_words = hashed_words.column_of(prompts, scratch)
    words, texts = TextWords.of(requests.turns.digests, requests.turns.at, scratch)
    turns = NumberedTurns.of(requests, texts)
    answers = RightAnswers(turns.texts[turns.bounds[1:] - 1], codes_of(requests.answer_name)[0])
    shared = shared_text.find_shared(words, answers, scratch)
    are_own = turns.places >= np.repeat(_beginnings(turns), np.diff(turns.bounds))
    uses = np.where(are_own, OWN, NOTHING).astype(np.uint8)
    parts = RequestParts(turns, words, shared, uses)
    written = SpilledWords(scratch)
    rows = np.arange(len(turns.bounds) - 1)
    sizes = np.bincount(turns.rows, words.column.sizes[texts], len(rows)).astype(np.int64)
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
    instructions = _instructions(systems, prompt_words, parts, scratch)
    documents = DigestedWords.of(shared_text.document_words(prompt_words, scratch))
    column = DigestedWords.of(written.column())
    places = rows.copy()
    places[mixed] = len(rows) + np.arange(len(mixed))
    asked = column.at(places)
    whole = column.at(slice(len(rows) + len(mixed), None)) if with_whole else asked
    return RequestWords(column.at(rows), asked, whole, *instructions, documents, systems, parts)


def _blocks(places: Positions, sizes: Positions) -> Iterator[Positions]:
    """Split places of about as many words together; those at place i are ``sizes[i]``."""
    for part in hashed_words.slices(hashed_words.bounds_of(sizes[places]), WORDS_AT_ONCE):
        yield places[part]


class NumberedTurns(NamedTuple):
    """The turns of all requests; request i has the turns ``bounds[i]:bounds[i + 1]``.

    Turn k is of request ``rows[k]``, its number ``places[k]``; it has the role ``roles[k]`` by
    number, and the text ``texts[k]`` of the different ones.
    """

    texts: Positions
    bounds: Positions
    rows: Positions
    roles: Positions
    are_users: Marks
    places: Positions

    @classmethod
    def of(cls, requests: RequestColumns, texts: Positions) -> "NumberedTurns":
        """Number the turns of requests, which have such texts."""
        roles, names = codes_of(requests.roles)
        is_user = np.array([name == "user" for name in names.to_pylist()], np.bool_)
        sizes = requests.turns.sizes
        bounds = hashed_words.bounds_of(sizes)
        rows = np.repeat(np.arange(len(sizes)), sizes)
        places = np.arange(len(texts)) - bounds[rows]
        return cls(texts, bounds, rows, roles, is_user[roles], places)


class RequestParts(NamedTuple):
    """What the requests' words are of: turn k's text, of which ``uses[k]`` says which words.

    ``words`` are those of the different texts.
    """

    turns: NumberedTurns
    words: TextWords
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
        return shared_text.used_words(self.words.column, self.shared, texts, uses)


def _beginnings(turns: NumberedTurns) -> Positions:
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
    systems: Positions, prompts: WordColumn, parts: RequestParts, scratch: Path | None
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
        for block in _blocks(used, parts.words.column.sizes):
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


def _have_words(words: Words) -> Marks:
    """Mark the texts with a word that has a letter or digit."""
    return shingles.count_marks((words.hashes & IS_SYMBOL) == 0, words.bounds) > 0


def _column_has_words(column: WordColumn) -> Marks:
    marks = [_have_words(chunk.words()) for chunk in column.chunks()]
    return np.concatenate([np.zeros(0, np.bool_), *marks])
