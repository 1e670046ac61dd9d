"""Find the new part of a file: a log that has grown is resumed at the end of its last load.

Only plain files of lines whose source treats each line independently are resumed. The earlier part
is recognised by its digest: a file that was rotated, cut or rewritten is read whole. A load reads
to the end, where a line may be half written and so be quarantined; the next load starts with that
line and deletes its half from quarantine. So does the load of a packed file or an array, which is
read again as a whole, if it has what was cut off.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from components.collect import importers
from components.collect.files import Form
from components.collect.lines import BEGINNING, LineStart
from components.collect.record_batches import RecordOrigin
from components.collect.source import Defaults
from components.store import warehouse
from components.store.unpacked_file import is_packed
from components.store.warehouse import Connection

PIECE = 2**20


@dataclass(frozen=True, slots=True)
class PreviousLoad:
    """The last load from a path: the file's digest and size (bytes) then, and its rows."""

    digest: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class FileProgress:
    """A file's digest now, and the start of its new part if the rest was loaded ``earlier``."""

    digest: str
    size: int | None = None  # bytes; ``None`` if a later load can't resume at its end
    start: LineStart = BEGINNING
    earlier: PreviousLoad | None = None


def can_grow(path: Path, form: Form, source: str) -> bool:
    """Return whether a grown file can be resumed at its old end."""
    return form == "lines" and source not in importers.JOINING and not is_packed(path)


def previous_load(
    con: Connection, place: str, source: str, defaults: Defaults
) -> PreviousLoad | None:
    """Return the last load from a place that can be resumed."""
    values = {"path": place, "source_name": source, **asdict(defaults)}
    loads = warehouse.records(con, "marts/growing_file", PreviousLoad, **values)
    return loads[0] if loads else None


def measure_progress(
    path: Path, size: int, before: PreviousLoad | None, *, can_grow: bool
) -> FileProgress:
    """Hash a file's first ``size`` bytes, and check whether it begins with the load ``before``.

    ``size`` is from before reading began: hashed bytes count as loaded, so all must have been read.
    """
    content, beginning = _Counted(), None
    with path.open("rb") as file:
        if before is not None:
            content.take(file, min(before.size, size), with_lines=True)
            if content.digest == before.digest:
                beginning = content.whole_lines
        content.take(file, size - content.size)
    size_read = content.size if can_grow else None
    if before is None or beginning is None or content.size <= before.size:
        return FileProgress(content.digest, size_read)
    return FileProgress(content.digest, size_read, beginning, before)


def probably_new(con: Connection, place: str, size: int) -> bool:
    """Return whether no loaded file has this path or size; needs no hash."""
    sql = "select 1 from raw.files where path = $place or size = $size limit 1"
    return not con.execute(sql, {"place": place, "size": size}).fetchall()


def drop_partial_line(con: Connection, source: str, growth: FileProgress) -> None:
    """Delete from quarantine the last line of the earlier load, which was half written then."""
    if growth.earlier is not None:
        con.execute(
            "delete from raw.quarantine"
            " where file_digest = $digest and source = $source and line >= $line",
            {"digest": growth.earlier.digest, "source": source, "line": growth.start.line},
        )


def drop_completed_cuts(con: Connection, origin: RecordOrigin, known: int) -> None:
    """Delete from quarantine where earlier loads of a path broke off, if this one has it whole.

    That is so if it has all their rows (``known`` in this load), and a row that goes on where the
    cut one ended.
    """
    identity = {"digest": origin.digest, "source": origin.source, **asdict(origin.defaults)}
    cuts = con.execute(_CUTS, {**identity, "path": origin.path, "known": known}).fetchall()
    completed = [cut for cut, line, content in cuts if _has_whole(con, origin, line, content)]
    if completed:
        con.execute(
            "delete from raw.quarantine where quarantine_id in (select unnest($completed))",
            {"completed": completed},
        )


_CUTS = """
    select quarantine.quarantine_id, quarantine.line, quarantine.content
    from raw.quarantine as quarantine
    inner join raw.files as files
        on quarantine.file_digest = files.digest
        and quarantine.source = files.source
        and quarantine.workload_id = files.workload_id
        and quarantine.client_id = files.client_id
    where quarantine.path = $path
    and quarantine.source = $source
    and quarantine.workload_id = $workload_id
    and quarantine.client_id = $client_id
    and quarantine.file_digest != $digest
    and files.rows <= $known
    and regexp_matches(
        quarantine.reason,
        '^the (line is cut|file ends here|array is damaged from here on|array ends without)'
    )
"""


def _has_whole(con: Connection, origin: RecordOrigin, line: int, content: bytes) -> bool:
    if not content:  # it ended between two lines
        return True
    sql = (
        "select payload from raw.interactions where file_digest = $digest and line = $line"
        " union all select payload from raw.feedback where file_digest = $digest and line = $line"
    )
    rows = con.execute(sql, {"digest": origin.digest, "line": line}).fetchall()
    return any(payload.encode().startswith(content) for (payload,) in rows)


class _Counted:
    """Hashes and counts the bytes read from a file."""

    def __init__(self) -> None:
        self.size = 0
        self.whole_lines = BEGINNING
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def take(self, file: BinaryIO, most: int, *, with_lines: bool = False) -> None:
        """Read up to ``most`` more bytes; ``with_lines`` also tracks where the last line ends."""
        left = most
        while piece := file.read(min(PIECE, left)):
            self._hash.update(piece)
            if with_lines and (at := piece.rfind(b"\n")) >= 0:
                number = self.whole_lines.line + piece.count(b"\n")
                self.whole_lines = LineStart(self.size + at + 1, number)
            self.size += len(piece)
            left -= len(piece)
