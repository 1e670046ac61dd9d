"""The most similar text by shared n-grams (word for word), or by TF-IDF cosine (paraphrases)."""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.curate.near import shingles
from components.curate.near.shingles import HASH_BITS, Hashes, Positions, TextColumn, Texts

_TABLE_BITS = 26


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each text the reference with the largest overlap (-1 if none), and its share."""

    references: Positions
    shares: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Index:
    """The references' runs; run i is in the references ``owners[bounds[i]:bounds[i + 1]]``.

    ``seen`` marks the first bits of the runs; ``counts`` is the number of runs per reference.
    """

    runs: Hashes
    bounds: Positions
    owners: Positions
    counts: Positions
    seen: npt.NDArray[np.bool_]
    shift: np.uint64


def nearest_by_ngrams(
    texts: TextColumn, references: TextColumn, words: int, pool: Executor
) -> Nearest:
    """Return each text's nearest reference by the share of common n-grams of the shorter text.

    Args:
        texts: The texts to check.
        references: The texts to compare them with.
        words: Words of an n-gram.
        pool: Compares chunks of texts in parallel.
    """
    index = _index(references, words, pool)
    chunks = list(
        pool.map(partial(_nearest_in_index, index=index, words=words), Texts.of(texts).chunks())
    )
    return Nearest(
        np.concatenate([np.zeros(0, np.int64), *(chunk.references for chunk in chunks)]),
        np.concatenate([np.zeros(0), *(chunk.shares for chunk in chunks)]),
    )


def _index(references: TextColumn, words: int, pool: Executor) -> _Index:
    cut = partial(shingles.distinct, width=words, whole=False)
    chunks = list(pool.map(cut, Texts.of(references).chunks()))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in chunks)])
    sizes = np.concatenate([np.zeros(0, np.int64), *(sizes for _, sizes in chunks)])
    owners = np.repeat(np.arange(len(references)), sizes)
    order = np.argsort(hashes, kind="stable")
    runs, starts = np.unique(hashes[order], return_index=True)
    shift = np.uint64(HASH_BITS - min(_TABLE_BITS, 4 + len(runs).bit_length()))
    seen = np.zeros(1 << (HASH_BITS - int(shift)), np.bool_)
    seen[(runs >> shift).astype(np.int64)] = True
    bounds = np.append(starts, len(order))
    return _Index(runs, bounds, owners[order], sizes, seen, shift)


def _nearest_in_index(texts: Texts, index: _Index, words: int) -> Nearest:
    hashes, sizes = shingles.distinct(texts, words, whole=False)
    owners = np.repeat(np.arange(len(texts)), sizes)
    maybe = np.flatnonzero(index.seen[(hashes >> index.shift).astype(np.int64)])
    at = np.searchsorted(index.runs, hashes[maybe])
    at = np.minimum(at, max(len(index.runs) - 1, 0))
    met = index.runs[at] == hashes[maybe] if len(index.runs) else np.zeros(len(at), np.bool_)
    at, owners = at[met], owners[maybe[met]]
    many = index.bounds[at + 1] - index.bounds[at]
    places = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
    theirs = index.owners[places + np.repeat(index.bounds[at], many)]
    pairs, shared = np.unique(
        np.repeat(owners, many) * len(index.counts) + theirs, return_counts=True
    )
    ours, theirs = np.divmod(pairs, max(len(index.counts), 1))
    shares = shared / np.minimum(sizes[ours], index.counts[theirs])
    return keep_best(ours, theirs, shares, len(texts))


def keep_best(
    texts: Positions, references: Positions, shares: npt.NDArray[np.float64], count: int
) -> Nearest:
    """Keep the highest share of each text; ties go to the first reference."""
    order = np.lexsort((references, -shares, texts))
    named, first = np.unique(texts[order], return_index=True)
    nearest = Nearest(np.full(count, -1), np.zeros(count))
    nearest.references[named] = references[order][first]
    nearest.shares[named] = shares[order][first]
    return nearest


@dataclass(frozen=True, slots=True)
class _Weights:
    """The weight of each word of the references; other words weigh ``unknown``."""

    words: Hashes
    weights: npt.NDArray[np.float64]
    unknown: float


def nearest_by_cosine(texts: TextColumn, references: TextColumn, pool: Executor) -> Nearest:
    """Return each text's nearest reference by TF-IDF cosine."""
    counted = [_counted(chunk) for chunk in Texts.of(references).chunks()]
    weights = _weights(counted, len(references))
    theirs = sparse.vstack([_weighted_rows(part, weights) for part in counted], "csr").T.tocsr()
    find = partial(_nearest_by_weights, weights=weights, theirs=theirs)
    chunks = list(pool.map(find, Texts.of(texts).chunks()))
    return Nearest(
        np.concatenate([np.zeros(0, np.int64), *(chunk.references for chunk in chunks)]),
        np.concatenate([np.zeros(0), *(chunk.shares for chunk in chunks)]),
    )


def _nearest_by_weights(texts: Texts, weights: _Weights, theirs: sparse.csr_array) -> Nearest:
    cosines = sparse.coo_array(_weighted_rows(_counted(texts), weights).dot(theirs))
    ours, references = cosines.row.astype(np.int64), cosines.col.astype(np.int64)
    return keep_best(ours, references, np.array(cosines.data, np.float64), len(texts))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Word counts per text; text i has the next ``sizes[i]`` entries."""

    words: Hashes
    times: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


def _counted(texts: Texts) -> _Counted:
    words = shingles.shingle(texts, 1)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(words.bounds))
    keys, times = np.unique((owners << np.uint64(HASH_BITS)) | words.hashes, return_counts=True)
    mask = np.uint64((1 << HASH_BITS) - 1)
    sizes = np.bincount((keys >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(texts))
    return _Counted(keys & mask, times, sizes)


def _weights(counted: list[_Counted], count: int) -> _Weights:
    every = np.concatenate([np.zeros(0, np.uint64), *(chunk.words for chunk in counted)])
    words, having = np.unique(every, return_counts=True)
    return _Weights(words, 1 + np.log((1 + count) / (1 + having)), 1 + np.log(1 + count))


def _weighted_rows(counted: _Counted, weights: _Weights) -> sparse.csr_array:
    """Return each text as a row of norm 1, then without the words of no reference."""
    at = np.minimum(np.searchsorted(weights.words, counted.words), max(len(weights.words) - 1, 0))
    known = weights.words[at] == counted.words
    values = (1 + np.log(counted.times)) * np.where(known, weights.weights[at], weights.unknown)
    owners = np.repeat(np.arange(len(counted.sizes)), counted.sizes)
    lengths = np.sqrt(np.bincount(owners, values**2, minlength=len(counted.sizes)))
    shape = (len(counted.sizes), len(weights.words))
    values = (values / lengths[owners])[known]
    return sparse.csr_array((values, (owners[known], at[known])), shape)
