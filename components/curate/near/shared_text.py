"""Separate a text's own words from text shared by many: templates, documents."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from components.curate.near import changed_runs, hashed_words, word_runs
from components.curate.near.hashed_words import (
    Bytes,
    Hashes,
    Marks,
    Positions,
    SpilledWords,
    TextColumn,
    WordColumn,
    Words,
    in_order,
)
from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.kept_words import KeptWords
from components.curate.near.shingles import HashTable, count_marks
from components.curate.near.word_runs import RUN, CommonRuns

STEADY = 0.5

LEAST = 0.1
"""Shared text below this share of a text's words is kept: it makes neither a near-duplicate nor an
overlap, and common phrases are in many texts."""

DOCUMENT = 2 * RUN
"""Words outside of its template from which a system prompt has a document in it; a name, a day and
a time are fewer."""

THREADS = 2

_FIRST_BIT = np.uint8(1 << 7)


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
    are_whole = (uses == WHOLE) | (~shared.have_shared[texts] & (uses == OWN))
    if are_whole.all():
        return words
    marks = shared.are_shared[hashed_words.span(shared.bounds[texts], chosen.sizes)]
    are_used = marks == np.repeat(uses == SHARED, chosen.sizes)
    if are_whole.any():
        are_used |= np.repeat(are_whole, chosen.sizes)
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


def document_words(words: KeptWords, numbers: Positions, scratch: Path | None = None) -> WordColumn:
    """Return the words of system prompts that are of no template: the documents in them.

    The template of a prompt are its runs that at least half as many different prompts share as
    share the most common one: a document may be in many prompts, before each of its questions. A
    prompt with fewer than ``DOCUMENT`` other words, such as a name and a time, has none.
    """
    prompts, written = words.column.at(numbers), SpilledWords(scratch)
    with ThreadPoolExecutor(THREADS) as pool:
        common = word_runs.count_runs(prompts, words.runs.chunks(numbers), pool)
        cut = partial(_documents, common=common, table=HashTable(common.runs))
        for part in in_order(pool, cut, prompts.chunks()):
            written.add(part)
    return written.column()


def _documents(prompts: WordColumn, common: CommonRuns, table: HashTable) -> Words:
    words = prompts.words()
    counts = _run_counts(words, common, table)
    owners = np.repeat(np.arange(len(prompts)), prompts.sizes)
    highest = np.zeros(len(prompts), np.int64)
    np.maximum.at(highest, owners, counts[: len(owners)])
    kept = np.flatnonzero(
        (counts[: len(owners)] > 0) & (counts[: len(owners)] >= STEADY * highest[owners])
    )
    are_own = ~_covered(kept, len(owners))
    are_own &= np.repeat(count_marks(are_own, words.bounds) >= DOCUMENT, prompts.sizes)
    bounds = np.concatenate([[0], np.cumsum(are_own)])[words.bounds]
    return Words(words.hashes[are_own], bounds)


class _Earlier(NamedTuple):
    """What the last call left: its texts, those of which it counted the runs, and common runs.

    Text i had the next ``sizes[i]`` words, of which ``have_shared[i]`` if any was shared; ``marks``
    has a bit for each word.
    """

    digests: Hashes
    sizes: Positions
    have_shared: Marks
    marks: Bytes
    counted: Hashes
    common: CommonRuns

    @classmethod
    def read(cls, kept: KeptArrays) -> Self:
        return cls(
            kept.read("shared-texts", np.uint64).reshape(-1, 2),
            kept.read("shared-sizes", np.int64),
            kept.read("shared-have", np.bool_),
            kept.read("shared-marks", np.uint8),
            kept.read("shared-counted", np.uint64).reshape(-1, 2),
            CommonRuns(kept.read("shared-runs", np.uint64), kept.read("shared-counts", np.int64)),
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
        changes = changed_runs.find_changes(
            words, numbers, counted, earlier.counted, earlier.common, pool
        )
        if changes is None:
            bits = words.runs.chunks(numbers[counted])
            common = word_runs.count_runs(texts.at(counted), bits, pool)
            stale = np.arange(len(texts))
        else:
            common = changes.common
            are_known = _take_over(earlier, digests, bounds, are_shared, have_shared)
            stale = np.flatnonzero(~are_known | changes.touched)
        mark = partial(_mark, common=common, table=HashTable(common.runs))
        start = 0
        for part in in_order(pool, mark, texts.at(stale).chunks()):
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
    kept[order[word_runs.starts_of(of_name[order])]] = True
    return np.flatnonzero(kept)


def _take_over(
    earlier: _Earlier, digests: Hashes, bounds: Positions, are_shared: Marks, have_shared: Marks
) -> Marks:
    """Fill in the marks of the last call; return which texts it had."""
    places = hashed_words.places_among(digests, earlier.digests)
    have_shared[places >= 0] = earlier.have_shared[places[places >= 0]]
    texts = np.flatnonzero(have_shared)
    begins, sizes = hashed_words.bounds_of(earlier.sizes), earlier.sizes[places[texts]]
    for part in hashed_words.slices(hashed_words.bounds_of(sizes), hashed_words.CHUNK_WORDS):
        theirs = hashed_words.span(begins[places[texts[part]]], sizes[part])
        are_shared[hashed_words.span(bounds[texts[part]], sizes[part])] = _bits(
            earlier.marks, theirs
        )
    return places >= 0


def _bits(packed: Bytes, places: slice | Positions) -> Marks:
    """Return the bits at some places, as ``packbits`` packs them."""
    if isinstance(places, slice):
        first = places.start // 8
        bits = np.unpackbits(packed[first : places.stop // 8 + 1])
        return bits[places.start - 8 * first : places.stop - 8 * first].astype(np.bool_)
    return (packed[places // 8] << (places % 8).astype(np.uint8)) >= _FIRST_BIT


def _leave(
    kept: KeptArrays, digests: Hashes, shared: SharedWords, counted: Hashes, common: CommonRuns
) -> None:
    """Leave what the next call starts from."""
    kept.write("shared-texts", digests.ravel())
    kept.write("shared-sizes", np.diff(shared.bounds))
    kept.write("shared-have", shared.have_shared)
    kept.write("shared-marks", np.packbits(shared.are_shared))
    kept.write("shared-counted", counted.ravel())
    kept.write("shared-runs", common.runs)
    kept.write("shared-counts", common.counts)


class _Marked(NamedTuple):
    """The sizes of a chunk's texts, and the marks of their shared words."""

    sizes: Positions
    marks: Marks


def _mark(texts: WordColumn, common: CommonRuns, table: HashTable) -> _Marked:
    """Mark the shared words of each text of a chunk; ``table`` has the common runs."""
    words = texts.words()
    counts = _run_counts(words, common, table)
    kept = np.flatnonzero((counts > 0) & (counts >= STEADY * _highest(counts)))
    covered = _covered(kept, len(words.hashes))
    shared = count_marks(covered, words.bounds)
    is_cut = (shared > 0) & (shared >= LEAST * np.diff(words.bounds))
    return _Marked(texts.sizes, covered & np.repeat(is_cut, np.diff(words.bounds)))


def _run_counts(words: Words, common: CommonRuns, table: HashTable) -> Positions:
    """Return the number of texts that share the run from each word on, 0 if it isn't common.

    ``RUN`` zeros follow.
    """
    runs = word_runs.runs_of(words)
    met, at = table.find(runs.hashes)
    counts = np.zeros(len(words.hashes) + RUN, np.int64)
    counts[hashed_words.members(words.bounds[:-1], np.diff(runs.bounds))[met]] = common.counts[at]
    return counts


def _covered(firsts: Positions, length: int) -> Marks:
    """Mark so many words where they are in runs with such first words."""
    steps = np.zeros(length + 1, np.int64)
    steps[firsts] += 1
    steps[firsts + RUN] -= 1
    return np.cumsum(steps)[:-1] > 0


def _highest(counts: Positions) -> Positions:
    """Return the highest count among the runs that each overlaps, all of the same text.

    A text's last words begin no run, so that runs of two texts are farther apart.
    """
    highest = counts.copy()
    width = 1
    while width < RUN:  # which is a power of two: of this and those after it
        highest[:-width] = np.maximum(highest[:-width], highest[width:])
        width *= 2
    highest[RUN - 1 :] = np.maximum(highest[RUN - 1 :], highest[: 1 - RUN])
    return highest
