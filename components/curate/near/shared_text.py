"""Separate a text's own words from text shared by many: templates, documents."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.curate.near import shingles
from components.curate.near.shingles import (
    HASH_BITS,
    Hashes,
    Positions,
    TextColumn,
    Texts,
    Words,
    count_marks,
)

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

TABLE_BITS = 26
SPARE_BITS = 1
"""A table larger than the number of runs has few collisions; a still larger one costs more time
than it saves."""

THREADS = 2

_WORD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Parted:
    """A text's ``own`` words, and those of a template (``shared``, may be empty)."""

    own: str
    shared: str = ""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Number of texts per run, by the first bits of the run's hash."""

    of: npt.NDArray[np.uint32]
    shift: np.uint64

    def many(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        return self.of[(hashes >> self.shift).astype(np.int64)] >= MANY


@dataclass(frozen=True, slots=True)
class _Common:
    """The runs shared by many different texts, sorted, with the number of texts per run."""

    runs: Hashes
    counts: Positions

    def count(self, hashes: Hashes) -> Positions:
        """Return the number of texts per run; 0 if fewer than ``MANY``."""
        at = np.minimum(np.searchsorted(self.runs, hashes), len(self.runs) - 1)
        return np.where(self.runs[at] == hashes, self.counts[at], 0)


def split_shared(texts: Mapping[str, Collection[str]]) -> dict[str, Parted]:
    """Split each text into own and shared words; ``texts`` have their known right answers."""
    different = sorted(texts)
    column: TextColumn = pa.array(different, pa.large_string())
    with ThreadPoolExecutor(THREADS) as pool:
        counts, places = _suspects(column, pool)
        suspects = column.take(places)
        answers = [texts[different[place]] for place in places.tolist()]
        common = _common(suspects, answers, counts, pool)
        parted = {text: Parted(text) for text in different}
        if len(common.runs):
            chunks = pool.map(partial(_cut, common=common), Texts.of(suspects).chunks())
            cut = zip(places.tolist(), chain.from_iterable(chunks), strict=True)
            parted |= {different[place]: parts for place, parts in cut if parts}
    return parted


def _suspects(texts: TextColumn, pool: Executor) -> tuple[_Counts, Positions]:
    """Count runs by their first bits; return the counts and the texts with a frequent run."""
    offsets = Texts.of(texts).offsets
    words = int(offsets[-1] - offsets[0]) // _WORD_BYTES + 1
    bits = min(TABLE_BITS, words.bit_length() + SPARE_BITS)
    counts = _Counts(np.zeros(1 << bits, np.uint32), np.uint64(HASH_BITS - bits))
    chunks: list[tuple[npt.NDArray[np.uint32], Positions]] = []
    cut = partial(shingles.shingle, width=RUN, whole=False)
    for chunk in pool.map(cut, Texts.of(texts).chunks()):
        buckets = (chunk.hashes >> counts.shift).astype(np.int64)
        np.add.at(counts.of, buckets, np.uint32(1))
        chunks.append((buckets.astype(np.uint32), chunk.bounds))
    marks = [count_marks(counts.of[buckets] >= MANY, bounds) > 0 for buckets, bounds in chunks]
    return counts, np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *marks]))


def _common(
    texts: TextColumn, answers: Sequence[Collection[str]], counts: _Counts, pool: Executor
) -> _Common:
    """Count the runs exactly, over different texts."""
    names = np.concatenate([np.zeros(0, np.uint64), *pool.map(_names, Texts.of(texts).chunks())])
    different = texts.take(_different(names.tolist(), answers))
    run_hashes = [np.zeros(0, np.uint64)]
    run_hashes += pool.map(partial(_distinct, counts=counts), Texts.of(different).chunks())
    runs, exact = np.unique(np.concatenate(run_hashes), return_counts=True)
    return _Common(runs[exact >= MANY], exact[exact >= MANY])


def _distinct(texts: Texts, counts: _Counts) -> Hashes:
    """Return the distinct, possibly shared runs of each text of a chunk."""
    runs = shingles.shingle(texts, RUN, whole=False)
    owners = np.repeat(np.arange(len(texts)), np.diff(runs.bounds))
    many = np.flatnonzero(counts.many(runs.hashes))
    order = np.lexsort((runs.hashes[many], owners[many]))
    hashes, owners = runs.hashes[many[order]], owners[many[order]]
    is_first = np.ones(len(hashes), np.bool_)
    is_first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[is_first]


def _different(names: Sequence[int], answers: Sequence[Collection[str]]) -> Positions:
    """Return the first text of each name, or all of them where their answers differ."""
    known: dict[int, set[str]] = {}
    for name, right in zip(names, answers, strict=True):
        known.setdefault(name, set()).update(right)
    seen: set[int] = set()
    kept: list[int] = []
    for place, name in enumerate(names):
        if name not in seen or len(known[name]) > 1:
            kept.append(place)
        seen.add(name)
    return np.array(kept, np.int64)


def _names(texts: Texts) -> Hashes:
    """Sum each text's word hashes without words with digits: equal for texts of the same words."""
    words = shingles.words_of(texts)
    sums = np.zeros(len(words.hashes) + 1, np.uint64)
    numbers = shingles.have_digits(texts, words)
    np.cumsum(np.where(numbers, np.uint64(0), words.hashes), out=sums[1:])
    return np.diff(sums[words.bounds])


def _cut(texts: Texts, common: _Common) -> list[Parted | None]:
    """Split each text of a chunk; ``None`` where no part is shared."""
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
    parted: list[Parted | None] = [None] * len(texts)
    for place in np.flatnonzero((shared > 0) & (shared >= LEAST * np.diff(words.bounds))).tolist():
        parted[place] = _parted(texts, words, covered, place)
    return parted


def _highest(counts: Positions, owners: Positions) -> Positions:
    """Return the highest count among the runs of the same text that each overlaps."""
    highest = counts.copy()
    for distance in range(1, RUN):
        same = owners[distance:] == owners[:-distance]
        after, before = highest[:-distance], highest[distance:]
        np.maximum(after, counts[distance:], out=after, where=same)
        np.maximum(before, counts[:-distance], out=before, where=same)
    return highest


def _parted(texts: Texts, words: Words, covered: npt.NDArray[np.bool_], place: int) -> Parted:
    first, last = int(words.bounds[place]), int(words.bounds[place + 1])
    marks = covered[first:last]
    changes = (marks[1:] != marks[:-1]).nonzero()[0] + first + 1
    begin, end = int(texts.offsets[place]), int(texts.offsets[place + 1])
    cuts = [0, *(words.starts[changes] + (int(texts.offsets[0]) - begin)).tolist(), end - begin]
    content = texts.content[begin:end].tobytes()
    pieces = [content[start:stop].decode() for start, stop in pairwise(cuts)]
    begins_shared = int(marks[0])
    return Parted(" ".join(pieces[begins_shared::2]), " ".join(pieces[1 - begins_shared :: 2]))
