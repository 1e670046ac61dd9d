"""Hash word shingles, and choose each text's prefix, vectorised."""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.curate.near.hashed_words import (
    STEP,
    Hashes,
    Marks,
    Positions,
    WordColumn,
    Words,
    in_order,
    mixed,
)

WIDTH = 3  # words of a shingle; a shorter text has one shingle of all its words
HASH_BITS = 48  # two different shingles collide once in 2^48: 1e-10 per pair of long texts

SEEN_BITS, SPARE_BITS = 24, 4
"""Of a table of hashes' first bits, in which most others are not; a larger one misses the cache."""

PLACES_AT_ONCE = 1 << 20

_HASH_MASK = np.uint64((1 << HASH_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of some texts, concatenated.

    Text i has ``hashes[bounds[i]:bounds[i + 1]]`` (uint64, of ``HASH_BITS`` bits).
    """

    hashes: Hashes
    bounds: Positions


def shingle(text_words: Words, width: int = WIDTH, *, whole: bool = True) -> Shingles:
    """Hash every run of ``width`` words of each text, in order, with repetitions.

    With ``whole``, a text of fewer words has one shingle of all its words, else none.
    """
    words, bounds = text_words.hashes, text_words.bounds
    counts = np.diff(bounds)
    padded = np.concatenate([words, np.zeros(width - 1, np.uint64)])
    hashes = _rolled(padded, width)
    windows = np.ones(len(words), np.bool_)
    begins, ends = bounds[:-1][counts > 0], bounds[1:][counts > 0]
    for back in range(1, width):
        windows[np.maximum(ends - back, begins)] = False
    short = (counts > 0) & (counts < width)
    sizes = np.maximum(counts - (width - 1), 0)
    if whole:
        windows[bounds[:-1][short]] = True
        hashes[bounds[:-1][short]] = _whole(padded, bounds[:-1][short], counts[short], width)
        sizes[short] = 1
    else:
        windows[bounds[:-1][short]] = False
    kept = mixed(hashes[windows]) & _HASH_MASK
    return Shingles(kept, np.concatenate([[0], np.cumsum(sizes)]))


def count_marks(marks: Marks, bounds: Positions) -> Positions:
    """Return the number of marks per text."""
    return np.diff(np.concatenate([[0], np.cumsum(marks)])[bounds])


def distinct(words: Words, width: int = WIDTH, *, whole: bool = True) -> tuple[Hashes, Positions]:
    """Return each text's distinct shingles, sorted, and the number per text."""
    shingles = shingle(words, width, whole=whole)
    owners = np.repeat(np.arange(len(words), dtype=np.uint64), np.diff(shingles.bounds))
    ordered = np.sort((owners << np.uint64(HASH_BITS)) | shingles.hashes)
    kept = ordered[np.diff(ordered, prepend=ordered[:1] - np.uint64(1)) != 0]
    owners = (kept >> np.uint64(HASH_BITS)).astype(np.int64)
    return kept & _HASH_MASK, np.bincount(owners, minlength=len(words))


class HashTable:
    """The places of sorted, different hashes."""

    def __init__(self, hashes: Hashes) -> None:
        bits = len(hashes).bit_length()
        self._shift = np.uint64(HASH_BITS - bits - 1)
        self._places = np.empty(2 << bits, np.int32)
        for start in range(0, len(self._places), PLACES_AT_ONCE):  # a quarter of the memory
            part = self._places[start : start + PLACES_AT_ONCE]
            firsts = np.arange(start, start + len(part), dtype=np.uint64) << self._shift
            part[:] = np.searchsorted(hashes, firsts)
        self._hashes = np.append(hashes, ~np.uint64(0))
        seen_bits = min(SEEN_BITS, bits + SPARE_BITS)
        self._seen_shift = np.uint64(HASH_BITS - seen_bits)
        self._seen = np.zeros(1 << seen_bits, np.bool_)
        self._seen[hashes >> self._seen_shift] = True

    def find(self, hashes: Hashes) -> tuple[Positions, Positions]:
        """Return the indices of the hashes that it has, and their places in it."""
        maybe = np.flatnonzero(self._seen[hashes >> self._seen_shift])
        few = hashes[maybe]
        at = self._places[few >> self._shift]  # a binary search misses the cache at each step
        before = np.flatnonzero(self._hashes[at] < few)
        while len(before):
            at[before] += 1
            before = before[self._hashes[at[before]] < few[before]]
        found = self._hashes[at] == few
        return maybe[found], at[found].astype(np.int64)


def _rolled(padded: Hashes, width: int) -> Hashes:
    """Return the polynomials of ``width`` words in a row, by those of half as many."""
    if width == 1:
        return padded.copy()
    half = width // 2
    first = _rolled(padded, half)
    later = first if width == 2 * half else _rolled(padded, half + 1)
    count = len(padded) - width + 1
    hashes = first[:count] * np.uint64(pow(int(STEP), width - half, 1 << 64))
    hashes += later[half : half + count]
    return hashes


def _whole(padded: Hashes, firsts: Positions, counts: Positions, width: int) -> Hashes:
    """Hash texts of fewer than ``width`` words, padded with zeros."""
    hashes = np.zeros(len(firsts), np.uint64)
    for place in range(width):
        hashes *= STEP
        hashes += np.where(counts > place, padded[firsts + place], np.uint64(0))
    return hashes


COMMON = 6  # minimum keys that near-duplicates share: many texts share a single key by chance

SAMPLED = 4  # shingles are counted on every ``SAMPLED``-th text

TABLE_BITS = 24
CLASS_BITS = 4
TEXT_BITS = 64 - CLASS_BITS - HASH_BITS
"""The remaining bits of 64, for the text's index in its chunk."""

_MARGIN = 1.7
_MAGNITUDES = np.array([min(count.bit_length(), 15) for count in range(1 << 16)], np.uint8)
_SLACK = 1e-9  # 0.8 * n is a little above the whole number for some n


@dataclass(frozen=True, slots=True)
class ShingleOrder:
    """The order of all shingles: by ``classes`` (how common, by the hash's first bits), then hash.

    A text's prefix is expected among the shingles below ``limit``; else all its shingles are
    sorted.
    """

    threshold: float
    classes: npt.NDArray[np.uint8]
    shift: np.uint64
    limit: np.uint64

    def keys(self, hashes: Hashes) -> Hashes:
        """Return each shingle's sort key of ``CLASS_BITS + HASH_BITS`` bits."""
        classes = self.classes[hashes >> self.shift].astype(np.uint64)
        return (classes << np.uint64(HASH_BITS)) | hashes

    def sizes(self, counts: Positions) -> tuple[Positions, Positions]:
        """Return the prefix size of texts with ``counts`` shingles, and the minimum shared keys.

        A prefix shares ``COMMON`` keys with a near-duplicate's, or all required shingles if fewer.
        """
        needed = np.ceil(self.threshold * counts - _SLACK).astype(np.int64)
        shared = np.minimum(needed, COMMON)
        return counts - needed + shared, shared


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of a chunk's texts: ``keys[i]`` belongs to text ``owners[i]``.

    ``shared`` is each text's minimum number of keys shared with any near-duplicate.
    """

    keys: Hashes
    owners: Positions
    shared: Positions


def shingle_order(texts: WordColumn, threshold: float, pool: Executor) -> ShingleOrder:
    """Return the order of shingles by their frequency in a sample of texts.

    Frequencies are counted by hash bucket and wrap around at 2^16: a wrong one makes more
    candidates, never fewer pairs.
    """
    sample = texts.at(slice(None, None, SAMPLED))
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
    prefix_sizes, shared = order.sizes(sizes)
    below = keys < order.limit
    whole = count_marks(below, shingles.bounds) < prefix_sizes
    picked = _smallest(keys, below | np.repeat(whole, sizes), sizes, prefix_sizes)
    lacking = (np.bincount(picked[1], minlength=len(sizes)) < prefix_sizes) & ~whole
    if lacking.any():  # repetitions among those below the limit
        again = _smallest(keys, np.repeat(lacking, sizes), sizes, prefix_sizes)
        kept = ~lacking[picked[1]]
        picked = (
            np.concatenate([picked[0][kept], again[0]]),
            np.concatenate([picked[1][kept], again[1]]),
        )
    return Prefixes(*picked, shared)


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
