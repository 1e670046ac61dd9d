"""Separate a text's own words from text shared by many: templates, documents."""

from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from components.curate.near import hashed_words, shingles
from components.curate.near.hashed_words import (
    Hashes,
    Marks,
    Positions,
    SpilledWords,
    TextColumn,
    WordColumn,
    Words,
    in_order,
    sorted_set,
)
from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.kept_words import KeptWords
from components.curate.near.shingles import HASH_BITS, HashTable, count_marks

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

MOST_CHANGED = 0.125
"""Share of the counted texts' words; if more of them come or go, all runs are counted anew."""

MOST_RUNS = 1 << 24
"""Of texts that come or go, which are held in memory."""

CHUNKS_AT_ONCE = 64
TEXTS_AT_ONCE = 1 << 14
_RUNS_SORTED = 1 << 22
_MOST = 255  # a table's counts stop here


class RightAnswers(NamedTuple):
    """The known right answers: text ``texts[i]`` has the answer number ``numbers[i]``."""

    texts: Positions
    numbers: Positions


class SharedWords(NamedTuple):
    """Which words of each text belong to a template.

    Of the words of text i, side by side, ``are_shared[bounds[i]:bounds[i + 1]]`` do;
    ``have_shared[i]`` if any does.
    """

    are_shared: Marks
    bounds: Positions
    have_shared: Marks


Uses: TypeAlias = npt.NDArray[np.uint8]
NOTHING, OWN, SHARED, WHOLE = range(4)
"""Which words of a text are used."""


def used_words(column: WordColumn, shared: SharedWords, texts: Positions, uses: Uses) -> Words:
    """Return those words of some texts of which ``uses`` are, for each text, not ``NOTHING``."""
    chosen = column.at(texts)
    words = chosen.words()
    are_cut = (uses != WHOLE) & shared.have_shared[texts]
    if not are_cut.any() and not (uses == SHARED).any():
        return words
    # Of a text without shared words all are its own.
    are_used = np.repeat(uses != SHARED, chosen.sizes)
    sizes = chosen.sizes[are_cut]
    marks = shared.are_shared[hashed_words.members(shared.bounds[texts[are_cut]], sizes)]
    are_used[np.repeat(are_cut, chosen.sizes)] = marks == np.repeat(uses[are_cut] == SHARED, sizes)
    bounds = np.concatenate([[0], np.cumsum(are_used)])[words.bounds]
    return Words(words.hashes[are_used], bounds)


def own_words(texts: TextColumn) -> WordColumn:
    """Return each text's own words; equal texts count once."""
    kept = KeptArrays(None, "")
    words = KeptWords(kept)
    numbers, places = np.unique(words.add_column(texts), return_inverse=True)
    nobody = RightAnswers(np.zeros(0, np.int64), np.zeros(0, np.int64))
    shared = find_shared(words, numbers, nobody, kept)
    own = SpilledWords(None)
    own.add(
        used_words(words.column.at(numbers), shared, places, np.full(len(places), OWN, np.uint8))
    )
    return own.column()


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


def _starts(ordered: Hashes | Positions) -> Positions:
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])


class _Common:
    """The runs shared by many different texts, sorted, with the number of texts per run."""

    def __init__(self, runs: Hashes, counts: Positions) -> None:
        self.runs, self.counts = runs, counts
        self._table = HashTable(runs)

    def count(self, runs: Hashes) -> Positions:
        """Return the number of texts per run; 0 if fewer than ``MANY``."""
        counts = np.zeros(len(runs), np.int64)
        common, places = self._table.find(runs)
        counts[common] = self.counts[places]
        return counts


class _Earlier(NamedTuple):
    """What the last call left: its texts, those of which it counted the runs, and common runs.

    Text i had ``lengths[i]`` of the ``marks`` if some of its words were shared, else none.
    """

    digests: Hashes
    lengths: Positions
    marks: Marks
    counted: Hashes
    common: _Common

    @classmethod
    def read(cls, kept: KeptArrays) -> Self:
        return cls(
            kept.read("shared-texts", np.uint64).reshape(-1, 2),
            kept.read("shared-lengths", np.int64),
            kept.read("shared-marks", np.bool_),
            kept.read("shared-counted", np.uint64).reshape(-1, 2),
            _Common(kept.read("shared-runs", np.uint64), kept.read("shared-counts", np.int64)),
        )


def find_shared(
    words: KeptWords,
    numbers: Positions,
    answers: RightAnswers,
    kept: KeptArrays,
    scratch: Path | None = None,
) -> SharedWords:
    """Find the shared words of the kept texts with such numbers; their order does not matter.

    The marks are in a file of the folder ``scratch``, or in memory if it is ``None``. ``kept`` has
    what the last call left, so that only texts with runs which more or fewer texts have by now are
    looked at again.
    """
    texts, digests = words.column.at(numbers), words.digests[numbers]
    bounds = hashed_words.bounds_of(texts.sizes)
    are_shared = hashed_words.spilled_zeros(int(bounds[-1]), np.bool_, scratch)
    counted = _different(words.names[numbers], digests, answers)
    have_shared = np.zeros(len(texts), np.bool_)
    earlier = _Earlier.read(kept)
    with ThreadPoolExecutor(THREADS) as pool:
        changes = _Changes.find(words, texts, digests, counted, earlier, pool)
        if changes is None:
            common = _common(texts.at(counted), pool)
            stale = np.arange(len(texts))
        else:
            common = changes.applied_to(earlier.common)
            are_known = _take_over(earlier, digests, bounds, are_shared, have_shared)
            stale = np.flatnonzero(~are_known | changes.met_by(texts, pool))
        start = 0
        for part in in_order(pool, partial(_mark, common=common), texts.at(stale).chunks()):
            places = stale[start : start + len(part.sizes)]
            are_shared[hashed_words.members(bounds[places], part.sizes)] = part.marks
            have_shared[places] = count_marks(part.marks, hashed_words.bounds_of(part.sizes)) > 0
            start += len(places)
    shared = SharedWords(are_shared, bounds, have_shared)
    _leave(kept, digests, shared, digests[counted], common)
    return shared


def _different(names: Hashes, digests: Hashes, answers: RightAnswers) -> Positions:
    """Return the text with the smallest digest of each name, or all where their answers differ."""
    _, of_name, sizes = np.unique(names, return_inverse=True, return_counts=True)
    answered = of_name[answers.texts] * (int(answers.numbers.max(initial=0)) + 1) + answers.numbers
    known = of_name[answers.texts[np.unique(answered, return_index=True)[1]]]
    several = np.bincount(known, minlength=len(sizes)) > 1
    kept = (several | (sizes == 1))[of_name]
    others = np.flatnonzero(~kept)
    order = others[np.lexsort((digests[others, 1], digests[others, 0], of_name[others]))]
    kept[order[_starts(of_name[order])]] = True
    return np.flatnonzero(kept)


class _Changes(NamedTuple):
    """The runs of texts that came or went since the last call, sorted, with their counts now.

    ``touched`` are the texts with one of them.
    """

    runs: Hashes
    counts: Positions
    are_changed: Marks
    touched: Positions

    @classmethod
    def find(
        cls,
        words: KeptWords,
        texts: WordColumn,
        digests: Hashes,
        counted: Positions,
        earlier: _Earlier,
        pool: Executor,
    ) -> "_Changes | None":
        """Count the runs of which the number of texts may have changed; ``None`` if many have."""
        came = counted[~hashed_words.are_among(digests[counted], earlier.counted)]
        gone = earlier.counted[~hashed_words.are_among(earlier.counted, digests[counted])]
        places = words.numbers_of(gone)
        size = texts.sizes[came].sum() + words.column.sizes[places].sum()
        most = min(MOST_RUNS, MOST_CHANGED * texts.sizes[counted].sum())
        if size > most or (places < 0).any():
            return None
        moved = [*texts.at(came).chunks(), *words.column.at(places).chunks()]
        runs = sorted_set(np.concatenate([np.zeros(0, np.uint64), *map(_all_runs, moved)]))
        are_counted = np.zeros(len(texts), np.bool_)
        are_counted[counted] = True
        counts, touched = np.zeros(len(runs), np.int64), [np.zeros(0, np.int64)]
        meet = partial(_meet, among=HashTable(runs))
        start = 0
        for length, owners, met in in_order(pool, meet, texts.chunks()):
            np.add.at(counts, met[are_counted[start + owners]], 1)
            touched.append(start + sorted_set(owners))
            start += length
        counts = np.where(counts >= MANY, counts, 0)
        return cls(runs, counts, counts != earlier.common.count(runs), np.concatenate(touched))

    def applied_to(self, common: _Common) -> _Common:
        """Return the common runs by now."""
        left = np.delete(common.runs, HashTable(self.runs).find(common.runs)[0])
        runs = np.concatenate([left, self.runs[self.counts > 0]])
        counts = np.concatenate([common.count(left), self.counts[self.counts > 0]])
        order = np.argsort(runs)
        return _Common(runs[order], counts[order])

    def met_by(self, texts: WordColumn, pool: Executor) -> Marks:
        """Mark the texts with a run that more or fewer texts have by now."""
        marks = np.zeros(len(texts), np.bool_)
        changed = self.runs[self.are_changed]
        meet = partial(_meet, among=HashTable(changed))
        start = 0
        for length, owners, _ in in_order(pool, meet, texts.at(self.touched).chunks()):
            marks[self.touched[start + owners]] = True
            start += length
        return marks


def _all_runs(texts: WordColumn) -> Hashes:
    return shingles.shingle(texts.words(), RUN, whole=False).hashes


def _meet(texts: WordColumn, among: HashTable) -> tuple[int, Positions, Positions]:
    """Return the length of a chunk, and the different runs, by place, that each text has."""
    runs = shingles.shingle(texts.words(), RUN, whole=False)
    met, places = among.find(runs.hashes)
    owners = np.searchsorted(runs.bounds, met, "right") - 1
    ordered = sorted_set((owners << np.int64(32)) | places)
    return len(texts), ordered >> np.int64(32), ordered & np.int64(0xFFFFFFFF)


def _take_over(
    earlier: _Earlier, digests: Hashes, bounds: Positions, are_shared: Marks, have_shared: Marks
) -> Marks:
    """Fill in the marks of the last call; return which texts it had."""
    places = hashed_words.places_among(digests, earlier.digests)
    begins = hashed_words.bounds_of(earlier.lengths)
    have_shared[places >= 0] = earlier.lengths[places[places >= 0]] > 0
    texts = np.flatnonzero(have_shared)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[start : start + TEXTS_AT_ONCE]
        lengths = earlier.lengths[places[block]]
        theirs = earlier.marks[hashed_words.members(begins[places[block]], lengths)]
        are_shared[hashed_words.members(bounds[block], lengths)] = theirs
    return places >= 0


def _leave(
    kept: KeptArrays, digests: Hashes, shared: SharedWords, counted: Hashes, common: _Common
) -> None:
    """Leave what the next call starts from."""
    sizes = np.diff(shared.bounds)
    kept.write("shared-texts", digests.ravel())
    kept.write("shared-lengths", np.where(shared.have_shared, sizes, 0))
    kept.write("shared-counted", counted.ravel())
    kept.write("shared-runs", common.runs)
    kept.write("shared-counts", common.counts)
    kept.write("shared-marks", np.zeros(0, np.bool_))
    texts = np.flatnonzero(shared.have_shared)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[start : start + TEXTS_AT_ONCE]
        places = hashed_words.members(shared.bounds[block], sizes[block])
        kept.append("shared-marks", shared.are_shared[places])


def _common(texts: WordColumn, pool: Executor) -> _Common:
    """Count the runs exactly, over different texts."""
    counts = _Counts(min(TABLE_BITS, int(texts.sizes.sum()).bit_length() + SPARE_BITS))
    waiting: list[Hashes] = []
    for number, runs in enumerate(in_order(pool, _all_runs, texts.chunks()), 1):
        waiting.append(runs)
        if number % CHUNKS_AT_ONCE == 0:
            counts.add(np.concatenate(waiting))
            waiting.clear()
    counts.add(np.concatenate([np.zeros(0, np.uint64), *waiting]))
    tally = _Tally()
    distinct = partial(_distinct, counts=counts)
    for hashes in in_order(pool, distinct, texts.chunks()):
        tally.add(hashes)
    return _Common(*tally.many())


def _distinct(texts: WordColumn, counts: _Counts) -> Hashes:
    """Return the distinct, possibly shared runs of each text of a chunk."""
    runs = shingles.shingle(texts.words(), RUN, whole=False)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(runs.bounds))
    many = counts.many(runs.hashes)
    ordered = np.sort((owners[many] << np.uint64(HASH_BITS)) | runs.hashes[many])
    return ordered[_starts(ordered)] & np.uint64((1 << HASH_BITS) - 1)


class _Marked(NamedTuple):
    """The sizes of a chunk's texts, and the marks of their shared words."""

    sizes: Positions
    marks: Marks


def _mark(texts: WordColumn, common: _Common) -> _Marked:
    """Mark the shared words of each text of a chunk."""
    words = texts.words()
    runs = shingles.shingle(words, RUN, whole=False)
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
    return _Marked(texts.sizes, covered & np.repeat(is_cut, np.diff(words.bounds)))


def _highest(counts: Positions, owners: Positions) -> Positions:
    """Return the highest count among the runs of the same text that each overlaps."""
    highest = counts.copy()
    for distance in range(1, RUN):
        same = owners[distance:] == owners[:-distance]
        after, before = highest[:-distance], highest[distance:]
        np.maximum(after, counts[distance:], out=after, where=same)
        np.maximum(before, counts[:-distance], out=before, where=same)
    return highest
