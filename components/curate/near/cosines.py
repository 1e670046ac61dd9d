"""Find each text's nearest reference by the words that both have: by TF-IDF cosine."""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.curate.near import nearest_texts, shingles
from components.curate.near.hashed_words import Hashes, Positions, WordColumn, in_order
from components.curate.near.nearest_texts import Nearest
from components.curate.near.shingles import HASH_BITS


@dataclass(frozen=True, slots=True)
class _Weights:
    """The weight of each word of the references; other words weigh ``unknown``."""

    words: Hashes
    weights: npt.NDArray[np.float64]
    unknown: float


def nearest_by_cosine(texts: WordColumn, references: WordColumn, pool: Executor) -> Nearest:
    """Return each text's nearest reference by TF-IDF cosine."""
    counted = [_counted(chunk) for chunk in references.chunks()]
    weights = _weights(counted, len(references))
    if not len(weights.words):
        return Nearest(np.full(len(texts), -1), np.zeros(len(texts)))
    theirs = _by_word(counted, weights)
    find = partial(
        _nearest_by_weights, weights=weights, theirs=theirs, ranks=np.arange(len(references))
    )
    parts = [Nearest(np.zeros(0, np.int64), np.zeros(0)), *in_order(pool, find, texts.chunks())]
    return Nearest(
        np.concatenate([part.references for part in parts]),
        np.concatenate([part.shares for part in parts]),
    )


def have_alike(
    references: WordColumn, texts: WordColumn, least: float, pool: Executor
) -> npt.NDArray[np.bool_]:
    """Mark the references to which some text has a TF-IDF cosine of at least ``least``."""
    are_alike = np.zeros(len(references), np.bool_)
    counted = [_counted(chunk) for chunk in references.chunks()]
    weights = _weights(counted, len(references))
    if len(weights.words):
        theirs = _by_word(counted, weights)
        find = partial(_cosines, weights=weights, theirs=theirs)
        for cosines in in_order(pool, find, texts.chunks()):
            are_alike[cosines.col[cosines.data >= least]] = True
    return are_alike


def _cosines(texts: WordColumn, weights: _Weights, theirs: sparse.csr_array) -> sparse.coo_array:
    return sparse.coo_array(_weighted_rows(_counted(texts), weights).dot(theirs))


def _nearest_by_weights(
    texts: WordColumn, weights: _Weights, theirs: sparse.csr_array, ranks: Positions
) -> Nearest:
    cosines = _cosines(texts, weights, theirs)
    ours, references = cosines.row.astype(np.int64), cosines.col.astype(np.int64)
    pairs = nearest_texts.Overlaps(ours, references, np.array(cosines.data, np.float64))
    return nearest_texts.best_of(pairs, len(texts), ranks)


@dataclass(frozen=True, slots=True)
class _Counted:
    """Word counts per text; text i has the next ``sizes[i]`` entries."""

    words: Hashes
    times: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


def _counted(texts: WordColumn) -> _Counted:
    words = shingles.shingle(texts.words(), 1)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(words.bounds))
    keys, times = np.unique((owners << np.uint64(HASH_BITS)) | words.hashes, return_counts=True)
    mask = np.uint64((1 << HASH_BITS) - 1)
    sizes = np.bincount((keys >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(texts))
    return _Counted(keys & mask, times, sizes)


def _by_word(counted: list[_Counted], weights: _Weights) -> sparse.csr_array:
    return sparse.vstack([_weighted_rows(part, weights) for part in counted], "csr").T.tocsr()


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
