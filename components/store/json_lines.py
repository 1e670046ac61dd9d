"""Read files of JSON lines that settings name, plain or packed by gzip or zstd."""

import json
from collections.abc import Iterator
from pathlib import Path

from components.schema import Json
from components.store.unpacked_file import UnpackedFile

READ_BYTES = 2**20
SHOWN_BYTES = 60  # of a line that is wrong


def read(path: Path) -> Iterator[tuple[int, Json]]:
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
