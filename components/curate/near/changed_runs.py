"""Which runs more or fewer texts have than at the last comparison, and the texts with them."""

from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple, Self

import numpy as np

from components.curate.near import hashed_words, shingles, word_runs
from components.curate.near.hashed_words import Hashes, Marks, Positions, WordColumn, in_order
from components.curate.near.kept_words import KeptWords
from components.curate.near.shingles import HashTable
from components.curate.near.word_runs import MANY, RUN, CommonRuns

MAX_CHANGED = 0.125
"""Share of the counted texts' words; if more of them come or go, all runs are counted anew."""

MAX_RUNS = 1 << 24
"""Of texts that come or go, which are held in memory."""


class Changes(NamedTuple):
    """The common runs by now, and the texts with a run that more or fewer texts have."""

    common: CommonRuns
    touched: Marks


class _Moved(NamedTuple):
    """Sorted runs of texts that came or went, of which the count has or may have changed.

    ``counts`` are those of common runs by now; the others, which came, are to be counted.
    """

    runs: Hashes
    are_common: Marks
    counts: Positions

    @classmethod
    def of(cls, came: WordColumn, gone: WordColumn, common: CommonRuns, pool: Executor) -> Self:
        """Compare the runs of texts that came with those of texts that went."""
        new, old = (_counted(texts, pool) for texts in (came, gone))
        runs, by = word_runs.summed([new[0], old[0]], [new[1], -old[1]])
        before = common.number_of_texts(runs)
        # A run that too few texts had can't be common if no more have it.
        moved = ((before > 0) & (by != 0)) | (by > 0)
        return cls(runs[moved], before[moved] > 0, before[moved] + by[moved])


def _counted(texts: WordColumn, pool: Executor) -> tuple[Hashes, Positions]:
    distinct = in_order(pool, _distinct, texts.chunks())
    return word_runs.counted(np.concatenate([np.zeros(0, np.uint64), *distinct]))


def _distinct(texts: WordColumn) -> Hashes:
    return shingles.distinct(texts.words(), RUN, whole=False)[0]


def find_changes(
    words: KeptWords,
    numbers: Positions,
    counted: Positions,
    counted_before: Hashes,
    common: CommonRuns,
    pool: Executor,
) -> Changes | None:
    """Count the runs of which the number of texts may have changed; ``None`` if many have.

    The texts are those of such numbers, and ``counted`` the places of those whose runs count.
    ``common`` were the runs shared by many of the texts with the digests ``counted_before``.
    """
    texts, digests = words.column.at(numbers), words.digests[numbers[counted]]
    came = texts.at(counted[~hashed_words.are_among(digests, counted_before)])
    gone = words.numbers_of(counted_before[~hashed_words.are_among(counted_before, digests)])
    size = came.sizes.sum() + words.column.sizes[gone].sum()
    most = min(MAX_RUNS, MAX_CHANGED * texts.sizes[counted].sum())
    if size > most or (gone < 0).any():
        return None
    moved = _Moved.of(came, words.column.at(gone), common, pool)
    # Those of which first bits are alike are marked anew for nothing.
    touched = _among(numbers, words.runs.texts_with(moved.runs[moved.are_common]))
    others = moved.runs[~moved.are_common]
    places = np.flatnonzero(_among(numbers, words.runs.texts_with(others)))
    are_counted = np.zeros(len(texts), np.bool_)
    are_counted[counted] = True
    owners, runs = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint32)]
    start = 0
    meet = partial(_meet, among=HashTable(others))
    for length, of_chunk, met in in_order(pool, meet, texts.at(places).chunks()):
        having = places[start + of_chunk]
        # Any number of texts that don't count may have a run: they aren't held, but marked.
        to_count = are_counted[having]
        touched[having[~to_count]] = True
        owners.append(having[to_count].astype(np.uint32))
        runs.append(met[to_count].astype(np.uint32))
        start += length
    of_runs = np.concatenate(runs)
    counts = np.bincount(of_runs, minlength=len(others))
    touched[np.concatenate(owners)[counts[of_runs] >= MANY]] = True
    moved.counts[~moved.are_common] = counts
    return Changes(common.updated(moved.runs, moved.counts), touched)


def _among(numbers: Positions, others: Positions) -> Marks:
    """Mark the numbers that are among others; both are sorted."""
    marks = np.zeros(max(numbers[-1:].max(initial=-1), others[-1:].max(initial=-1)) + 1, np.bool_)
    marks[others] = True
    return marks[numbers]


def _meet(texts: WordColumn, among: HashTable) -> tuple[int, Positions, Positions]:
    """Return the length of a chunk, and the different runs, by place, that each text has."""
    runs = word_runs.runs_of(texts.words())
    met, places = among.find(runs.hashes)
    owners = np.searchsorted(runs.bounds, met, "right") - 1
    ordered = hashed_words.sorted_set((owners << np.int64(32)) | places)
    return len(texts), ordered >> np.int64(32), ordered & np.int64(0xFFFFFFFF)
