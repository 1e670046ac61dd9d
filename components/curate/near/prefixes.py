"""Pick the few shingles of a text by which every near-duplicate of it can be found.

If the shingles of all texts are put in one order, two sets of Jaccard t or more share one of the
first ``n - ceil(t n) + 1`` of each (the prefix filter: Chaudhuri, Ganti, Kaushik 2006; Bayardo, Ma,
Srikant 2007). That holds for any order, so no pair is missed. The order here puts shingles first
that few texts have: what all texts have in common, such as a template, makes no candidates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.curate.near import shingles
from components.curate.near.shingles import HASH_BITS, Hashes, Positions, Texts

TABLE_BITS = 20
CLASS_BITS = 4
TEXT_BITS = 64 - CLASS_BITS - HASH_BITS
"""What is left of 64 bits for the text's place in its chunk."""

_MARGIN = 1.4
_MAGNITUDES = np.array([count.bit_length() for count in range(1 << 15)], np.uint8)
_SLACK = 1e-9  # 0.8 * n is a little above the whole number for some n


@dataclass(frozen=True, slots=True)
class Order:
    """The order of all shingles: by ``classes`` (how common, by the hash's first bits), then hash.

    Those below ``limit`` are expected to hold the prefix of a text; if they don't, it is sorted
    whole.
    """

    threshold: float
    classes: npt.NDArray[np.uint8]
    shift: np.uint64
    limit: np.uint64

    def keys(self, hashes: Hashes) -> Hashes:
        """Give each shingle's place in the order, in ``CLASS_BITS + HASH_BITS`` bits."""
        return (
            self.classes[hashes >> self.shift].astype(np.uint64) << np.uint64(HASH_BITS)
        ) | hashes

    def prefix_sizes(self, sizes: Positions) -> Positions:
        """Give how many shingles find every near-duplicate of texts of that many shingles."""
        needed = np.ceil(self.threshold * sizes - _SLACK).astype(np.int64)
        return np.where(sizes > 0, sizes - needed + 1, 0)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of a chunk's texts: ``keys[i]`` is of the text ``owners[i]`` of ``count``."""

    keys: Hashes
    owners: Positions
    count: int


def order(texts: Texts, threshold: float) -> Order:
    """Estimate from some of the texts which shingles are common."""
    found = [shingles.shingle(chunk).hashes for chunk in texts.chunks()]
    hashes = np.concatenate([*found, np.zeros(0, np.uint64)])
    shift = np.uint64(HASH_BITS - min(TABLE_BITS, len(hashes).bit_length()))
    counts = np.bincount(
        (hashes >> shift).astype(np.int64), minlength=1 << (HASH_BITS - int(shift))
    )
    classes = _MAGNITUDES[np.minimum(counts, len(_MAGNITUDES) - 1)]
    rough = Order(threshold, classes, shift, np.uint64(0))
    share = min(1.0, (1 - threshold) * _MARGIN)
    place = int(share * (len(hashes) - 1))
    limit = np.partition(rough.keys(hashes), place)[place] if len(hashes) else np.uint64(0)
    return Order(threshold, classes, shift, limit)


def prefixes(texts: Texts, order: Order) -> Prefixes:
    """Give the prefix of every text of a chunk.

    It may be some shingles longer than needed where a text repeats shingles, as the repetitions are
    counted.
    """
    found = shingles.shingle(texts)
    keys = order.keys(found.hashes)
    sizes = np.diff(found.bounds)
    wanted = order.prefix_sizes(sizes)
    below = keys < order.limit
    whole = _counts(below, found.bounds) < wanted
    picked = _smallest(keys, below | np.repeat(whole, sizes), sizes, wanted)
    lacking = (np.bincount(picked[1], minlength=len(sizes)) < wanted) & ~whole
    if lacking.any():  # repetitions among those below the limit
        again = _smallest(keys, np.repeat(lacking, sizes), sizes, wanted)
        kept = ~lacking[picked[1]]
        picked = (
            np.concatenate([picked[0][kept], again[0]]),
            np.concatenate([picked[1][kept], again[1]]),
        )
    return Prefixes(*picked, len(texts))


def _smallest(
    keys: Hashes, among: npt.NDArray[np.bool_], sizes: Positions, wanted: Positions
) -> tuple[Hashes, Positions]:
    """Give the first ``wanted`` distinct of the marked keys of each text, with the text."""
    texts = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)[among]
    shift = np.uint64(CLASS_BITS + HASH_BITS)
    ordered = np.sort((texts << shift) | keys[among])
    distinct = ordered[np.diff(ordered, prepend=ordered[:1] - np.uint64(1)) != 0]
    owners = (distinct >> shift).astype(np.int64)
    ranks = np.arange(len(owners)) - np.searchsorted(owners, np.arange(len(sizes)))[owners]
    first = ranks < wanted[owners]
    return distinct[first] & ((np.uint64(1) << shift) - np.uint64(1)), owners[first]


def _counts(marks: npt.NDArray[np.bool_], bounds: Positions) -> Positions:
    """Count the marks of each text."""
    return np.diff(np.concatenate([[0], np.cumsum(marks)])[bounds])
