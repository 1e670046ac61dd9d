"""Load several small files in one transaction; what is kept of each is as if it were alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.collect import load_file, quarantine, record_batches, writer
from components.collect.lines import Unreadable
from components.collect.load_file import Loaded
from components.collect.record_batches import RecordOrigin, ValidatedBatch
from components.collect.source import SourceRecord
from components.collect.writer import MAX_REFUSED, Stored, Within, committed
from components.store import arrow, warehouse
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class FilePart:
    """A small file to load together with others of its source and defaults."""

    origin: RecordOrigin
    records: Iterable[SourceRecord | Unreadable]
    size: int | None = None  # bytes; ``None`` if a later load can't resume at its end


def load_together(
    con: Connection, parts: Sequence[FilePart], within: Within = committed
) -> list[Loaded] | None:
    """Load several small files in one transaction.

    Return ``None`` and keep nothing if a field is new, which no field of a source's first file is,
    two files are equal, one was loaded before, or bad records would fill the memory: then each has
    to be loaded by itself.
    """
    first, digests = parts[0].origin, [part.origin.digest for part in parts]
    if len({*digests}) < len(digests) or not _are_later_files(con, first, digests):
        return None
    numbered = _NumberedFiles(parts)
    batches = record_batches.batches_of_records(numbered.records())
    with (
        suppress(_SeparateError),
        load_file.begun(con, first.now, batches, within) as validated,
    ):
        stored = writer.store_batches(con, first, map(numbered.attribute, validated), digests)
        if load_file.new_fields(con, first):
            raise _SeparateError
        of_files = zip(parts, numbered.tallies, _new_rows(con, numbered, stored), strict=True)
        loaded = [_outcome(con, part.origin, tally, new) for part, tally, new in of_files]
        records = [
            load_file.file_record(part.origin, each.new + each.known, part.size, each.quarantined)
            for part, each in zip(parts, loaded, strict=True)
        ]
        warehouse.insert(con, "raw.files", records)
        return [replace(loaded[0], merged=stored.merged), *loaded[1:]]
    return None


def _outcome(con: Connection, origin: RecordOrigin, tally: "_FileTally", new: int) -> Loaded:
    """Return what came of a file, and write to quarantine what was refused of it."""
    known = tally.records - len(tally.refused) - new
    loaded = Loaded(Path(origin.path), new, known, 0, skipped=False, source=origin.source)
    if not tally.refused:
        return loaded
    quarantined = writer.store_quarantined(con, origin, tally.refused)
    return replace(loaded, quarantined=quarantined, reasons=quarantine.read(con, origin))


class _SeparateError(Exception):
    """Undoes a transaction of several files."""


@dataclass(slots=True)
class _FileTally:
    """A file's records, those that were refused, and how many no row of the warehouse equals."""

    records: int
    refused: list[Unreadable]
    fresh: int = 0


class _NumberedFiles:
    """Numbers the lines of several files across them, and finds the file of each."""

    def __init__(self, parts: Sequence[FilePart]) -> None:
        self.parts = parts
        self.tallies = [_FileTally(0, []) for _ in parts]
        self._digests = arrow.texts(part.origin.digest for part in parts)
        self._ends = list[int]()  # the last line of each file but those that are not read yet
        self._refused_bytes = 0

    def records(self) -> Iterator[SourceRecord | Unreadable]:
        before = 0
        for part, tally in zip(self.parts, self.tallies, strict=True):
            last = before
            for record in part.records:
                tally.records += 1
                moved = _moved(record, before)
                last = max(last, moved.number if isinstance(moved, Unreadable) else moved.row.place)
                yield moved
            before = last
            self._ends.append(last)

    def attribute(self, batch: ValidatedBatch) -> ValidatedBatch:
        """Name each row's file, number its line within that, and keep what was refused by file."""
        # A file that is still being read has lines after those ends.
        ends = np.array([0, *self._ends])
        for refused in batch.refused:
            file = int(np.searchsorted(ends[1:], refused.number))
            number = refused.number - int(ends[file])
            self.tallies[file].refused.append(replace(refused, number=number))
            self._refused_bytes += len(refused.content)
        if self._refused_bytes > MAX_REFUSED:
            raise _SeparateError
        batch = replace(batch, refused=())
        rows: Any = batch.rows
        if rows is None:
            return batch
        lines = np.asarray(rows.column("line"))
        files = np.searchsorted(ends[1:], lines)
        for file in files[np.asarray(rows.column("is_fresh"))].tolist():
            self.tallies[file].fresh += 1
        at = rows.column_names.index("line")
        rows = rows.set_column(at, "line", pa.array(lines - ends[files]))
        return replace(batch, rows=rows.append_column("file_digest", self._digests.take(files)))


def _moved(record: SourceRecord | Unreadable, by: int) -> SourceRecord | Unreadable:
    if isinstance(record, Unreadable):
        return replace(record, number=record.number + by)
    return replace(record, row=replace(record.row, place=record.row.place + by))


def _new_rows(con: Connection, numbered: _NumberedFiles, stored: Stored) -> list[int]:
    """Return how many rows each file has that were kept."""
    fresh = [tally.fresh for tally in numbered.tallies]
    if sum(fresh) == stored.new:
        return fresh
    # Some are known in other words.
    digests = [part.origin.digest for part in numbered.parts]
    sql = (
        "select file_digest from raw.interactions where list_contains($digests, file_digest)"
        " union all"
        " select file_digest from raw.feedback where list_contains($digests, file_digest)"
    )
    kept = Counter(digest for (digest,) in con.execute(sql, {"digests": digests}).fetchall())
    return [kept[digest] for digest in digests]


def _are_later_files(con: Connection, first: RecordOrigin, digests: Sequence[str]) -> bool:
    """Return whether the source has an earlier file and no file was loaded before."""
    sql = (
        "select coalesce(not bool_or(workload_id = $workload_id and client_id = $client_id"
        " and digest in (select unnest($digests))), false) from raw.files where source = $source"
    )
    parameters = {"digests": digests, "source": first.source, **asdict(first.defaults)}
    return bool(con.execute(sql, parameters).fetchall()[0][0])
