"""Load one file of either kind: each file is one transaction, and equal rows are stored once.

Python finds the lines; DuckDB does the JSON work on batches of them (``sql/temp`` judges the lines,
``sql/raw`` picks the rows that are new).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from components import manifest, warehouse
from components.collect import lines
from components.collect.lines import Line, Unreadable
from components.collect.loaded import Loaded
from components.warehouse import Connection

Kind = Literal["interactions", "feedback"]

TOLERANCE = timedelta(days=1)
"""How far ahead of ours the clock of an application may be."""

BATCH_CHARACTERS = 32 * 2**20

REFUSED: dict[Kind, str] = {
    "interactions": "select line, content, objection from temp.interactions",
    "feedback": "select line, content, objection from temp.feedback",
}


@dataclass(slots=True)
class _Batch:
    """Lines that are handed to DuckDB together."""

    readable: list[Line] = field(default_factory=list[Line])
    unreadable: list[Unreadable] = field(default_factory=list[Unreadable])
    size: int = 0

    def add(self, line: Line | Unreadable) -> None:
        """Take one line in."""
        if isinstance(line, Line):
            self.readable.append(line)
            self.size += len(line.text)
        else:
            self.unreadable.append(line)
            self.size += len(line.content)


@dataclass(frozen=True, slots=True)
class _File:
    kind: Kind
    path: Path
    digest: str
    now: datetime


def load(con: Connection, kind: Kind, path: Path, *, now: datetime) -> Loaded:
    """Load a file unless one of equal content was loaded before.

    Raises:
        OSError: The file can't be opened.
    """
    file = _File(kind, path, manifest.file_digest(path), now)
    if (before := _loaded_before(con, file)) is not None:
        return before
    new = known = quarantined = 0
    with warehouse.transaction(con):
        for batch in _batches(lines.read(path)):
            stored, seen, refused = _store(con, file, batch)
            new, known, quarantined = new + stored, known + seen, quarantined + refused
        record = {
            "kind": kind,
            "digest": file.digest,
            "path": str(path),
            "rows": new + known,
            "quarantined": quarantined,
            "loaded_at": now,
        }
        warehouse.insert(con, "raw.files", [record])
    return Loaded(path, new, known, quarantined, skipped=False)


def _loaded_before(con: Connection, file: _File) -> Loaded | None:
    found = con.execute(
        "select rows from raw.files where kind = $kind and digest = $digest",
        {"kind": file.kind, "digest": file.digest},
    ).fetchall()
    return Loaded(file.path, 0, int(found[0][0]), 0, skipped=True) if found else None


def _batches(source: Iterable[Line | Unreadable]) -> Iterator[_Batch]:
    batch = _Batch()
    for line in source:
        batch.add(line)
        if batch.size >= BATCH_CHARACTERS:
            yield batch
            batch = _Batch()
    if batch.readable or batch.unreadable:
        yield batch


def _store(con: Connection, file: _File, batch: _Batch) -> tuple[int, int, int]:
    """Store a batch; return how many rows were new, known and put in quarantine."""
    new = good = refused = 0
    if batch.readable:
        columns = {
            "line": [line.number for line in batch.readable],
            "content": [line.text for line in batch.readable],
        }
        latest = (file.now + TOLERANCE).timestamp()
        with warehouse.present(con, "lines", columns):
            warehouse.build(con, f"temp/{file.kind}", latest_seconds=latest)
        new = warehouse.append(con, f"raw/{file.kind}", digest=file.digest)
        refused = _quarantine(con, file, _refused(con, file.kind))
        good = len(batch.readable) - refused
    return new, good - new, refused + _quarantine(con, file, batch.unreadable)


def _refused(con: Connection, kind: Kind) -> list[Unreadable]:
    """Read the lines that DuckDB objected to."""
    found = con.execute(f"{REFUSED[kind]} where objection is not null").fetchall()
    return [Unreadable(line, content.encode(), objection) for line, content, objection in found]


def _quarantine(con: Connection, file: _File, refused: list[Unreadable]) -> int:
    """Keep what could not be read: its bytes, its place and the reason."""
    records = [
        {
            "quarantine_id": hashlib.md5(f"{file.digest} {one.number}".encode()).hexdigest(),
            "path": str(file.path),
            "file_digest": file.digest,
            "line": one.number,
            "reason": one.reason,
            "content": one.content,
            "quarantined_at": file.now,
        }
        for one in refused
    ]
    warehouse.insert(con, "raw.quarantine", records)
    return len(refused)
