"""Find the texts that say what another one says in other words: the cosine of TF-IDF weights.

A rephrased question keeps its rare words: names, numbers, things. Weights are as in Salton and
Buckley 1988: ``(1 + ln count) * (1 + ln((1 + N) / (1 + df)))``, N and df of the references.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.curate.near import shingles
from components.curate.near.shingles import HASH_BITS, Column, Hashes, Texts
from components.curate.overlap import ngrams
from components.curate.overlap.ngrams import Nearest


@dataclass(frozen=True, slots=True)
class _Weights:
    """The weight of each word of the references; a word they don't have weighs ``unknown``."""

    words: Hashes
    weights: npt.NDArray[np.float64]
    unknown: float


def nearest(texts: Column, references: Column, pool: Executor) -> Nearest:
    """Give for each text the reference with the highest cosine, and the cosine."""
    counted = [_counted(chunk) for chunk in Texts.of(references).chunks()]
    weights = _weights(counted, len(references))
    theirs = sparse.vstack([_rows(one, weights) for one in counted], "csr").T.tocsr()
    find = partial(_nearest, weights=weights, theirs=theirs)
    found = list(pool.map(find, Texts.of(texts).chunks()))
    return Nearest(
        np.concatenate([np.zeros(0, np.int64), *(one.references for one in found)]),
        np.concatenate([np.zeros(0), *(one.shares for one in found)]),
    )


def _nearest(texts: Texts, weights: _Weights, theirs: sparse.csr_array) -> Nearest:
    cosines = sparse.coo_array(_rows(_counted(texts), weights).dot(theirs))
    ours, references = cosines.row.astype(np.int64), cosines.col.astype(np.int64)
    return ngrams.best(ours, references, np.array(cosines.data, np.float64), len(texts))


@dataclass(frozen=True, slots=True)
class _Counted:
    """How often each text has each of its words; those of text i are ``sizes[i]`` in a row."""

    words: Hashes
    times: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


def _counted(texts: Texts) -> _Counted:
    found = shingles.shingle(texts, 1)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(found.bounds))
    keys, times = np.unique((owners << np.uint64(HASH_BITS)) | found.hashes, return_counts=True)
    mask = np.uint64((1 << HASH_BITS) - 1)
    sizes = np.bincount((keys >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(texts))
    return _Counted(keys & mask, times, sizes)


def _weights(counted: list[_Counted], count: int) -> _Weights:
    every = np.concatenate([np.zeros(0, np.uint64), *(one.words for one in counted)])
    words, having = np.unique(every, return_counts=True)
    return _Weights(words, 1 + np.log((1 + count) / (1 + having)), 1 + np.log(1 + count))


def _rows(counted: _Counted, weights: _Weights) -> sparse.csr_array:
    """Write each text as a row of length 1, of which the words that no reference has are cut."""
    at = np.minimum(np.searchsorted(weights.words, counted.words), max(len(weights.words) - 1, 0))
    known = weights.words[at] == counted.words
    values = (1 + np.log(counted.times)) * np.where(known, weights.weights[at], weights.unknown)
    owners = np.repeat(np.arange(len(counted.sizes)), counted.sizes)
    lengths = np.sqrt(np.bincount(owners, values**2, minlength=len(counted.sizes)))
    shape = (len(counted.sizes), len(weights.words))
    values = (values / lengths[owners])[known]
    return sparse.csr_array((values, (owners[known], at[known])), shape)
