"""Runs of words: their hashes, and how many texts share each."""

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.curate.near import shingles
from components.curate.near.hashed_words import (
    Hashes,
    Marks,
    Positions,
    Scalar,
    WordColumn,
    Words,
    in_order,
)
from components.curate.near.shingles import HASH_BITS, Shingles

RUN = 8
"""Words of a run: shorter templates don't make different requests near-duplicates (one word after
ten shared ones is 0.8), and common phrases of a language are seldom longer."""

MANY = 8
"""Texts that must share a run: one request rarely has this many variants differing in more than
numbers."""

FirstBits = npt.NDArray[np.uint32]
FIRST_BITS = 32  # of a run's hash, by which runs are counted

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


def _first_bits(texts: WordColumn) -> FirstBits:
    runs = runs_of(texts.words()).hashes
    return (runs >> np.uint64(HASH_BITS - FIRST_BITS)).astype(np.uint32)


class CommonRuns(NamedTuple):
    """The runs shared by many different texts, sorted, with the number of texts per run."""

    runs: Hashes
    counts: Positions


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


def count_runs(texts: WordColumn, pool: Executor) -> CommonRuns:
    """Count the runs exactly, over different texts."""
    counts = _Counts(min(TABLE_BITS, int(texts.sizes.sum()).bit_length() + SPARE_BITS))
    waiting: list[FirstBits] = []
    for number, part in enumerate(in_order(pool, _first_bits, texts.chunks()), 1):
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
