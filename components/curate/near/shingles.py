"""Hash texts into word shingles, and choose each text's prefix, vectorised."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")

WIDTH = 3  # words of a shingle; a shorter text has one shingle of all its words
CHUNK_BYTES = 1 << 16  # bytes hashed at once: intermediate arrays fit the processor's cache
CHUNK_TEXTS = 1 << 12  # maximum texts of a chunk
TAKEN_BYTES = 1 << 24  # bytes of texts that are copied at once
CHUNKS_AHEAD = 8  # chunks of which there may be results that nobody has taken
HASH_BITS = 48  # two different shingles collide once in 2^48: 1e-10 per pair of long texts

_RANDOM = np.random.Generator(np.random.PCG64(7)).integers(0, 1 << 64, 260, dtype=np.uint64)
_BASE = int(_RANDOM[256]) | 1
_STEP, _MIX = (value | np.uint64(1) for value in _RANDOM[257:259])
_WIDE = 0xE0  # the smallest first byte of a UTF-8 character of three or more bytes

_LETTERS = bytes(
    byte if byte >= 0x80 else ord(chr(byte).lower()) if chr(byte).isalnum() else 0
    for byte in range(256)
)
"""Byte translation: lower case, 0 for bytes outside of words."""

_DIGITS = np.isin(np.arange(256), [*b"0123456789"])
_HASH_MASK = np.uint64((1 << HASH_BITS) - 1)


class TextColumn(Protocol):
    """The used part of an Arrow ``large_string`` array without nulls; pyarrow is untyped."""

    @property
    def offset(self) -> int:
        """Index of the first text in the buffers."""
        ...

    def __len__(self) -> int:
        """Return the number of texts."""
        ...

    def buffers(self) -> "list[memoryview | None]":
        """Return its null bitmap, offsets and bytes."""
        ...

    def take(self, indices: Positions, /) -> "TextColumn":
        """Return the texts at some indices."""
        ...

    def dictionary_encode(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return the different texts in the order of their first places, and an index for each."""
        ...

    def to_pylist(self) -> list[str]:
        """Return all texts."""
        ...


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts in Arrow's layout: all bytes, and each text's start offset plus the final end."""

    content: Bytes
    offsets: Positions

    @classmethod
    def of(cls, column: TextColumn) -> "Texts":
        """Return a zero-copy view of a column."""
        _, offsets, content = column.buffers()
        bounds = np.frombuffer(offsets or bytes(8), np.int64)
        return cls(
            np.frombuffer(content or b"", np.uint8),
            bounds[column.offset : column.offset + len(column) + 1],
        )

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.offsets) - 1

    def chunks(self) -> Iterator["Texts"]:
        """Yield chunks of whole texts of about ``CHUNK_BYTES``."""
        start = 0
        while start < len(self):
            limit = self.offsets[start] + CHUNK_BYTES
            stop = max(start + 1, int(np.searchsorted(self.offsets, limit, "right")) - 1)
            stop = min(stop, start + CHUNK_TEXTS)
            yield Texts(self.content, self.offsets[start : stop + 1])
            start = stop


def taken(column: TextColumn, places: Positions) -> Iterator[TextColumn]:
    """Yield the texts at some places, in their order, of which only few are copied at a time."""
    parts = np.cumsum(np.diff(Texts.of(column).offsets)[places]) // TAKEN_BYTES
    for part in np.split(places, np.flatnonzero(np.diff(parts)) + 1):
        yield column.take(part)


def chunks_at(column: TextColumn, places: Positions) -> Iterator[Texts]:
    """Yield chunks of the texts at some places."""
    for part in taken(column, places):
        yield from Texts.of(part).chunks()


def in_order(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield the results in the order of the items; ``Executor.map`` would hold all of them."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > CHUNKS_AHEAD:
            yield waiting.popleft().result()
    yield from (future.result() for future in waiting)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of some texts, concatenated.

    Text i has ``hashes[bounds[i]:bounds[i + 1]]`` (uint64, of ``HASH_BITS`` bits).
    """

    hashes: Hashes
    bounds: Positions


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts, concatenated.

    Text i has ``hashes[bounds[i]:bounds[i + 1]]``; ``starts`` are the words' byte offsets from the
    start of the first text.
    """

    hashes: Hashes
    bounds: Positions
    starts: Positions


def shingle(texts: Texts, width: int = WIDTH, *, whole: bool = True) -> Shingles:
    """Hash every run of ``width`` words of each text, in order, with repetitions.

    With ``whole``, a text of fewer words has one shingle of all its words, else none.
    """
    return runs(words_of(texts), width, whole=whole)


def runs(text_words: Words, width: int, *, whole: bool = False) -> Shingles:
    """Hash every run of ``width`` words, like ``shingle``, from hashed words."""
    words, bounds = text_words.hashes, text_words.bounds
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
    """Mark the words of a chunk with a digit: numbers, times, ids."""
    content = texts.content[int(texts.offsets[0]) : int(texts.offsets[-1])]
    return np.maximum.reduceat(_DIGITS[content], words.starts)


def count_marks(marks: npt.NDArray[np.bool_], bounds: Positions) -> Positions:
    """Return the number of marks per text."""
    return np.diff(np.concatenate([[0], np.cumsum(marks)])[bounds])


def distinct(texts: Texts, width: int = WIDTH, *, whole: bool = True) -> tuple[Hashes, Positions]:
    """Return each text's distinct shingles, sorted, and the number per text."""
    shingles = shingle(texts, width, whole=whole)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(shingles.bounds))
    ordered = np.sort((owners << np.uint64(HASH_BITS)) | shingles.hashes)
    kept = ordered[np.diff(ordered, prepend=ordered[:1] - np.uint64(1)) != 0]
    owners = (kept >> np.uint64(HASH_BITS)).astype(np.int64)
    return kept & _HASH_MASK, np.bincount(owners, minlength=len(texts))


def _whole(padded: Hashes, firsts: Positions, counts: Positions, width: int) -> Hashes:
    """Hash texts of fewer than ``width`` words, padded with zeros."""
    hashes = np.zeros(len(firsts), np.uint64)
    for place in range(width):
        hashes *= _STEP
        hashes += np.where(counts > place, padded[firsts + place], np.uint64(0))
    return hashes


def mixed(hashes: Hashes) -> Hashes:
    """Mix the bits of each hash (the finalizer of MurmurHash3)."""
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
    # What follows a word up to the next one is 0.
    hashes = np.add.reduceat(np.multiply(content, weights[: len(content)]), starts)
    hashes *= inverses[starts]
    return Words(mixed(hashes), np.searchsorted(starts, offsets), starts)


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    """Return the powers of the polynomial's base modulo 2^64, and their inverses."""
    bases = (_BASE, pow(_BASE, -1, 1 << 64))
    rows = [np.full(length, base, np.uint64) for base in bases]
    for row in rows:
        row[0] = 1
        np.multiply.accumulate(row, out=row)
    return rows[0], rows[1]


COMMON = 6  # minimum keys that near-duplicates share: many texts share a single key by chance

SAMPLED = 4  # shingles are counted on every ``SAMPLED``-th text

TABLE_BITS = 24
CLASS_BITS = 4
TEXT_BITS = 64 - CLASS_BITS - HASH_BITS
"""The remaining bits of 64, for the text's index in its chunk."""

_WORD_BYTES = 4
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


def shingle_order(texts: TextColumn, threshold: float, pool: Executor) -> ShingleOrder:
    """Return the order of shingles by their frequency in a sample of texts.

    Frequencies are counted by hash bucket and wrap around at 2^16: a wrong one makes more
    candidates, never fewer pairs.
    """
    sample = np.arange(0, len(texts), SAMPLED)
    content = int(np.diff(Texts.of(texts).offsets)[sample].sum())
    bits = min(TABLE_BITS, (content // _WORD_BYTES + 1).bit_length())
    shift = np.uint64(HASH_BITS - bits)
    counts = np.zeros(1 << bits, np.uint16)
    some = [np.zeros(0, np.uint64)]
    for shingles in in_order(pool, shingle, chunks_at(texts, sample)):
        np.add.at(counts, (shingles.hashes >> shift).astype(np.int64), np.uint16(1))
        some.append(shingles.hashes[::16])
    rough = ShingleOrder(threshold, _MAGNITUDES[counts], shift, np.uint64(0))
    keys = rough.keys(np.concatenate(some))
    place = int(min(1.0, (1 - threshold) * _MARGIN) * (len(keys) - 1))
    limit = np.partition(keys, place)[place] if len(keys) else np.uint64(0)
    return ShingleOrder(threshold, rough.classes, shift, limit)


def choose_prefixes(texts: Texts, order: ShingleOrder) -> Prefixes:
    """Return the prefix of every text of a chunk.

    It may be some shingles longer than needed where a text repeats shingles, as repetitions are
    counted.
    """
    shingles = shingle(texts)
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
