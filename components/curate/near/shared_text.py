"""Separate a text's own words from text shared by many: templates, documents."""

from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.curate.near import shingles
from components.curate.near.shingles import (
    HASH_BITS,
    Bytes,
    Hashes,
    Positions,
    TextColumn,
    Texts,
    Words,
    count_marks,
)
from components.curate.near.spilled_texts import SpilledTexts

RUN = 8
"""Words of a run: shorter templates don't make different requests near-duplicates (one word after
ten shared ones is 0.8), and common phrases of a language are seldom longer."""

MANY = 8
"""Texts that must share a run: one request rarely has this many variants differing in more than
numbers."""

STEADY = 0.5

LEAST = 0.1
"""Shared text below this share of a text's words is kept: it makes neither a near-duplicate nor an
overlap, and common phrases are in many texts."""

TABLE_BITS = 28
SPARE_BITS = 1
"""A table larger than the number of runs has few collisions; a still larger one costs more time
than it saves."""

THREADS = 2

_WORD_BYTES = 4
CHUNKS_AT_ONCE = 64
_RUNS_SORTED = 1 << 22
_MOST = 255  # a table's counts stop here
_SPACE = ord(" ")

Marks = npt.NDArray[np.bool_]


class RightAnswers(NamedTuple):
    """The known right answers: text ``texts[i]`` has the answer number ``numbers[i]``."""

    texts: Positions
    numbers: Positions


class PartedTexts(NamedTuple):
    """The ``own`` words of each text, and those of a template (``shared``, may be empty)."""

    own: TextColumn
    shared: TextColumn


class _Counts:
    """Number of texts per run, at most ``_MOST``, by the first bits of the run's hash."""

    def __init__(self, bits: int) -> None:
        self._of = np.zeros(1 << bits, np.uint8)
        self._shift = np.uint64(HASH_BITS - bits)

    def add(self, hashes: Hashes) -> None:
        places, times = _counted(hashes >> self._shift)  # in order: random ones miss the cache
        self._of[places] = np.minimum(times + self._of[places], _MOST)

    def many(self, hashes: Hashes) -> Marks:
        return self._of[hashes >> self._shift] >= MANY


class _Tally:
    """Exact numbers of texts per run, in little more memory than the different runs take."""

    def __init__(self) -> None:
        self._runs, self._times = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._new: list[Hashes] = []
        self._waiting = 0

    def add(self, hashes: Hashes) -> None:
        self._new.append(hashes)
        self._waiting += len(hashes)
        if self._waiting > max(_RUNS_SORTED, len(self._runs)):  # linear in all of them
            self._merge()

    def many(self) -> tuple[Hashes, Positions]:
        """Return the runs of many texts, sorted, and the number of texts of each."""
        self._merge()
        return self._runs[self._times >= MANY], self._times[self._times >= MANY]

    def _merge(self) -> None:
        runs, times = _counted(np.concatenate([np.zeros(0, np.uint64), *self._new]))
        self._new.clear()
        self._waiting = 0
        every = np.concatenate([self._runs, runs])
        order = np.argsort(every, kind="stable")
        starts = _starts(every[order])
        self._runs = every[order[starts]]
        summed = np.concatenate([self._times, times])[order]
        self._times = np.add.reduceat(summed, starts) if len(starts) else summed


def _counted(values: Hashes) -> tuple[Hashes, Positions]:
    """Return the different values, sorted, and how often each occurs; quicker than ``unique``."""
    ordered = np.sort(values)
    starts = _starts(ordered)
    return ordered[starts], np.diff(starts, append=len(ordered))


def _starts(ordered: Hashes) -> Positions:
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])


class _Common:
    """The runs shared by many different texts, sorted, with the number of texts per run."""

    def __init__(self, runs: Hashes, counts: Positions) -> None:
        bits = len(runs).bit_length() + 1
        self._shift = np.uint64(HASH_BITS - bits)
        firsts = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._places = np.searchsorted(runs, firsts).astype(np.int32)
        self._runs = np.append(runs, ~np.uint64(0))
        self._counts = np.append(counts, 0)

    def __len__(self) -> int:
        return len(self._runs) - 1

    def count(self, hashes: Hashes) -> Positions:
        """Return the number of texts per run; 0 if fewer than ``MANY``."""
        at = self._places[hashes >> self._shift]  # a binary search misses the cache at each step
        before = np.flatnonzero(self._runs[at] < hashes)
        while len(before):
            at[before] += 1
            before = before[self._runs[at[before]] < hashes[before]]
        return np.where(self._runs[at] == hashes, self._counts[at], 0)


def own_words(texts: Iterable[str]) -> dict[str, str]:
    """Return each different text's own words."""
    different = [*dict.fromkeys(texts)]
    nobody = RightAnswers(np.zeros(0, np.int64), np.zeros(0, np.int64))
    parted = split_texts(pa.array(different, pa.large_string()), nobody)
    return dict(zip(different, parted.own.to_pylist(), strict=True))


def split_texts(
    texts: TextColumn, answers: RightAnswers, scratch: Path | None = None
) -> PartedTexts:
    """Split each of different texts into own and shared words; their order does not matter.

    The words are kept in files of the folder ``scratch``, or in memory if it is ``None``.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        counts, suspects, names = _suspects(texts, pool)
        common = _common(texts, _different(texts, suspects, names, answers), counts, pool)
        if not len(common):
            empty = pa.array([""], pa.large_string()).take(np.zeros(len(texts), np.int64))
            return PartedTexts(texts, empty)
        own, shared = SpilledTexts(scratch), SpilledTexts(scratch)
        cut = partial(_cut, common=common)
        for own_words, shared_words in shingles.in_order(pool, cut, Texts.of(texts).chunks()):
            own.add(own_words)
            shared.add(shared_words)
    return PartedTexts(own.column(), shared.column())


def _suspects(texts: TextColumn, pool: Executor) -> tuple[_Counts, Positions, Hashes]:
    """Count runs by their first bits; return the texts with a frequent run, and their names."""
    offsets = Texts.of(texts).offsets
    words = int(offsets[-1] - offsets[0]) // _WORD_BYTES + 1
    counts = _Counts(min(TABLE_BITS, words.bit_length() + SPARE_BITS))
    names = [np.zeros(0, np.uint64)]
    marks = [np.zeros(0, np.bool_)]
    waiting: list[shingles.Shingles] = []

    def count() -> None:
        counts.add(np.concatenate([np.zeros(0, np.uint64), *(runs.hashes for runs in waiting)]))
        marks.extend(count_marks(counts.many(runs.hashes), runs.bounds) > 0 for runs in waiting)
        waiting.clear()

    for runs, part in shingles.in_order(pool, _named_runs, Texts.of(texts).chunks()):
        names.append(part)
        waiting.append(runs)
        if len(waiting) == CHUNKS_AT_ONCE:
            count()
    count()
    marked = np.concatenate(marks)
    # Those counted before their runs were frequent.
    missed = np.flatnonzero(~marked)
    cut = partial(shingles.shingle, width=RUN, whole=False)
    again = [
        count_marks(counts.many(runs.hashes), runs.bounds) > 0
        for runs in shingles.in_order(pool, cut, shingles.chunks_at(texts, missed))
    ]
    marked[missed] = np.concatenate([np.zeros(0, np.bool_), *again])
    suspects = np.flatnonzero(marked)
    return counts, suspects, np.concatenate(names)[suspects]


def _named_runs(texts: Texts) -> tuple[shingles.Shingles, Hashes]:
    """Return a chunk's runs, and its texts' names: equal for texts of the same words.

    A name is the sum of the word hashes, without words with digits.
    """
    words = shingles.words_of(texts)
    sums = np.zeros(len(words.hashes) + 1, np.uint64)
    numbers = shingles.have_digits(texts, words)
    np.cumsum(np.where(numbers, np.uint64(0), words.hashes), out=sums[1:])
    return shingles.runs(words, RUN), np.diff(sums[words.bounds])


def _different(
    texts: TextColumn, suspects: Positions, names: Hashes, answers: RightAnswers
) -> Positions:
    """Return the smallest text of each name, or all of them where their answers differ."""
    named, of_name, sizes = np.unique(names, return_inverse=True, return_counts=True)
    at = np.searchsorted(suspects, answers.texts)
    among = suspects[np.minimum(at, len(suspects) - 1)] == answers.texts if len(suspects) else at
    among = np.flatnonzero(among)
    known = np.unique(np.stack([of_name[at[among]], answers.numbers[among]]), axis=1)[0]
    several = np.bincount(known, minlength=len(named)) > 1
    kept = (several | (sizes == 1))[of_name]
    others = np.flatnonzero(~kept)
    smallest: dict[int, tuple[str, int]] = {}
    parts = shingles.taken(texts, suspects[others])
    written = chain.from_iterable(part.to_pylist() for part in parts)
    for text, place, name in zip(written, others.tolist(), of_name[others].tolist(), strict=True):
        smallest[name] = min(smallest.get(name, (text, place)), (text, place))
    kept[[place for _, place in smallest.values()]] = True
    return suspects[kept]


def _common(texts: TextColumn, different: Positions, counts: _Counts, pool: Executor) -> _Common:
    """Count the runs exactly, over different texts."""
    tally = _Tally()
    distinct = partial(_distinct, counts=counts)
    for hashes in shingles.in_order(pool, distinct, shingles.chunks_at(texts, different)):
        tally.add(hashes)
    return _Common(*tally.many())


def _distinct(texts: Texts, counts: _Counts) -> Hashes:
    """Return the distinct, possibly shared runs of each text of a chunk."""
    runs = shingles.shingle(texts, RUN, whole=False)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(runs.bounds))
    many = counts.many(runs.hashes)
    ordered = np.sort((owners[many] << np.uint64(HASH_BITS)) | runs.hashes[many])
    return ordered[_starts(ordered)] & np.uint64((1 << HASH_BITS) - 1)


def _cut(texts: Texts, common: _Common) -> tuple[TextColumn, TextColumn]:
    """Return the own and the shared words of each text of a chunk, as Arrow arrays."""
    words = shingles.words_of(texts)
    runs = shingles.runs(words, RUN)
    counts = common.count(runs.hashes)
    owners = np.repeat(np.arange(len(texts)), np.diff(runs.bounds))
    some = np.flatnonzero((count_marks(counts > 0, runs.bounds) > 0)[owners])
    counts, owners = counts[some], owners[some]
    places = some - runs.bounds[owners] + words.bounds[owners]
    kept = places[(counts > 0) & (counts >= STEADY * _highest(counts, owners))]
    steps = np.zeros(len(words.hashes) + 1, np.int64)
    steps[kept] += 1
    steps[kept + RUN] -= 1
    covered = np.cumsum(steps)[:-1] > 0
    shared = count_marks(covered, words.bounds)
    is_cut = (shared > 0) & (shared >= LEAST * np.diff(words.bounds))
    return _parted(texts, words, covered & np.repeat(is_cut, np.diff(words.bounds)))


def _highest(counts: Positions, owners: Positions) -> Positions:
    """Return the highest count among the runs of the same text that each overlaps."""
    highest = counts.copy()
    for distance in range(1, RUN):
        same = owners[distance:] == owners[:-distance]
        after, before = highest[:-distance], highest[distance:]
        np.maximum(after, counts[distance:], out=after, where=same)
        np.maximum(before, counts[:-distance], out=before, where=same)
    return highest


def _parted(texts: Texts, words: Words, is_shared: Marks) -> tuple[TextColumn, TextColumn]:
    """Cut the texts of a chunk before each word with another mark than the word before it."""
    begin, end = int(texts.offsets[0]), int(texts.offsets[-1])
    content, offsets = texts.content[begin:end], texts.offsets - begin
    # A text's beginning belongs to its first word, as what follows a word does to that word.
    counts = np.diff(words.bounds)
    starts, owners = words.starts.copy(), np.repeat(np.arange(len(texts)), counts)
    starts[words.bounds[:-1][counts > 0]] = offsets[:-1][counts > 0]
    wordless = np.flatnonzero((counts == 0) & (np.diff(offsets) > 0))
    order = np.argsort(np.append(starts, offsets[wordless]), kind="stable")
    starts = np.append(starts, offsets[wordless])[order]
    owners = np.append(owners, wordless)[order]
    marks = np.append(is_shared, np.zeros(len(wordless), np.bool_))[order]
    changes = np.ones(len(marks), np.bool_)
    changes[1:] = (marks[1:] != marks[:-1]) | (owners[1:] != owners[:-1])
    starts, owners, marks = starts[changes], owners[changes], marks[changes]
    sizes = np.diff(np.append(starts, len(content)))
    by_byte = np.repeat(marks, sizes)
    return (
        _joined(content[~by_byte], sizes[~marks], owners[~marks], len(texts)),
        _joined(content[by_byte], sizes[marks], owners[marks], len(texts)),
    )


def _joined(content: Bytes, sizes: Positions, owners: Positions, count: int) -> TextColumn:
    """Return ``count`` texts as an Arrow array, joined by spaces of pieces with so many bytes."""
    later = np.zeros(len(sizes), np.bool_)
    later[1:] = owners[1:] == owners[:-1]
    spaced = np.insert(content, (np.cumsum(sizes) - sizes)[later], _SPACE)
    lengths = np.bincount(owners, sizes + later, minlength=count).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    buffers = pa.py_buffer(ends), pa.py_buffer(spaced)
    return cast("TextColumn", pa.LargeStringArray.from_buffers(count, *buffers))
