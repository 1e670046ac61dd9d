"""Texts as hashed words, which all comparisons read; a text is hashed once, vectorised."""

import hashlib
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Marks = npt.NDArray[np.bool_]
Item = TypeVar("Item")
Result = TypeVar("Result")
Scalar = TypeVar("Scalar", bound=np.generic)

CHUNK_BYTES = 1 << 16  # bytes hashed at once: intermediate arrays fit the processor's cache
CHUNK_WORDS = 1 << 16  # words compared at once
TAKEN_BYTES = 1 << 24  # bytes of texts that are copied at once
CHUNK_TEXTS = 1 << 12  # maximum texts of a chunk
CHUNKS_AHEAD = 8  # chunks of which there may be results that nobody has taken
DIGEST_BYTES = 16

HAS_DIGIT, IS_SYMBOL = np.uint64(1), np.uint64(2)
"""The lowest bits of a word's hash: it has a digit (a number, a time, an id); it has neither
letter nor digit, as a dash of Unicode."""

_RANDOM = np.random.Generator(np.random.PCG64(7)).integers(0, 1 << 64, 260, dtype=np.uint64)
_BASE = int(_RANDOM[256]) | 1
STEP, _MIX = (value | np.uint64(1) for value in _RANDOM[257:259])
_FLAGS = HAS_DIGIT | IS_SYMBOL
_WIDE = 0xE0  # the smallest first byte of a UTF-8 character of three or more bytes
_ASCII = 0x80  # the smallest byte of another character

_LETTERS = bytes(
    byte if byte >= _ASCII else ord(chr(byte).lower()) if chr(byte).isalnum() else 0
    for byte in range(256)
)
"""Byte translation: lower case, 0 for bytes outside of words."""

_DIGITS = np.isin(np.arange(256), [*b"0123456789"])
_ALPHANUMERIC = np.array([byte < _ASCII and chr(byte).isalnum() for byte in range(256)])


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
        for part in slices(self.offsets, CHUNK_BYTES):
            yield Texts(self.content, self.offsets[part.start : part.stop + 1])


def taken(column: TextColumn, places: Positions) -> Iterator[TextColumn]:
    """Yield the texts at some places, in their order, of which only few are copied at a time."""
    parts = np.cumsum(np.diff(Texts.of(column).offsets)[places]) // TAKEN_BYTES
    for part in np.split(places, np.flatnonzero(np.diff(parts)) + 1):
        yield column.take(part)


def are_ascii(texts: Texts) -> Marks:
    """Mark the texts of a chunk without other characters than ASCII's."""
    begin, end = int(texts.offsets[0]), int(texts.offsets[-1])
    others = np.concatenate([[0], np.cumsum(texts.content[begin:end] >= _ASCII)])
    return np.diff(others[texts.offsets - begin]) == 0


def slices(bounds: Positions, most: int) -> Iterator[slice]:
    """Yield slices of texts, text i between ``bounds[i:i + 2]``, of about ``most`` together."""
    start = 0
    while start < len(bounds) - 1:
        stop = max(start + 1, int(np.searchsorted(bounds, bounds[start] + most, "right")) - 1)
        stop = min(stop, start + CHUNK_TEXTS)
        yield slice(start, stop)
        start = stop


@dataclass(frozen=True, slots=True)
class Words:
    """The hashed words of some texts, concatenated.

    Text i has ``hashes[bounds[i]:bounds[i + 1]]``.
    """

    hashes: Hashes
    bounds: Positions

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.bounds) - 1


class LocatedWords(NamedTuple):
    """The words of a chunk of texts, and their byte offsets from the start of the first text."""

    words: Words
    starts: Positions


@dataclass(frozen=True, slots=True)
class WordColumn:
    """Texts as hashed words; text i has ``hashes[begins[i]:begins[i] + sizes[i]]``.

    ``hashes`` may be of a mapped file, and texts may share words.
    """

    hashes: Hashes
    begins: Positions
    sizes: Positions

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.sizes)

    def at(self, places: Positions | Marks | slice) -> "WordColumn":
        """Return the texts at some places, or the marked ones; their words aren't copied."""
        return WordColumn(self.hashes, self.begins[places], self.sizes[places])

    def chunks(self) -> Iterator["WordColumn"]:
        """Yield chunks of whole texts of about ``CHUNK_WORDS``."""
        for part in slices(bounds_of(self.sizes), CHUNK_WORDS):
            yield self.at(part)

    def words(self) -> Words:
        """Return the words, side by side; they may be a view."""
        return Words(self.hashes[span(self.begins, self.sizes)], bounds_of(self.sizes))


def bounds_of(sizes: Positions) -> Positions:
    """Return where texts of such sizes begin and end, side by side."""
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    return bounds


def members(begins: Positions, sizes: Positions) -> Positions:
    """Return the places ``begins[i]`` to ``begins[i] + sizes[i]``, one after the other."""
    return np.arange(int(sizes.sum())) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)


def span(begins: Positions, sizes: Positions) -> slice | Positions:
    """Return the places as ``members`` does, as a slice if they are side by side."""
    if not len(begins) or (begins[1:] != begins[:-1] + sizes[:-1]).any():
        return members(begins, sizes)
    return slice(int(begins[0]), int(begins[-1] + sizes[-1]))


def sorted_set(values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Return the different values, sorted; ``np.unique`` hashes, some a hundred times slower."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]]


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


def hash_words(texts: Texts) -> LocatedWords:
    """Hash every word of a chunk, in lower case of ASCII; a wide character is a word.

    A text without words, such as "?!", has one of its own, unless it is empty.
    """
    begin, end = int(texts.offsets[0]), int(texts.offsets[-1])
    offsets = texts.offsets - begin
    written = texts.content[begin:end]
    content = np.frombuffer(written.tobytes().translate(_LETTERS), np.uint8)
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
    hashes = mixed(hashes) & ~_FLAGS
    if len(starts):
        hashes |= np.maximum.reduceat(_DIGITS[written], starts) * HAS_DIGIT
        hashes |= _are_symbols(written, starts) * IS_SYMBOL
    bounds = np.searchsorted(starts, offsets)
    wordless = np.flatnonzero((np.diff(bounds) == 0) & (np.diff(offsets) > 0))
    if len(wordless):
        begins, ends = offsets[wordless].tolist(), offsets[wordless + 1].tolist()
        own = [digest(written[begin:end].data) for begin, end in zip(begins, ends, strict=True)]
        of_texts = np.frombuffer(b"".join(own), np.uint64)[::2] | IS_SYMBOL
        hashes = np.insert(hashes, bounds[wordless], of_texts)
        starts = np.insert(starts, bounds[wordless], offsets[wordless])
        bounds = np.searchsorted(starts, offsets)
    return LocatedWords(Words(hashes, bounds), starts)


def _are_symbols(content: Bytes, starts: Positions) -> Marks:
    """Mark the words without a letter or digit of any language."""
    if content.max() < _ASCII:
        return np.zeros(len(starts), np.bool_)
    marks = _ALPHANUMERIC[content]
    others = content[content >= _ASCII].tobytes().decode()
    # The first bytes of characters that are not ASCII.
    marks[content >= 0xC0] = np.fromiter(map(str.isalnum, others), np.bool_, len(others))
    return ~np.maximum.reduceat(marks, starts)


def mixed(hashes: Hashes) -> Hashes:
    """Mix the bits of each hash (the finalizer of MurmurHash3)."""
    spread = hashes ^ (hashes >> np.uint64(33))
    spread *= _MIX
    spread ^= spread >> np.uint64(29)
    return spread


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    """Return the powers of the polynomial's base modulo 2^64, and their inverses."""
    bases = (_BASE, pow(_BASE, -1, 1 << 64))
    rows = [np.full(length, base, np.uint64) for base in bases]
    for row in rows:
        row[0] = 1
        np.multiply.accumulate(row, out=row)
    return rows[0], rows[1]


class SpilledWords:
    """Collects texts' words in a file of the folder ``scratch``, or in memory if it is ``None``.

    The file has no name, so that nothing of it is left even after a crash. It is mapped into
    memory: the system reads and drops its pages as it needs room.
    """

    def __init__(self, scratch: Path | None) -> None:
        # Closed by `column`; if it isn't called, by nobody holding it any more.
        self._file = None if scratch is None else tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        self._parts = [np.zeros(0, np.uint64)]
        self._sizes = [np.zeros(0, np.int64)]

    def add(self, words: Words) -> None:
        """Append texts."""
        self._sizes.append(np.diff(words.bounds))
        if self._file is None:
            self._parts.append(words.hashes)
        else:
            self._file.write(words.hashes.data)

    def column(self) -> WordColumn:
        """Return all texts; called once, at the end."""
        column = self.so_far()
        if self._file is not None:
            self._file.close()
        return column

    def so_far(self) -> WordColumn:
        """Return the texts that it has by now."""
        sizes = np.concatenate(self._sizes)
        hashes = np.concatenate(self._parts)
        if self._file is not None:
            self._file.flush()
            if self._file.tell():
                mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
                hashes = np.frombuffer(mapped, np.uint64)
        return WordColumn(hashes, np.cumsum(sizes) - sizes, sizes)


def column_of(texts: TextColumn, scratch: Path | None = None) -> WordColumn:
    """Return the words of texts, kept as ``SpilledWords`` does."""
    spilled = SpilledWords(scratch)
    for chunk in Texts.of(texts).chunks():
        spilled.add(hash_words(chunk).words)
    return spilled.column()


class DigestedWords(NamedTuple):
    """Texts as hashed words, and the digest of each one's words, of two values."""

    words: WordColumn
    digests: Hashes

    @classmethod
    def of(cls, words: WordColumn) -> "DigestedWords":
        """Digest texts' words."""
        digests = [digested(chunk.words()) for chunk in words.chunks()]
        return cls(words, np.concatenate([np.zeros((0, 2), np.uint64), *digests]))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.words)

    def at(self, places: Positions | Marks | slice) -> "DigestedWords":
        """Return the texts at some places, or the marked ones."""
        return DigestedWords(self.words.at(places), self.digests[places])

    def numbered(self) -> tuple[Positions, Positions]:
        """Number texts of different words by first place; return numbers, and first places."""
        return numbered(self.digests)


def digested(items: Words) -> Hashes:
    """Return two values of each list of hashes, which differ by their places, too."""
    sizes = np.diff(items.bounds)
    steps = np.arange(len(items.hashes), dtype=np.uint64)
    steps -= np.repeat(items.bounds[:-1].astype(np.uint64), sizes)
    steps *= STEP
    steps += items.hashes
    placed = mixed(steps)
    sums = np.zeros((len(sizes), 2), np.uint64)
    begins = items.bounds[:-1][sizes > 0]
    sums[sizes > 0, 0] = np.add.reduceat(placed, begins)
    sums[sizes > 0, 1] = np.add.reduceat(mixed(placed * STEP), begins)
    return mixed(sums + sizes.astype(np.uint64)[:, None])


def numbered(digests: Hashes) -> tuple[Positions, Positions]:
    """Number different digests, of two values each, by first place; return also first places."""
    numbers = _binary(digests).dictionary_encode().indices.to_numpy().astype(np.int64)
    firsts = np.full(int(numbers.max(initial=-1)) + 1, len(numbers))
    np.minimum.at(firsts, numbers, np.arange(len(numbers)))
    return numbers, firsts


def spilled_zeros(length: int, dtype: npt.DTypeLike, scratch: Path | None) -> npt.NDArray[Any]:
    """Return zeros in an unnamed file of the folder ``scratch``, or in memory if it is ``None``."""
    if scratch is None or not length:
        return np.zeros(length, dtype)
    with tempfile.TemporaryFile(dir=scratch) as file:
        # Writing to a mapped file for which the disk has no room kills the process.
        os.posix_fallocate(file.fileno(), 0, length * np.dtype(dtype).itemsize)
        return np.asarray(np.memmap(file, dtype, "w+", shape=(length,)))


def _binary(digests: Hashes) -> Any:  # noqa: ANN401 - pyarrow has no types
    values = pa.py_buffer(np.ascontiguousarray(digests))
    kind = pa.binary(DIGEST_BYTES)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(digests), [None, values])


def digest(content: "bytes | memoryview[int]") -> bytes:
    """Return a digest of ``DIGEST_BYTES``."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
