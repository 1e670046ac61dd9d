"""Compute the Jaccard of pairs of texts from their whole sets of shingles."""

from concurrent.futures import Executor
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.curate.near import shingles
from components.curate.near.candidates import Pairs
from components.curate.near.shingles import HASH_BITS, Column, Positions, Texts

PAIRS_AT_ONCE = 4096


def jaccards(texts: Column, pairs: Pairs, pool: Executor) -> npt.NDArray[np.float64]:
    """Give each pair's shared shingles over all shingles of the two; 0 where there are none.

    Args:
        texts: All texts.
        pairs: Places among the texts.
        pool: Where blocks of pairs are computed beside each other.
    """
    places, ends = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    left, right = ends[: len(pairs)], ends[len(pairs) :]
    rows = _rows(Texts.of(texts.take(places)), pool)
    sizes = np.diff(rows.indptr)
    blocks = range(0, len(pairs), PAIRS_AT_ONCE)
    found = list(pool.map(partial(_shared, rows, left, right), blocks))
    shared = np.concatenate([np.zeros(0, np.int64), *found])
    return shared / np.maximum(sizes[left] + sizes[right] - shared, 1)


def _shared(rows: sparse.csr_matrix, left: Positions, right: Positions, start: int) -> Positions:
    """Count the shingles that each pair of a block shares."""
    block = slice(start, start + PAIRS_AT_ONCE)
    return rows[left[block]].multiply(rows[right[block]]).getnnz(axis=1)


def _rows(texts: Texts, pool: Executor) -> sparse.csr_matrix:
    """Write each text's set of shingles as a row of ones; a column is a hash."""
    found = list(pool.map(shingles.distinct, texts.chunks()))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(one for one, _ in found)]).view(np.int64)
    sizes = np.concatenate([np.zeros(1, np.int64), *(one for _, one in found)])
    shape = (len(texts), 1 << HASH_BITS)
    return sparse.csr_matrix((np.ones(len(hashes), np.bool_), hashes, np.cumsum(sizes)), shape)
