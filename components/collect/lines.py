"""Split plain, gzip or zstd files into lines, in bounded memory and despite damage."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.store.unpacked_file import UnpackedFile

LONGEST = 16 * 2**20  # maximum bytes of a log line
MAX_KEPT = 4 * LONGEST  # bytes of a longer line that are kept in quarantine
BLOCK = 32 * 2**20
SCAN_BYTES = 2**18  # bytes to scan at a time: few enough to stay in a processor's cache

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BREAK = ord("\n")


@dataclass(frozen=True, slots=True)
class LineStart:
    """A position in a plain file: its offset in bytes, and the number of the next line."""

    offset: int
    line: int


BEGINNING = LineStart(0, 1)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text; lines are numbered from 1."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that can't be read as a line of text, and why."""

    number: int
    content: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive whole lines; ``number`` is the first line's."""

    number: int
    content: NDArray[np.uint8]
    ends: NDArray[np.int64]  # the index of each line's break in ``content``


def make_block(number: int, content: bytes) -> Block:
    """Return bytes as a block of lines that starts at line ``number``."""
    array = np.frombuffer(content, np.uint8)
    return _block(number, array, _breaks(array))


def read_lines(path: Path, start: LineStart = BEGINNING) -> Iterator[Line | Unreadable]:
    """Yield the lines of a file from ``start`` on, without blank lines.

    A packed stream that breaks off yields its good lines, then the cut line as unreadable.
    """
    for block in read_blocks(path, start):
        if isinstance(block, Block):
            yield from split_block(block)
        else:
            yield block


def read_blocks(path: Path, start: LineStart = BEGINNING) -> Iterator[Block | Unreadable]:
    """Yield a file's lines in blocks, and unreadable lines between them."""
    with path.open("rb") as file, closing(UnpackedFile(file, start.offset)) as stream:
        number, rest, at_end = start.line, np.empty(0, np.uint8), False
        while not at_end:
            content = _append_block(rest, stream)
            at_end = len(content) < len(rest) + BLOCK
            breaks = _breaks(content)
            is_whole = at_end and stream.damage is None
            size = len(content) if is_whole else int(breaks[-1]) + 1 if len(breaks) else 0
            if size:
                yield (block := _block(number, content[:size], breaks))
                number += len(block.ends)
            rest = content[size:]
            if len(rest) > LONGEST and not at_end:
                skipped, rest = _skip_long_line(number, rest, stream)
                yield skipped
                number += 1
        if stream.damage is not None:
            place = "the line is cut" if len(rest) else "the file ends here"
            yield Unreadable(number, rest.tobytes(), f"{place}: {stream.damage}")


def split_block(whole: Block) -> Iterator[Line | Unreadable]:
    """Yield the lines of a block, without blank lines."""
    start = 0
    for number, line_end in enumerate(whole.ends.tolist(), whole.number):
        content = whole.content[start : line_end + 1].tobytes()
        if len(content.removesuffix(b"\n")) > LONGEST:
            yield _too_long(number, len(content), content)
        elif content.strip():
            yield _decoded(number, content)
        start = line_end + 1


def _block(number: int, content: NDArray[np.uint8], breaks: NDArray[np.int64]) -> Block:
    if len(breaks) == 0 or breaks[-1] + 1 < len(content):  # the last line lacks its break
        breaks = np.append(breaks, len(content))
    return Block(number, content, breaks)


def _breaks(content: NDArray[np.uint8]) -> NDArray[np.int64]:
    pieces = range(0, len(content), SCAN_BYTES)
    breaks = [at + np.flatnonzero(content[at : at + SCAN_BYTES] == BREAK) for at in pieces]
    return np.concatenate(breaks) if breaks else np.empty(0, np.int64)


def _append_block(rest: NDArray[np.uint8], stream: UnpackedFile) -> NDArray[np.uint8]:
    """Return ``rest`` plus the next ``BLOCK`` bytes; fewer only at the end."""
    # Arrow's allocator reuses the memory of released blocks; memory from the system is zeroed
    # first, page by page, which takes three times as long as reading.
    buffer = pa.allocate_buffer(len(rest) + BLOCK)
    content = np.frombuffer(buffer, np.uint8)
    content[: len(rest)] = rest
    filled = stream.fill(memoryview(buffer).cast("B")[len(rest) :])
    return content[: len(rest) + filled]


def _decoded(number: int, content: bytes) -> Line | Unreadable:
    if number == 1:
        content = content.removeprefix(BYTE_ORDER_MARK)
    try:
        return Line(number, content.rstrip(b"\r\n").decode())
    except UnicodeDecodeError as error:
        byte, at = content[error.start], error.start
        return Unreadable(number, content, f"the line is not UTF-8: byte 0x{byte:02x} at {at}")


def _skip_long_line(
    number: int, head: NDArray[np.uint8], stream: UnpackedFile
) -> tuple[Unreadable, NDArray[np.uint8]]:
    """Skip to the end of a long line; return it with its first bytes, and the bytes after it."""
    kept, length = bytearray(head.tobytes()), len(head)
    while piece := stream.read(BLOCK):
        end = piece.find(b"\n") + 1 or len(piece)
        length += end
        kept += piece[: min(end, MAX_KEPT - len(kept))]
        if piece[end - 1] == BREAK:
            return _too_long(number, length, bytes(kept)), np.frombuffer(piece[end:], np.uint8)
    return _too_long(number, length, bytes(kept)), np.empty(0, np.uint8)


def _too_long(number: int, length: int, kept: bytes) -> Unreadable:
    reason = f"the line has {length} bytes, expected at most {LONGEST}"
    if length > len(kept):
        reason += f"; the first {len(kept)} are kept"
    return Unreadable(number, kept, reason)
