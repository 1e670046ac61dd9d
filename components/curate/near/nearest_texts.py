"""Find each text's nearest reference by common n-grams."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.curate.near import hashed_words, shingles
from components.curate.near.hashed_words import (
    DigestedWords,
    Hashes,
    Positions,
    WordColumn,
    Words,
    in_order,
    sorted_set,
)
from components.curate.near.shingles import HashTable

FEWEST_SHARED = 3
"""N-grams in common that are an overlap, unless the shorter text has fewer: questions of a dozen
words that are made to one pattern share one n-gram of the five or so that they have."""

WAITING_PAIRS = 1 << 20

MET_AT_ONCE = 1 << 20
"""Texts that some texts have a run in common with, counted by run."""

PAIR_BITS, SPARE_BITS = 24, 3
"""Of a table of pairs of words, in which most pairs of other texts are not."""

MAX_PAIRED = 1 << 22
"""Words of texts; the table of more would have most pairs of any text."""

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each text the reference with the largest overlap (-1 if none), and its share."""

    references: Positions
    shares: Shares


class Overlaps(NamedTuple):
    """Pairs of a text and a reference with something in common, and how much each shares."""

    texts: Positions
    references: Positions
    shares: Shares


_NO_OVERLAPS = Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def nearest_by_ngrams(
    texts: WordColumn, references: DigestedWords, words: int, pool: Executor
) -> Nearest:
    """Return each text's nearest reference by the share of common n-grams of the shorter text.

    An n-gram has ``words`` words. Of equally near references it is the one with the smallest
    digest; references have different words.
    """
    ranks = np.empty(len(references), np.int64)
    ranks[np.lexsort((references.digests[:, 1], references.digests[:, 0]))] = np.arange(len(ranks))
    overlaps = _overlaps(texts, references.words, words, ranks, pool)
    return best_of(overlaps, len(texts), ranks)


def _overlaps(
    texts: WordColumn, references: WordColumn, words: int, ranks: Positions, pool: Executor
) -> Overlaps:
    """Return each text's best pair; the side of fewer words is indexed, the other one looked up."""
    if not len(texts) or not len(references):
        return _NO_OVERLAPS
    is_swapped = bool(texts.sizes.sum() < references.sizes.sum())
    indexed, others = (texts, references) if is_swapped else (references, texts)
    index = _index(indexed, words, pool)
    find = partial(_best_met, index=index, words=words, ranks=ranks, is_swapped=is_swapped)
    parts, waiting = [_NO_OVERLAPS], 0
    for part in in_order(pool, find, _placed(others)):
        parts.append(part)
        waiting += len(part.texts)
        if waiting > max(WAITING_PAIRS, 2 * len(parts[0].texts)):
            parts, waiting = [_best(_joined(parts), ranks)], 0
    return _best(_joined(parts), ranks)


def _placed(texts: WordColumn) -> Iterator[tuple[int, WordColumn]]:
    """Yield chunks, and the place of the first text of each."""
    before = 0
    for chunk in texts.chunks():
        yield before, chunk
        before += len(chunk)


def _joined(parts: Sequence[Overlaps]) -> Overlaps:
    return Overlaps(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _best(pairs: Overlaps, ranks: Positions) -> Overlaps:
    """Keep the highest share of each text; ties go to the reference of the first rank."""
    order = np.lexsort((ranks[pairs.references], -pairs.shares, pairs.texts))
    best = order[np.unique(pairs.texts[order], return_index=True)[1]]
    return Overlaps(pairs.texts[best], pairs.references[best], pairs.shares[best])


@dataclass(frozen=True, slots=True)
class _Index:
    """The runs of some texts, of which there are ``size``.

    ``texts`` has a row per run, a column per text, and 1 where the text has the run; ``counts`` is
    the number of runs per text. ``pairs`` are ``None`` if the texts are long together.
    """

    size: int
    runs: HashTable
    texts: sparse.csr_array
    counts: Positions
    pairs: "_WordPairs | None"


class _WordPairs:
    """The pairs of neighbouring words of some texts, and few others: a table of hashes' bits."""

    def __init__(self, words: Hashes) -> None:
        bits = min(PAIR_BITS, len(words).bit_length() + SPARE_BITS)
        self._shift = np.uint64(64 - bits)
        self._seen = np.zeros(1 << bits, np.bool_)
        self._seen[self._places(words)] = True

    def _places(self, words: Hashes) -> Hashes:
        pairs = words[:-1] * hashed_words.STEP
        pairs += words[1:]
        pairs >>= self._shift
        return pairs

    def texts_with(self, texts: Words, count: int) -> Positions:
        """Return the texts that have so many of these pairs in a row, and few others."""
        at = np.flatnonzero(self._seen.take(self._places(texts.hashes)))
        lasts = at[count - 1 :]
        starts = lasts[lasts - at[: len(lasts)] == count - 1] - (count - 1)
        return sorted_set(np.searchsorted(texts.bounds, starts, "right") - 1)


def _index(texts: WordColumn, words: int, pool: Executor) -> _Index:
    cut = partial(_distinct, width=words)
    chunks = list(pool.map(cut, texts.chunks()))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in chunks)])
    sizes = np.concatenate([np.zeros(0, np.int64), *(sizes for _, sizes in chunks)])
    owners = np.repeat(np.arange(len(texts)), sizes)
    order = np.argsort(hashes, kind="stable")
    runs, starts = np.unique(hashes[order], return_index=True)
    rows = (np.ones(len(order), np.int32), owners[order], np.append(starts, len(order)))
    having = sparse.csr_array(rows, (len(runs), len(texts)))
    is_paired = words > 1 and texts.sizes.sum() <= MAX_PAIRED
    pairs = _WordPairs(texts.words().hashes) if is_paired else None
    return _Index(len(runs), HashTable(runs), having, sizes, pairs)


def _distinct(texts: WordColumn, width: int) -> tuple[Hashes, Positions]:
    return shingles.distinct(texts.words(), width, whole=False)


def _best_met(
    placed: tuple[int, WordColumn], index: _Index, words: int, ranks: Positions, *, is_swapped: bool
) -> Overlaps:
    """Return the best pairs of a chunk of which the other texts are indexed.

    With ``is_swapped``, the chunk is of references.
    """
    before, chunk = placed
    places = before + np.arange(len(chunk))
    if index.pairs is not None:
        # A run takes several times as long to hash as its pairs of words.
        may_meet = index.pairs.texts_with(chunk.words(), words - 1)
        places, chunk = places[may_meet], chunk.at(may_meet)
    runs = shingles.shingle(chunk.words(), words, whole=False)
    met, at = index.runs.find(runs.hashes)
    owners = np.searchsorted(runs.bounds, met, "right") - 1
    ours, at = np.divmod(sorted_set(owners * (index.size + 1) + at), index.size + 1)
    having = sparse.csr_array((np.ones(len(at), np.int32), (ours, at)), (len(chunk), index.size))
    some = sorted_set(ours)
    sizes = np.zeros(len(chunk), np.int64)
    sizes[some] = _distinct(chunk.at(some), words)[1]
    met_texts = np.bincount(ours, np.diff(index.texts.indptr)[at], minlength=len(chunk))
    best = [_NO_OVERLAPS]
    for block in np.split(
        some, np.flatnonzero(np.diff(np.cumsum(met_texts[some]) // MET_AT_ONCE)) + 1
    ):
        # A product counts without a list of the common runs of each pair, of which there are more.
        common = sparse.coo_array(having[block] @ index.texts)
        mine, theirs = block[common.row], common.col.astype(np.int64)
        shared = np.asarray(common.data, np.float64)
        shorter = np.minimum(sizes[mine], index.counts[theirs])
        are_many = shared >= np.minimum(FEWEST_SHARED, shorter)
        placed_texts, theirs = places[mine][are_many], theirs[are_many]
        pairs = (theirs, placed_texts) if is_swapped else (placed_texts, theirs)
        best.append(_best(Overlaps(*pairs, (shared / shorter)[are_many]), ranks))
    return _best(_joined(best), ranks)


def best_of(pairs: Overlaps, count: int, ranks: Positions) -> Nearest:
    """Return the nearest reference of each of ``count`` texts; ties go to the first rank."""
    best = _best(pairs, ranks)
    nearest = Nearest(np.full(count, -1), np.zeros(count))
    nearest.references[best.texts] = best.references
    nearest.shares[best.texts] = best.shares
    return nearest
