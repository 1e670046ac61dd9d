"""Find the texts that have much of another one in them, word for word.

The overlap of two texts is the share of their distinct runs of n words that both have, of the
smaller one's: 1 if one is a part of the other. A text of fewer words has no overlap.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from components.curate.near import shingles
from components.curate.near.shingles import HASH_BITS, Column, Hashes, Positions, Texts

_TABLE_BITS = 26


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each text the reference that it overlaps most with (-1 if none), and how much."""

    references: Positions
    shares: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Index:
    """The runs of the references: those of run i belong to ``owners[bounds[i]:bounds[i + 1]]``.

    ``seen`` marks the first bits of the runs; ``counts`` are each reference's runs.
    """

    runs: Hashes
    bounds: Positions
    owners: Positions
    counts: Positions
    seen: npt.NDArray[np.bool_]
    shift: np.uint64


def nearest(texts: Column, references: Column, words: int, pool: Executor) -> Nearest:
    """Compare each text with every reference.

    Args:
        texts: What is to be kept free.
        references: What it is to be free of.
        words: Words of a run.
        pool: Where chunks of texts are compared beside each other.
    """
    index = _index(references, words, pool)
    found = list(pool.map(partial(_nearest, index=index, words=words), Texts.of(texts).chunks()))
    return Nearest(
        np.concatenate([np.zeros(0, np.int64), *(one.references for one in found)]),
        np.concatenate([np.zeros(0), *(one.shares for one in found)]),
    )


def _index(references: Column, words: int, pool: Executor) -> _Index:
    cut = partial(shingles.distinct, width=words, whole=False)
    found = list(pool.map(cut, Texts.of(references).chunks()))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(one for one, _ in found)])
    sizes = np.concatenate([np.zeros(0, np.int64), *(one for _, one in found)])
    owners = np.repeat(np.arange(len(references)), sizes)
    order = np.argsort(hashes, kind="stable")
    runs, starts = np.unique(hashes[order], return_index=True)
    shift = np.uint64(HASH_BITS - min(_TABLE_BITS, 4 + len(runs).bit_length()))
    seen = np.zeros(1 << (HASH_BITS - int(shift)), np.bool_)
    seen[(runs >> shift).astype(np.int64)] = True
    bounds = np.append(starts, len(order))
    return _Index(runs, bounds, owners[order], sizes, seen, shift)


def _nearest(texts: Texts, index: _Index, words: int) -> Nearest:
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
    return best(ours, theirs, shares, len(texts))


def best(
    texts: Positions, references: Positions, shares: npt.NDArray[np.float64], count: int
) -> Nearest:
    """Keep the highest share of each text, of equal ones that with the first reference."""
    order = np.lexsort((references, -shares, texts))
    named, first = np.unique(texts[order], return_index=True)
    nearest = Nearest(np.full(count, -1), np.zeros(count))
    nearest.references[named] = references[order][first]
    nearest.shares[named] = shares[order][first]
    return nearest
