"""Hash texts into word shingles, and pick each text's prefix, without a Python loop."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

WIDTH = 3
"""Words of a shingle; a text of fewer words has one shingle, of all of them."""

CHUNK_BYTES = 1 << 16
"""Texts hashed at once: what is computed on the way fits the processor's cache."""

CHUNK_TEXTS = 1 << 12
"""However short they are."""

HASH_BITS = 48
"""Two different shingles are taken for equal once in 2^48 times: 1e-10 a pair of long texts."""

_RANDOM = np.random.Generator(np.random.PCG64(7)).integers(0, 1 << 64, 260, dtype=np.uint64)
_BASE = int(_RANDOM[256]) | 1
_STEP, _MIX = (value | np.uint64(1) for value in _RANDOM[257:259])
_WIDE = 0xE0
"""The first byte of three or more that UTF-8 writes as one character."""

_LETTERS = bytes(
    byte if byte >= 0x80 else ord(chr(byte).lower()) if chr(byte).isalnum() else 0
    for byte in range(256)
)
"""What each byte is read as: 0 where it is of no word."""

_DIGITS = np.isin(np.arange(256), [*b"0123456789"])
_HASH_MASK = np.uint64((1 << HASH_BITS) - 1)


class TextColumn(Protocol):
    """What is used of an Arrow array of ``large_string`` without nulls; pyarrow has no types."""

    @property
    def offset(self) -> int:
        """Where its first text is in the buffers."""
        ...

    def __len__(self) -> int:
        """Count its texts."""
        ...

    def buffers(self) -> "list[memoryview | None]":
        """Give its nulls, offsets and bytes."""
        ...

    def take(self, indices: Positions, /) -> "TextColumn":
        """Give some of the texts."""
        ...


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as Arrow holds them: the bytes of all, and where each begins and the last ends."""

    content: Bytes
    offsets: Positions

    @classmethod
    def of(cls, column: TextColumn) -> "Texts":
        """Look at a column's texts where they are."""
        _, offsets, content = column.buffers()
        bounds = np.frombuffer(offsets or bytes(8), np.int64)
        return cls(
            np.frombuffer(content or b"", np.uint8),
            bounds[column.offset : column.offset + len(column) + 1],
        )

    def __len__(self) -> int:
        """Count the texts."""
        return len(self.offsets) - 1

    def chunks(self) -> Iterator["Texts"]:
        """Cut into runs of whole texts of about ``CHUNK_BYTES``."""
        start = 0
        while start < len(self):
            limit = self.offsets[start] + CHUNK_BYTES
            stop = max(start + 1, int(np.searchsorted(self.offsets, limit, "right")) - 1)
            stop = min(stop, start + CHUNK_TEXTS)
            yield Texts(self.content, self.offsets[start : stop + 1])
            start = stop


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of some texts, one after the other.

    ``hashes`` (uint64, of ``HASH_BITS`` bits) holds those of text i from ``bounds[i]`` up to
    ``bounds[i + 1]``.
    """

    hashes: Hashes
    bounds: Positions


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts, one after the other.

    ``hashes`` holds those of text i from ``bounds[i]`` up to ``bounds[i + 1]``; ``starts`` says at
    which byte each begins, counted from the first text's first.
    """

    hashes: Hashes
    bounds: Positions
    starts: Positions


def shingle(texts: Texts, width: int = WIDTH, *, whole: bool = True) -> Shingles:
    """Hash every run of ``width`` words of each text, in their order, repeated ones included.

    Args:
        texts: The texts of a chunk.
        width: Words of a shingle.
        whole: Whether a text of fewer words has one shingle, of all of them, or none.
    """
    return runs(words_of(texts), width, whole=whole)


def runs(found: Words, width: int, *, whole: bool = False) -> Shingles:
    """Hash every run of ``width`` words, as ``shingle`` does, of words that are known."""
    words, bounds = found.hashes, found.bounds
    counts = np.diff(bounds)
    padded = np.concatenate([words, np.zeros(width - 1, np.uint64)])
    hashes = words.copy()
    for place in range(1, width):
        hashes *= _STEP
        hashes += padded[place : place + len(words)]
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


def have_digits(texts: Texts, words: Words) -> npt.NDArray[np.bool_]:
    """Mark the words of a chunk that have a digit: numbers, times, ids."""
    content = texts.content[int(texts.offsets[0]) : int(texts.offsets[-1])]
    digits = np.concatenate([[0], np.cumsum(_DIGITS[content])])
    return np.diff(digits[np.append(words.starts, len(content))]) > 0


def distinct(texts: Texts, width: int = WIDTH, *, whole: bool = True) -> tuple[Hashes, Positions]:
    """Give the distinct shingles of each text of a chunk, sorted, and how many each has."""
    found = shingle(texts, width, whole=whole)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(found.bounds))
    ordered = np.sort((owners << np.uint64(HASH_BITS)) | found.hashes)
    kept = ordered[np.diff(ordered, prepend=ordered[:1] - np.uint64(1)) != 0]
    owners = (kept >> np.uint64(HASH_BITS)).astype(np.int64)
    return kept & _HASH_MASK, np.bincount(owners, minlength=len(texts))


def _whole(padded: Hashes, firsts: Positions, counts: Positions, width: int) -> Hashes:
    """Hash texts of fewer words than a shingle has, as if words of 0 followed."""
    hashes = np.zeros(len(firsts), np.uint64)
    for place in range(width):
        hashes *= _STEP
        hashes += np.where(counts > place, padded[firsts + place], np.uint64(0))
    return hashes


def mixed(hashes: Hashes) -> Hashes:
    """Spread every bit of the hashes over all of them (the finalizer of MurmurHash3)."""
    spread = hashes ^ (hashes >> np.uint64(33))
    spread *= _MIX
    spread ^= spread >> np.uint64(29)
    return spread


def words_of(texts: Texts) -> Words:
    """Hash every word of a chunk."""
    begin, end = int(texts.offsets[0]), int(texts.offsets[-1])
    offsets = texts.offsets - begin
    content = np.frombuffer(texts.content[begin:end].tobytes().translate(_LETTERS), np.uint8)
    weights, inverses = _powers(1 << max(len(content), CHUNK_BYTES).bit_length())
    is_word = content != 0
    begins = is_word.copy()
    begins[1:] &= content[:-1] == 0
    if len(content) and content.max() >= _WIDE:
        begins |= content >= _WIDE
    edges = offsets[:-1][np.diff(offsets) > 0]
    begins[edges] = is_word[edges]
    starts = np.flatnonzero(begins)
    sums = np.zeros(len(content) + 1, np.uint64)
    np.cumsum(np.multiply(content, weights[: len(content)]), out=sums[1:])
    at_starts = sums[starts]
    hashes = np.diff(at_starts, append=sums[-1:]) * inverses[starts]
    return Words(mixed(hashes), np.searchsorted(starts, offsets), starts)


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    """Give the powers of the polynomial's base modulo 2^64, and their inverses."""
    bases = (_BASE, pow(_BASE, -1, 1 << 64))
    rows = [np.full(length, base, np.uint64) for base in bases]
    for row in rows:
        row[0] = 1
        np.multiply.accumulate(row, out=row)
    return rows[0], rows[1]


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
class ShingleOrder:
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


def shingle_order(texts: Texts, threshold: float, pool: Executor) -> ShingleOrder:
    """Count on the texts of a sample which shingles are common.

    Counts are of buckets of hashes and wrap around at 2^16: a wrong one makes more candidates,
    never fewer pairs.
    """
    content = int(texts.offsets[-1] - texts.offsets[0])
    bits = min(TABLE_BITS, (content // _WORD_BYTES + 1).bit_length())
    shift = np.uint64(HASH_BITS - bits)
    counts = np.zeros(1 << bits, np.uint16)
    some = [np.zeros(0, np.uint64)]
    for found in pool.map(shingle, texts.chunks()):
        np.add.at(counts, (found.hashes >> shift).astype(np.int64), np.uint16(1))
        some.append(found.hashes[::16])
    rough = ShingleOrder(threshold, _MAGNITUDES[counts], shift, np.uint64(0))
    keys = rough.keys(np.concatenate(some))
    place = int(min(1.0, (1 - threshold) * _MARGIN) * (len(keys) - 1))
    limit = np.partition(keys, place)[place] if len(keys) else np.uint64(0)
    return ShingleOrder(threshold, rough.classes, shift, limit)


def choose_prefixes(texts: Texts, order: ShingleOrder) -> Prefixes:
    """Give the prefix of every text of a chunk.

    It may be some shingles longer than needed where a text repeats shingles, as the repetitions are
    counted.
    """
    found = shingle(texts)
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
