"""Choose each text's prefix: its rarest shingles, by which near-duplicates are found."""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from components.curate.near import candidate_pairs
from components.curate.near.candidate_pairs import Groups
from components.curate.near.hashed_words import (
    DigestedWords,
    Hashes,
    Positions,
    WordColumn,
    in_order,
)
from components.curate.near.shingles import (
    HASH_BITS,
    WIDTH,
    Shingles,
    count_marks,
    shingle,
)

COMMON = 6  # minimum keys that near-duplicates share: many texts share a single key by chance

SAMPLED = 8  # shingles are counted on one of so many texts, chosen by their words

TABLE_BITS = 24
CLASS_BITS = 4
TEXT_BITS = 64 - CLASS_BITS - HASH_BITS
"""The remaining bits of 64, for the text's index in its chunk."""

Classes = npt.NDArray[np.uint8]

_MARGIN = 1.7
_MAGNITUDES = np.array([count.bit_length() // 2 for count in range(1 << 16)], np.uint8)
"""By powers of four: by powers of two there were only 3 % fewer pairs to verify."""

_SLACK = 1e-9  # 0.8 * n is a little above the whole number for some n


@dataclass(frozen=True, slots=True)
class ShingleOrder:
    """The order of all shingles: by ``classes`` (how common, by the hash's first bits), then hash.

    A text's prefix is expected among the shingles below ``limit``; else all its shingles are
    sorted.
    """

    threshold: float
    classes: Classes
    shift: np.uint64
    limit: np.uint64

    def keys(self, hashes: Hashes) -> Hashes:
        """Return each shingle's sort key of ``CLASS_BITS + HASH_BITS`` bits."""
        classes = self.classes[hashes >> self.shift].astype(np.uint64)
        return (classes << np.uint64(HASH_BITS)) | hashes

    def of_texts(self, texts: WordColumn) -> tuple[Positions, Positions]:
        """Return ``sizes`` of texts, of which shingles may be repeated."""
        counts = np.where(
            texts.sizes >= WIDTH, texts.sizes - (WIDTH - 1), np.minimum(texts.sizes, 1)
        )
        return self.sizes(counts)

    def sizes(self, counts: Positions) -> tuple[Positions, Positions]:
        """Return the prefix size of texts with ``counts`` shingles, and the minimum shared keys.

        A prefix shares ``COMMON`` keys with a near-duplicate's, or all required shingles if fewer.
        """
        needed = np.ceil(self.threshold * counts - _SLACK).astype(np.int64)
        shared = np.minimum(needed, COMMON)
        return counts - needed + shared, shared


def group_texts(texts: DigestedWords, threshold: float, pool: Executor) -> Groups:
    """Group texts by the keys of their prefixes."""
    order = shingle_order(texts, threshold, pool)
    sizes, shared = order.of_texts(texts.words)
    text_bits = max(TEXT_BITS, len(texts).bit_length())
    entries = np.empty(int(sizes.sum()), np.uint64)  # a text's distinct keys may be fewer
    count = start = 0
    choose = partial(choose_prefixes, order=order)
    for part in in_order(pool, choose, texts.words.chunks()):
        owners = np.arange(start, start + len(part.sizes), dtype=np.uint64)
        keyed = (part.keys << np.uint64(text_bits)) | np.repeat(owners, part.sizes)
        entries[count : count + len(keyed)] = keyed
        count, start = count + len(keyed), start + len(part.sizes)
    return candidate_pairs.group_by_key(entries[:count], text_bits, shared)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of some texts; text i has the next ``sizes[i]`` of the ``keys``."""

    keys: Hashes
    sizes: Positions


def shingle_order(texts: DigestedWords, threshold: float, pool: Executor) -> ShingleOrder:
    """Return the order of shingles by their frequency in a sample of texts.

    Frequencies are counted by hash bucket and wrap around at 2^16: a wrong one makes more
    candidates, never fewer pairs.
    """
    sample = texts.words.at(texts.digests[:, 0] % np.uint64(SAMPLED) == 0)
    bits = min(TABLE_BITS, (int(sample.sizes.sum()) + 1).bit_length())
    shift = np.uint64(HASH_BITS - bits)
    counts = np.zeros(1 << bits, np.uint16)
    some = [np.zeros(0, np.uint64)]
    for shingles in in_order(pool, _shingled, sample.chunks()):
        np.add.at(counts, (shingles.hashes >> shift).astype(np.int64), np.uint16(1))
        some.append(shingles.hashes[::16])
    rough = ShingleOrder(threshold, _MAGNITUDES[counts], shift, np.uint64(0))
    keys = rough.keys(np.concatenate(some))
    place = int(min(1.0, (1 - threshold) * _MARGIN) * (len(keys) - 1))
    limit = np.partition(keys, place)[place] if len(keys) else np.uint64(0)
    return ShingleOrder(threshold, rough.classes, shift, limit)


def _shingled(texts: WordColumn) -> Shingles:
    return shingle(texts.words())


def choose_prefixes(texts: WordColumn, order: ShingleOrder) -> Prefixes:
    """Return the prefix of every text of a chunk.

    It may be some shingles longer than needed where a text repeats shingles, as repetitions are
    counted.
    """
    shingles = _shingled(texts)
    keys = order.keys(shingles.hashes)
    sizes = np.diff(shingles.bounds)
    prefix_sizes, _ = order.sizes(sizes)
    below = keys < order.limit
    whole = count_marks(below, shingles.bounds) < prefix_sizes
    picked = _smallest(keys, below | np.repeat(whole, sizes), sizes, prefix_sizes)
    lacking = (np.bincount(picked[1], minlength=len(sizes)) < prefix_sizes) & ~whole
    if lacking.any():  # repetitions among those below the limit
        again = _smallest(keys, np.repeat(lacking, sizes), sizes, prefix_sizes)
        kept = ~lacking[picked[1]]
        owners = np.concatenate([picked[1][kept], again[1]])
        order_of = np.argsort(owners, kind="stable")
        picked = np.concatenate([picked[0][kept], again[0]])[order_of], owners
    return Prefixes(picked[0], np.bincount(picked[1], minlength=len(sizes)))


def _smallest(
    keys: Hashes, among: npt.NDArray[np.bool_], sizes: Positions, prefix_sizes: Positions
) -> tuple[Hashes, Positions]:
    """Return each text's first ``prefix_sizes`` distinct marked keys, and their texts."""
    texts = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)[among]
    shift = np.uint64(CLASS_BITS + HASH_BITS)
    ordered = np.sort((texts << shift) | keys[among])
    distinct = ordered[np.diff(ordered, prepend=ordered[:1] - np.uint64(1)) != 0]
    owners = (distinct >> shift).astype(np.int64)
    ranks = np.arange(len(owners)) - np.searchsorted(owners, np.arange(len(sizes)))[owners]
    first = ranks < prefix_sizes[owners]
    return distinct[first] & ((np.uint64(1) << shift) - np.uint64(1)), owners[first]
