"""Runs of words: their hashes, which texts may have some of them, and how many share each."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.curate.near import hashed_words, shingles
from components.curate.near.hashed_words import (
    Hashes,
    Marks,
    Positions,
    Scalar,
    WordColumn,
    Words,
    in_order,
    sorted_set,
)
from components.curate.near.seen_bits import BITS, Bits32, SeenBits
from components.curate.near.shingles import HASH_BITS, Shingles

RUN = 8
"""Words of a run: shorter templates don't make different requests near-duplicates (one word after
ten shared ones is 0.8), and common phrases of a language are seldom longer."""

MANY = 8
"""Texts that must share a run: one request rarely has this many variants differing in more than
numbers."""

FirstBits = Bits32
FIRST_BITS = BITS
"""Of a run's hash, so many are kept: texts with some runs are found without their words."""

BITS_AT_ONCE = 1 << 16

TABLE_BITS = 28
SPARE_BITS = 1
"""A table larger than the number of runs has few collisions; a still larger one costs more time
than it saves."""

CHUNKS_AT_ONCE = 64
_RUNS_SORTED = 1 << 22
_MOST = 255  # a table's counts stop here


def runs_of(words: Words) -> Shingles:
    """Hash every run of each text, in order, with repetitions."""
    return shingles.shingle(words, RUN, whole=False)


def first_bits(runs: Hashes) -> FirstBits:
    """Return the bits of runs that are kept."""
    return (runs >> np.uint64(HASH_BITS - FIRST_BITS)).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class RunBits:
    """The first bits of texts' runs; text i has ``bits[bounds[i]:bounds[i + 1]]``."""

    bits: FirstBits
    bounds: Positions

    @classmethod
    def of(cls, bits: FirstBits, words: Positions) -> "RunBits":
        """Return the bits of texts with so many words."""
        return cls(bits, hashed_words.bounds_of(np.maximum(words - (RUN - 1), 0)))

    def chunks(self, texts: Positions) -> Iterator[FirstBits]:
        """Yield the bits of some texts, in chunks."""
        begins, sizes = self.bounds[texts], np.diff(self.bounds)[texts]
        for part in hashed_words.slices(hashed_words.bounds_of(sizes), BITS_AT_ONCE):
            yield self.bits[hashed_words.members(begins[part], sizes[part])]

    def texts_with(self, runs: Hashes) -> Positions:
        """Return the texts that may have one of some runs; few others have none."""
        sought = sorted_set(first_bits(runs))
        seen = SeenBits(sought)
        texts = [np.zeros(0, np.int64)]
        for part in hashed_words.slices(self.bounds, BITS_AT_ONCE):
            bounds = self.bounds[part.start : part.stop + 1]
            bits = self.bits[bounds[0] : bounds[-1]]
            at = seen.places_of(bits)
            owners = np.searchsorted(bounds - bounds[0], at, "right") - 1
            # A text that has some has mostly many, of which the first is enough.
            firsts = starts_of(owners)
            has_one = np.zeros(len(bounds), np.bool_)
            has_one[owners[firsts][_are_in(sought, bits[at[firsts]])]] = True
            others = ~has_one[owners]
            has_one[owners[others][_are_in(sought, bits[at[others]])]] = True
            texts.append(part.start + np.flatnonzero(has_one))
        return np.concatenate(texts)


def _are_in(sought: FirstBits, bits: FirstBits) -> Marks:
    """Mark the bits that are in a sorted set."""
    places = np.searchsorted(sought, bits)
    return sought[np.minimum(places, len(sought) - 1)] == bits


class CommonRuns(NamedTuple):
    """The runs shared by many different texts, sorted, with the number of texts per run."""

    runs: Hashes
    counts: Positions

    def number_of_texts(self, runs: Hashes) -> Positions:
        """Return the number of texts per run, of sorted ones; 0 if fewer than ``MANY``."""
        counts = np.zeros(len(runs), np.int64)
        at, places = self._find(runs)
        counts[at] = self.counts[places]
        return counts

    def _find(self, runs: Hashes) -> tuple[Positions, Positions]:
        """Return the indices of the runs that it has, of sorted ones, and their places in it."""
        places = np.searchsorted(self.runs, runs)
        at = np.flatnonzero(places < len(self.runs))
        at = at[self.runs[places[at]] == runs[at]]
        return at, places[at]

    def updated(self, runs: Hashes, counts: Positions) -> "CommonRuns":
        """Return them with other counts of some runs, which are sorted and different."""
        left = np.ones(len(self.runs), np.bool_)
        left[self._find(runs)[1]] = False
        many = counts >= MANY
        every = np.concatenate([self.runs[left], runs[many]])
        order = np.argsort(every, kind="stable")  # of two sorted parts
        return CommonRuns(every[order], np.concatenate([self.counts[left], counts[many]])[order])


class _Counts:
    """Number of texts per run, at most ``_MOST``, by the first bits of the run's hash."""

    def __init__(self, bits: int) -> None:
        self._of = np.zeros(1 << bits, np.uint8)
        self._bits = bits

    def add(self, bits: FirstBits) -> None:
        # In order: random ones miss the cache.
        places, times = counted(bits >> np.uint32(FIRST_BITS - self._bits))
        self._of[places] = np.minimum(times + self._of[places], _MOST)

    def many(self, hashes: Hashes) -> Marks:
        return self._of[hashes >> np.uint64(HASH_BITS - self._bits)] >= MANY


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

    def many(self) -> CommonRuns:
        """Return the runs of many texts."""
        self._merge()
        are_many = self._times >= MANY
        return CommonRuns(self._runs[are_many], self._times[are_many])

    def _merge(self) -> None:
        runs, times = counted(np.concatenate([np.zeros(0, np.uint64), *self._new]))
        self._new.clear()
        self._waiting = 0
        self._runs, self._times = summed([self._runs, runs], [self._times, times])


def count_runs(texts: WordColumn, bits: Iterable[FirstBits], pool: Executor) -> CommonRuns:
    """Count the runs exactly, over different texts; ``bits`` are those of all of their runs."""
    counts = _Counts(min(TABLE_BITS, int(texts.sizes.sum()).bit_length() + SPARE_BITS))
    waiting: list[FirstBits] = []
    for number, part in enumerate(bits, 1):
        waiting.append(part)
        if number % CHUNKS_AT_ONCE == 0:
            counts.add(np.concatenate(waiting))
            waiting.clear()
    counts.add(np.concatenate([np.zeros(0, np.uint32), *waiting]))
    tally = _Tally()
    for hashes in in_order(pool, partial(_distinct, counts=counts), texts.chunks()):
        tally.add(hashes)
    return tally.many()


def _distinct(texts: WordColumn, counts: _Counts) -> Hashes:
    """Return the distinct, possibly shared runs of each text of a chunk."""
    runs = runs_of(texts.words())
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(runs.bounds))
    many = counts.many(runs.hashes)
    ordered = np.sort((owners[many] << np.uint64(HASH_BITS)) | runs.hashes[many])
    return ordered[starts_of(ordered)] & np.uint64((1 << HASH_BITS) - 1)


def counted(values: npt.NDArray[Scalar]) -> tuple[npt.NDArray[Scalar], Positions]:
    """Return the different values, sorted, and how often each occurs; quicker than ``unique``."""
    ordered = np.sort(values)
    starts = starts_of(ordered)
    return ordered[starts], np.diff(starts, append=len(ordered))


def summed(runs: Sequence[Hashes], times: Sequence[Positions]) -> tuple[Hashes, Positions]:
    """Return the different runs, sorted, and the sum of the times of each."""
    every = np.concatenate(runs)
    order = np.argsort(every, kind="stable")
    starts = starts_of(every[order])
    of_runs = np.concatenate(times)[order]
    return every[order[starts]], np.add.reduceat(of_runs, starts) if len(starts) else of_runs


def starts_of(ordered: npt.NDArray[Scalar]) -> Positions:
    """Return where each different value begins."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
