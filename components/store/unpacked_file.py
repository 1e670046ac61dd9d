"""Read plain, gzip or zstd files, as bytes despite damage, or as lines of JSON."""

import gzip
import json
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import zstandard

from components.schema import Json

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
UNPACKED_BYTES = 8 * 2**10  # packed bytes to unpack at once: zeros become 250 MB, logs 50 kB
GZIP_READ = 256 * 2**10
READ_BYTES = 2**20
SHOWN_BYTES = 60  # of a line that is wrong


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed with gzip or zstd."""
    with path.open("rb") as file:
        return file.read(4).startswith((GZIP_MAGIC, ZSTD_MAGIC))


class UnpackedFile:
    """The bytes of a plain, gzip or zstd file; ``damage`` is why they ended early, if they did."""

    def __init__(self, file: BufferedReader, start: int = 0) -> None:
        magic = b"" if start else file.peek(4)[:4]  # only a plain file is read from later bytes on
        if start:
            file.seek(start)
        self.damage: str | None = None
        self._file = file
        self._left = bytearray()
        self._pieces: Iterator[bytes] | None = None
        if magic.startswith(GZIP_MAGIC):
            self._pieces = self._gunzipped(gzip.GzipFile(fileobj=file))
        elif magic == ZSTD_MAGIC:
            self._pieces = self._unzstd(file)

    def read(self, size: int) -> bytearray:
        """Return the next ``size`` bytes; fewer only at the end."""
        content = bytearray(size)
        with memoryview(content) as view:
            filled = self.fill(view)
        del content[filled:]
        return content

    def close(self) -> None:
        """Drop the rest; the caller closes the file."""
        self._left.clear()

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` with the next bytes; return their number, smaller only at the end."""
        if self._pieces is None:
            return _fill_plain(self._file, view)
        while len(self._left) < len(view) and (piece := next(self._pieces, None)) is not None:
            self._left += piece
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        del self._left[:size]
        return size

    def _gunzipped(self, source: gzip.GzipFile) -> Iterator[bytes]:
        try:
            # read1, because read drops the bytes it has unpacked when it meets damage.
            while piece := source.read1(GZIP_READ):
                yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage = f"the gzip stream is damaged ({error})"

    def _unzstd(self, file: BufferedReader) -> Iterator[bytes]:
        """Unpack all frames; trailing bytes that are not a frame count as damage."""
        frame, rest, is_whole = zstandard.ZstdDecompressor().decompressobj(), b"", True
        try:
            while packed := rest or file.read(UNPACKED_BYTES):
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


def _fill_plain(file: BufferedReader, view: memoryview) -> int:
    filled = 0
    while filled < len(view) and (read := file.readinto(view[filled:])):
        filled += read
    return filled


def read_json(path: Path) -> Iterator[tuple[int, Json]]:
    """Yield the number and the value of each line that is not blank.

    Raises:
        OSError: The file can't be read.
        ValueError: A line, which is named, is not JSON, or the file is damaged.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield number, _value(number, line)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines; raise ``OSError`` or ``ValueError`` if the file can't be read whole."""
    with path.open("rb") as file:
        unpacked = UnpackedFile(file)
        begun = list[bytes]()  # the pieces of a line whose end is not read yet
        while piece := unpacked.read(READ_BYTES):
            first, *others = bytes(piece).split(b"\n")
            begun.append(first)
            if others:
                yield b"".join(begun)
                yield from others[:-1]
                begun = [others[-1]]
        if unpacked.damage:
            raise ValueError(unpacked.damage)
        if rest := b"".join(begun):
            yield rest


def _value(number: int, line: bytes) -> Json:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line[:SHOWN_BYTES].decode(errors="replace").strip()
        raise ValueError(f"line {number} is not JSON: {shown}") from error
