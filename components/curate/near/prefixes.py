"""Pick the few shingles of a text by which every near-duplicate of it can be found.

If the shingles of all texts are put in one order, two sets of Jaccard t or more share one of the
first ``n - ceil(t n) + 1`` of each, two of the first ``n - ceil(t n) + 2``, and so on (the prefix
filter: Chaudhuri, Ganti, Kaushik 2006; Bayardo, Ma, Srikant 2007; Wang, Li, Feng 2012). That holds
for any order, so no pair is missed. The order here puts shingles first that few texts have: what
many have in common, such as a template, makes no candidates.
"""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.curate.near import shingles
from components.curate.near.shingles import HASH_BITS, Hashes, Positions, Texts

COMMON = 6
"""Keys that near-duplicates share at least: one key, many have in common by chance."""

SAMPLED = 4
"""It is on every so-manieth text that shingles are counted."""

TABLE_BITS = 24
CLASS_BITS = 4
TEXT_BITS = 64 - CLASS_BITS - HASH_BITS
"""What is left of 64 bits for the text's place in its chunk."""

_WORD_BYTES = 4
_MARGIN = 1.7
_MAGNITUDES = np.array([min(count.bit_length(), 15) for count in range(1 << 16)], np.uint8)
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

    def sizes(self, counts: Positions) -> tuple[Positions, Positions]:
        """Give for texts of so many shingles the size of the prefix, and what it has to share.

        With a near-duplicate's it shares ``COMMON``, or all that they must where that is less.
        """
        needed = np.ceil(self.threshold * counts - _SLACK).astype(np.int64)
        shared = np.minimum(needed, COMMON)
        return counts - needed + shared, shared


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of a chunk's texts: ``keys[i]`` is of the text ``owners[i]``.

    ``shared`` has for each text how many keys it shares with a near-duplicate at least.
    """

    keys: Hashes
    owners: Positions
    shared: Positions


def order(texts: Texts, threshold: float, pool: Executor) -> Order:
    """Count on the texts of a sample which shingles are common.

    Counts are of buckets of hashes and wrap around at 2^16: a wrong one makes more candidates,
    never fewer pairs.
    """
    content = int(texts.offsets[-1] - texts.offsets[0])
    bits = min(TABLE_BITS, (content // _WORD_BYTES + 1).bit_length())
    shift = np.uint64(HASH_BITS - bits)
    counts = np.zeros(1 << bits, np.uint16)
    some = [np.zeros(0, np.uint64)]
    for found in pool.map(shingles.shingle, texts.chunks()):
        np.add.at(counts, (found.hashes >> shift).astype(np.int64), np.uint16(1))
        some.append(found.hashes[::16])
    rough = Order(threshold, _MAGNITUDES[counts], shift, np.uint64(0))
    keys = rough.keys(np.concatenate(some))
    place = int(min(1.0, (1 - threshold) * _MARGIN) * (len(keys) - 1))
    limit = np.partition(keys, place)[place] if len(keys) else np.uint64(0)
    return Order(threshold, rough.classes, shift, limit)


def prefixes(texts: Texts, order: Order) -> Prefixes:
    """Give the prefix of every text of a chunk.

    It may be some shingles longer than needed where a text repeats shingles, as the repetitions are
    counted.
    """
    found = shingles.shingle(texts)
    keys = order.keys(found.hashes)
    sizes = np.diff(found.bounds)
    wanted, shared = order.sizes(sizes)
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
    return Prefixes(*picked, shared)


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
