"""Take a file of lines apart, plain or gzip'd, whatever state it is in.

Lines stay bytes until they have shown to be UTF-8; nothing here knows JSON. Memory stays bounded:
a line is read up to ``MOST_KEPT`` and the rest of it is passed over.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import Buffer

LONGEST = 16 * 2**20
"""Bytes of the longest line that is read as a log line."""

MOST_KEPT = 4 * LONGEST
"""Bytes of a longer line that go to quarantine."""

BLOCK = 2**20
GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text; lines are numbered from 1, as editors do."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that are no line of text, and why."""

    number: int
    content: bytes
    reason: str


def read(path: Path) -> Iterator[Line | Unreadable]:
    """Go through the lines of a file; blank ones are left out.

    A gzip stream that breaks off gives its good lines first, then the cut one as unreadable.
    """
    with path.open("rb") as file, closing(_Stream(file)) as stream:
        source = io.BufferedReader(stream, BLOCK)
        number, is_whole = 0, True
        while content := source.readline(LONGEST + 1):
            number += 1
            is_whole = content.endswith(b"\n")
            if stream.damage is not None and not is_whole:
                yield Unreadable(number, content, f"the line is cut: {stream.damage}")
            elif len(content) > LONGEST and not is_whole:
                yield _too_long(number, content, source)
            elif content.strip():
                yield _decoded(number, content)
        if stream.damage is not None and is_whole:
            yield Unreadable(number + 1, b"", f"the file ends here: {stream.damage}")


class _Stream(io.RawIOBase):
    """The file's bytes, unpacked if need be; damage ends it and is remembered, not raised."""

    def __init__(self, file: io.BufferedReader) -> None:
        is_packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        self._source = gzip.GzipFile(fileobj=file) if is_packed else file
        self.damage: str | None = None

    def readable(self) -> bool:
        """Say that this stream can be read."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill ``buffer`` with what comes next; 0 at the end, or where the damage begins."""
        view = memoryview(buffer).cast("B")
        try:
            # read1, not read: read drops what it had unpacked when it meets the damage.
            content = self._source.read1(len(view))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage = f"the gzip stream is damaged ({error})"
            return 0
        view[: len(content)] = content
        return len(content)


def _decoded(number: int, content: bytes) -> Line | Unreadable:
    if number == 1:
        content = content.removeprefix(BYTE_ORDER_MARK)
    try:
        return Line(number, content.rstrip(b"\r\n").decode())
    except UnicodeDecodeError as error:
        found = content[error.start]
        return Unreadable(
            number, content, f"the line is not UTF-8: byte 0x{found:02x} at {error.start}"
        )


def _too_long(number: int, head: bytes, source: "io.BufferedReader[_Stream]") -> Unreadable:
    """Read on to the end of a long line, keeping no more of it than fits."""
    kept = bytearray(head)
    length = len(head)
    while not head.endswith(b"\n") and (head := source.readline(BLOCK)):
        length += len(head)
        kept += head[: max(0, MOST_KEPT - len(kept))]
    reason = f"the line has {length} bytes, wants at most {LONGEST}"
    if length > len(kept):
        reason += f"; the first {len(kept)} are kept"
    return Unreadable(number, bytes(kept), reason)
