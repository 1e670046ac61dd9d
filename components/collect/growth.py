"""Tell what of a file is new: a log that has grown since its last load is read on from there.

That goes for plain files of lines, read by a source that takes each line for itself. What was read
before is told by its digest: a file that was rotated, cut or rewritten is read whole. A load reads
up to the end, where a line may be half written and so go to quarantine; the next load begins with
that line, and takes its half out again.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from components.collect import files
from components.collect.files import Form
from components.collect.lines import BEGINNING, LineStart, is_packed
from components.collect.source import Defaults
from components.store import warehouse
from components.store.warehouse import Connection

PIECE = 2**20


@dataclass(frozen=True, slots=True)
class PreviousLoad:
    """The last load from a path: digest and size of what the file was then, and its rows."""

    digest: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class FileProgress:
    """A file's digest now, and where the rest begins if its beginning was loaded ``earlier``.

    ``size`` is ``None`` where the file can't be read on from its end.
    """

    digest: str
    size: int | None = None
    start: LineStart = BEGINNING
    earlier: PreviousLoad | None = None

    @property
    def rows_before(self) -> int:
        """Count the rows of its beginning."""
        return self.earlier.rows if self.earlier else 0


def can_grow(path: Path, form: Form, source: str) -> bool:
    """Tell whether a file is one that is read on from its old end."""
    return form == "lines" and source not in files.JOINING and not is_packed(path)


def previous_load(
    con: Connection, place: str, source: str, defaults: Defaults
) -> PreviousLoad | None:
    """Give the last load from a place that can be read on from."""
    values = {
        "path": place,
        "source_name": source,
        "workload_id": defaults.workload_id,
        "client_id": defaults.client_id,
    }
    found = list(warehouse.read(con, "marts/growing_file", PreviousLoad, **values))
    return found[0] if found else None


def measure_progress(
    path: Path, size: int, before: PreviousLoad | None, *, can_grow: bool
) -> FileProgress:
    """Hash a file, and find out whether it begins with what was loaded ``before``.

    It is hashed up to the size that it had before anyone began to read it: what is hashed is known
    as loaded, so it must have been read.
    """
    content, beginning = _Counted(), None
    with path.open("rb") as file:
        if before is not None:
            content.take(file, min(before.size, size), with_lines=True)
            if content.digest == before.digest:
                beginning = content.whole_lines
        content.take(file, size - content.size)
    has_grown = before is not None and content.size > before.size
    size_read = content.size if can_grow else None
    if beginning is None or not has_grown:
        return FileProgress(content.digest, size_read)
    return FileProgress(content.digest, size_read, beginning, before)


def probably_new(con: Connection, place: str, size: int) -> bool:
    """Tell, before it is hashed, that a file is probably new: no other was of its place or size."""
    values = {"place": place, "size": size}
    found = con.execute(
        "select count(*) from raw.files where path = $place or size = $size", values
    ).fetchall()
    return found == [(0,)]


def drop_partial_line(con: Connection, source: str, growth: FileProgress) -> None:
    """Take out of quarantine what the earlier load found of a line that was not whole yet."""
    if growth.earlier is not None:
        con.execute(
            "delete from raw.quarantine"
            " where file_digest = $digest and source = $source and line >= $line",
            {"digest": growth.earlier.digest, "source": source, "line": growth.start.line},
        )


class _Counted:
    """Hashes and counts what is read of a file."""

    def __init__(self) -> None:
        self.size = 0
        self.whole_lines = BEGINNING
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The digest of all that was read so far."""
        return self._hash.hexdigest()

    def take(self, file: BinaryIO, most: int, *, with_lines: bool = False) -> None:
        """Read on, up to that many bytes; ``with_lines`` up to where the last whole one ends."""
        left = most
        while piece := file.read(min(PIECE, left)):
            self._hash.update(piece)
            if with_lines and (at := piece.rfind(b"\n")) >= 0:
                number = self.whole_lines.line + piece.count(b"\n")
                self.whole_lines = LineStart(self.size + at + 1, number)
            self.size += len(piece)
            left -= len(piece)
