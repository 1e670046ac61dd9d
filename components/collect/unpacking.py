"""Read a file's bytes, unpacked if it is packed; damage ends it and is remembered, not raised."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PIECE = 8 * 2**10
"""Packed bytes that are unpacked at once: of zeros they become 250 MB, of logs 50 kB."""

GZIP_READ = 256 * 2**10


def is_packed(path: Path) -> bool:
    """Tell whether a file is gzip'd or zstd'd."""
    with path.open("rb") as file:
        return file.read(4).startswith((GZIP_MAGIC, ZSTD_MAGIC))


class Unpacked:
    """The bytes of a plain, gzip'd or zstd'd file; ``damage`` says what ended it before its end.

    Those of a plain one may begin at ``start``.
    """

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        magic = b"" if start else file.read(4)
        file.seek(start)
        self.damage: str | None = None
        self._file = file
        self._left = bytearray()
        self._pieces: Iterator[bytes] | None = None
        if magic.startswith(GZIP_MAGIC):
            self._pieces = self._gunzipped(gzip.GzipFile(fileobj=file))
        elif magic == ZSTD_MAGIC:
            self._pieces = self._unzstd(file)

    def after(self, head: bytearray, size: int) -> bytearray:
        """Give ``head`` with the next ``size`` bytes behind it; fewer only at the end."""
        content = bytearray(len(head) + size)
        content[: len(head)] = head
        with memoryview(content) as view, view[len(head) :] as free:
            filled = len(head) + self.fill(free)
        del content[filled:]
        return content

    def close(self) -> None:
        """Let go of what is left; the file is its opener's."""
        self._left.clear()

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` with the next bytes; return how many: fewer than fit only at the end."""
        return self._fill_unpacked(view) if self._pieces else _fill_plain(self._file, view)

    def _fill_unpacked(self, view: memoryview) -> int:
        assert self._pieces is not None
        while len(self._left) < len(view) and (piece := next(self._pieces, None)) is not None:
            self._left += piece
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        del self._left[:size]
        return size

    def _gunzipped(self, source: gzip.GzipFile) -> Iterator[bytes]:
        try:
            # read1, not read: read drops what it had unpacked when it meets the damage.
            while piece := source.read1(GZIP_READ):
                yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage = f"the gzip stream is damaged ({error})"

    def _unzstd(self, file: BinaryIO) -> Iterator[bytes]:
        """Unpack frame after frame; bytes behind the last one that are no frame are damage."""
        frame, rest, is_whole = zstandard.ZstdDecompressor().decompressobj(), b"", True
        try:
            while packed := rest or file.read(PIECE):
                yield frame.decompress(packed)
                rest, is_whole = b"", frame.eof
                if is_whole:
                    rest = frame.unused_data
                    frame = zstandard.ZstdDecompressor().decompressobj()
        except zstandard.ZstdError as error:
            self.damage = f"the zstd stream is damaged ({error})"
            return
        if not is_whole:
            self.damage = "the zstd stream is damaged (it ends within a frame)"


def _fill_plain(file: BinaryIO, view: memoryview) -> int:
    filled = 0
    while filled < len(view) and (read := _read_into(file, view[filled:])):
        filled += read
    return filled


def _read_into(file: BinaryIO, view: memoryview) -> int:
    assert isinstance(file, io.BufferedReader)
    return file.readinto(view)
