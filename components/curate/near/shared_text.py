"""Separate a text's own words from text shared by many: templates, documents."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from components.curate.near import hashed_words, word_runs
from components.curate.near.hashed_words import (
    Hashes,
    Marks,
    Positions,
    SpilledWords,
    TextColumn,
    WordColumn,
    Words,
    in_order,
)
from components.curate.near.shingles import HashTable, count_marks
from components.curate.near.text_words import TextWords
from components.curate.near.word_runs import RUN, CommonRuns

STEADY = 0.5

LEAST = 0.1
"""Shared text below this share of a text's words is kept: it makes neither a near-duplicate nor an
overlap, and common phrases are in many texts."""

DOCUMENT = 2 * RUN
"""Words outside of its template from which a system prompt has a document in it; a name, a day and
a time are fewer."""

THREADS = 2


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
    words, places = TextWords.of_column(texts)
    nobody = RightAnswers(np.zeros(0, np.int64), np.zeros(0, np.int64))
    shared = find_shared(words, nobody)
    own = SpilledWords(None)
    own.add(used_words(words.column, shared, places, np.full(len(places), OWN, np.uint8)))
    return own.column()


def document_words(prompts: WordColumn, scratch: Path | None = None) -> WordColumn:
    """Return the words of different prompts that are of no template: the documents in them.

    The template of a prompt are its runs that at least half as many different prompts share as
    share the most common one: a document may be in many prompts, before each of its questions. A
    prompt with fewer than ``DOCUMENT`` other words, such as a name and a time, has none.
    """
    written = SpilledWords(scratch)
    with ThreadPoolExecutor(THREADS) as pool:
        common = word_runs.count_runs(prompts, pool)
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


def find_shared(
    words: TextWords, answers: RightAnswers, scratch: Path | None = None
) -> SharedWords:
    """Find the shared words of different texts; their order does not matter.

    The marks are in a file of the folder ``scratch``, or in memory if it is ``None``.
    """
    bounds = hashed_words.bounds_of(words.column.sizes)
    are_shared = hashed_words.spilled_zeros(int(bounds[-1]), np.bool_, scratch)
    have_shared = [np.zeros(0, np.bool_)]
    counted = _different(words.names, words.digests, answers)
    with ThreadPoolExecutor(THREADS) as pool:
        common = word_runs.count_runs(words.column.at(counted), pool)
        mark = partial(_mark, common=common, table=HashTable(common.runs))
        start = 0
        for marks, have_some in in_order(pool, mark, words.column.chunks()):
            are_shared[start : start + len(marks)] = marks
            have_shared.append(have_some)
            start += len(marks)
    return SharedWords(are_shared, bounds, np.concatenate(have_shared))


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


def _mark(texts: WordColumn, common: CommonRuns, table: HashTable) -> tuple[Marks, Marks]:
    """Mark the shared words of a chunk's texts, and the texts that have some.

    ``table`` has the common runs.
    """
    words = texts.words()
    counts = _run_counts(words, common, table)
    kept = np.flatnonzero((counts > 0) & (counts >= STEADY * _highest(counts)))
    covered = _covered(kept, len(words.hashes))
    shared = count_marks(covered, words.bounds)
    is_cut = (shared > 0) & (shared >= LEAST * np.diff(words.bounds))
    return covered & np.repeat(is_cut, np.diff(words.bounds)), is_cut


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
