"""Load small files: those that are known cost a look, and new ones share a transaction.

What is kept of each is as if it were alone, at a tenth of the time.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.collect import (
    files,
    growth,
    importers,
    load_file,
    quarantine,
    record_batches,
    writer,
)
from components.collect.lines import Unreadable
from components.collect.load_file import Loaded
from components.collect.record_batches import RecordOrigin, ValidatedBatch
from components.collect.source import Defaults, Input, Source, SourceRecord
from components.collect.writer import MAX_REFUSED, Stored, Within, committed
from components.store import arrow, warehouse
from components.store.warehouse import Connection

SMALL_BYTES = 64 * 2**10  # a larger file is worth a transaction of its own
TOGETHER_BYTES = 4 * 2**20
TOGETHER_FILES = 256

Alone = Callable[[Input], Loaded | OSError]
"""Loads a file by itself; returns why it can't be read."""


def groups(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Yield consecutive local files: small ones in groups, each other one by itself."""
    group, size = list[Input](), 0
    for item in inputs:
        bytes_of_item = _size(Path(item.place))
        is_small = bytes_of_item <= SMALL_BYTES
        is_full = len(group) == TOGETHER_FILES or size + bytes_of_item > TOGETHER_BYTES
        if group and (is_full or not is_small):
            yield group
            group, size = [], 0
        if is_small:
            group.append(item)
            size += bytes_of_item
        else:
            yield [item]
    if group:
        yield group


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever loads it finds out why
        return SMALL_BYTES + 1


def load(
    con: Connection,
    inputs: Sequence[Input],
    alone: Alone,
    *,
    now: datetime,
    within: Within = committed,
) -> list[Loaded | OSError]:
    """Load small local files in their order; a changed one, say, is loaded ``alone``."""
    results = list[Loaded | OSError]()
    waiting = list[_NewFile]()

    def load_waiting() -> None:
        results.extend(_load_halves(con, waiting, alone, now, within))
        waiting.clear()

    contents = [_read(Path(item.place)) for item in inputs]
    earlier = _EarlierLoads(con, inputs, contents)
    for item, content in zip(inputs, contents, strict=True):
        known = earlier.find(item, content)
        new = None if known else _new_file(item, content)
        if new is not None and earlier.is_changed(item, content):
            known, new = earlier.find_same(new), None
        if waiting and (new is None or not new.fits(waiting[0])):
            load_waiting()
        if new is not None:
            waiting.append(new)
        else:
            results.append(known or alone(item))
    load_waiting()
    return results


@dataclass(frozen=True, slots=True)
class _Content:
    digest: str
    size: int


def _read(path: Path) -> _Content | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return _Content(hashlib.sha256(content).hexdigest(), len(content))


class _EarlierLoads:
    """What the warehouse knows of files, by one look."""

    def __init__(
        self, con: Connection, inputs: Sequence[Input], contents: Sequence[_Content | None]
    ) -> None:
        rows = con.execute(
            "select path, digest, source, workload_id, client_id, rows, quarantined from raw.files"
            " where digest in (select unnest($digests)) or path in (select unnest($paths))",
            {
                "digests": [content.digest for content in contents if content],
                "paths": [item.stored_place for item in inputs],
            },
        ).fetchall()
        self._paths = {path for path, *_ in rows}
        self._digests = {digest for _, digest, *_ in rows}
        # A file with lines in quarantine may have been taken for one of another source.
        self._counts: dict[tuple[str, Defaults, str], int] = {}
        self._whole: set[tuple[str, Defaults, str]] = set()
        for _, digest, source, workload_id, client_id, count, quarantined in rows:
            load = digest, Defaults(workload_id, client_id), source
            self._counts[load] = count
            if count and quarantined == 0:
                self._whole.add(load)

    def find(self, item: Input, content: _Content | None) -> Loaded | None:
        """Return the outcome for a file that was loaded whole before."""
        if content is None:
            return None
        # Records that no source claims are of the kind that the place is for.
        others = {name for name, kind in files.CANONICAL.items() if kind != item.kind}
        names = [item.source] if item.source else [*importers.MODULES.keys() - others]
        loads = ((content.digest, item.defaults, name) for name in names)
        return next((self._skipped(item, load) for load in loads if load in self._whole), None)

    def find_same(self, file: "_NewFile") -> Loaded | None:
        """Return the outcome for a file that was loaded before, from the same source."""
        load = file.content.digest, file.item.defaults, file.source.NAME
        return self._skipped(file.item, load) if load in self._counts else None

    def _skipped(self, item: Input, load: tuple[str, Defaults, str]) -> Loaded:
        count, source = self._counts[load], load[-1]
        return Loaded(Path(item.stored_place), 0, count, 0, skipped=True, source=source)

    def is_changed(self, item: Input, content: _Content | None) -> bool:
        """Return whether a file's path or content was loaded before, if not just so."""
        return (
            content is None or item.stored_place in self._paths or content.digest in self._digests
        )


@dataclass(frozen=True, slots=True)
class FilePart:
    """A small file to load together with others of its source and defaults."""

    origin: RecordOrigin
    records: Iterable[SourceRecord | Unreadable]
    size: int | None = None  # bytes; ``None`` if a later load can't resume at its end


@dataclass(frozen=True, slots=True)
class _NewFile:
    item: Input
    content: _Content
    form: files.Form
    source: Source

    def fits(self, other: "_NewFile") -> bool:
        """Return whether one transaction can load both."""
        return (self.source, self.item.defaults) == (other.source, other.item.defaults)

    def part(self, now: datetime) -> FilePart:
        source, path = self.source.NAME, Path(self.item.place)
        place, defaults = self.item.stored_place, self.item.defaults
        origin = RecordOrigin(place, self.content.digest, source, defaults, now)
        can_grow = growth.can_grow(path, self.form, source)
        return FilePart(origin, self._records(), self.content.size if can_grow else None)

    def _records(self) -> Iterator[SourceRecord | Unreadable]:
        pieces = files.read_pieces(Path(self.item.place), self.form)
        kind = load_file.canonical_kind(self.source, self.form, self.item.defaults)
        if kind is not None:
            return record_batches.canonical_records(kind, pieces)
        return files.read_records(self.source, pieces, self.item.defaults)


def _new_file(item: Input, content: _Content | None) -> _NewFile | None:
    path = Path(item.place)
    try:
        form = files.detect_form(path)
        source = load_file.source_of(item, path, form)
    except OSError:
        return None
    return None if content is None else _NewFile(item, content, form, source)


def _load_halves(
    con: Connection, new: Sequence[_NewFile], alone: Alone, now: datetime, within: Within
) -> list[Loaded | OSError]:
    """Load files together; if that fails, each half, down to the files that must be alone."""
    if len(new) < 2:
        return [alone(file.item) for file in new]
    try:
        loaded = load_together(con, [file.part(now) for file in new], within)
    except (FileNotFoundError, PermissionError):
        loaded = None
    if loaded is not None:
        return [*loaded]
    half = len(new) // 2
    return [
        *_load_halves(con, new[:half], alone, now, within),
        *_load_halves(con, new[half:], alone, now, within),
    ]


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
    sql = (
        "select coalesce(not bool_or(workload_id = $workload_id and client_id = $client_id"
        " and digest in (select unnest($digests))), false) from raw.files where source = $source"
    )
    parameters = {"digests": digests, "source": first.source, **asdict(first.defaults)}
    return bool(con.execute(sql, parameters).fetchall()[0][0])
