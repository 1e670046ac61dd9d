"""Load one file: detect its source, then store its records in one transaction."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from components.collect import files, growth, quarantine, record_batches, writer
from components.collect.files import Form
from components.collect.growth import FileProgress
from components.collect.lines import BEGINNING, LineStart, Unreadable
from components.collect.quarantine import QuarantineReason
from components.collect.record_batches import Batch, RecordOrigin, ValidatedBatch
from components.collect.source import NO_DEFAULTS, Input, ParsedRecord, RejectedRecord, Source
from components.collect.sources import feedback, fivekey
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows of a file were new, already known, or unreadable.

    ``skipped``: a file with the same content was loaded before, so this one was not read; its
    rows count as ``known``. ``new_fields`` were in no earlier file of the source. ``merged`` counts
    known interactions to which the file added metadata. ``reasons`` explain the quarantined lines,
    the most frequent reason first.
    """

    path: Path
    new: int
    known: int
    quarantined: int
    skipped: bool
    source: str = ""
    new_fields: tuple[str, ...] = ()
    merged: int = 0
    reasons: tuple[QuarantineReason, ...] = ()


SAMPLES = 3


@dataclass(frozen=True, slots=True)
class DryRun:
    """The expected outcome of loading a file: its form, the counts, its first records as JSON."""

    form: Form
    loaded: Loaded
    samples: list[str]


def load(con: Connection, input_file: Input, *, now: datetime) -> Loaded:
    """Load a file, unless the same source loaded a file with the same content before.

    Raises:
        OSError: The file can't be opened.
        UnknownSourceError: Its ``source`` does not exist.
    """
    with files.local_copy(input_file.place) as path:
        return load_copy(con, input_file, path, now=now)


def load_copy(con: Connection, input_file: Input, path: Path, *, now: datetime) -> Loaded:
    """Do as ``load``, with ``path`` as the local copy of ``input_file.place``."""
    with _opened(con, input_file, path, now) as opened:
        return _load(con, opened)


def dry_run(con: Connection, input_file: Input, *, now: datetime) -> DryRun:
    """Load a file, roll the load back, and return its outcome and the first records.

    Raises:
        OSError: The file can't be opened.
        UnknownSourceError: Its ``source`` does not exist.
    """
    with files.local_copy(input_file.place) as path:
        return dry_run_copy(con, input_file, path, now=now)


def dry_run_copy(con: Connection, input_file: Input, path: Path, *, now: datetime) -> DryRun:
    """Do as ``dry_run``, with ``path`` as the local copy of ``input_file.place``."""
    with _opened(con, input_file, path, now) as opened:
        samples = [_sample(record) for record in islice(opened.records(), SAMPLES)]
        loaded = _load(con, opened, within=warehouse.rehearsal)
        return DryRun(opened.form, loaded, samples)


def load_records(
    con: Connection,
    origin: RecordOrigin,
    records: Iterable[ParsedRecord | RejectedRecord | Unreadable],
) -> Loaded:
    """Load records as one file with the origin's digest."""
    return _load(con, _Read(origin, records))


def source_of(input_file: Input, path: Path, form: Form) -> Source:
    """Return the named source, else the one that claims the first records.

    Raises:
        UnknownSourceError: No source has the name.
    """
    if input_file.source is not None:
        return files.source_named(input_file.source)
    rows = files.first_rows(path, form, files.SAMPLED_ROWS)
    detected = files.detect_source(row.value for row in rows)
    return detected or (feedback if input_file.kind == "feedback" else fivekey)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file with its form and source; a thread hashes it to find its new part.

    ``probably_new``: the whole file is probably new, so reading it need not wait for the hash.
    """

    path: Path
    input_file: Input
    form: Form
    source: Source
    now: datetime
    probably_new: bool
    growth_future: Future[FileProgress]

    @property
    def growth(self) -> FileProgress:
        """Wait for the hash; return the digest and the start of the new part."""
        return self.growth_future.result()

    @property
    def origin(self) -> RecordOrigin:
        """Wait for the hash; return the origin of the file's records."""
        place, defaults = self.input_file.place, self.input_file.defaults
        return RecordOrigin(place, self.growth.digest, self.source.NAME, defaults, self.now)

    def records(self) -> Iterator[ParsedRecord | RejectedRecord | Unreadable]:
        """Yield the source's records of the new part of the file."""
        unreadable: list[Unreadable] = []
        pieces = files.read_pieces(self.path, self.form, self._start)
        rows = files.read_rows(pieces, unreadable)
        for record in self.source.read(rows, self.input_file.defaults):
            yield record
            yield from unreadable
            unreadable.clear()
        yield from unreadable

    def batches(self) -> Iterator[Batch]:
        """Yield batches; lines that already are canonical records are not parsed in Python."""
        kind = files.CANONICAL.get(self.source.NAME)
        if self.form == "lines" and self.input_file.defaults == NO_DEFAULTS and kind is not None:
            return record_batches.batches_of_lines(kind, self.path, self._start)
        return record_batches.batches_of_records(self.records())

    @property
    def _start(self) -> LineStart:
        return BEGINNING if self.probably_new else self.growth.start


@dataclass(frozen=True, slots=True)
class _Read:
    """Records that stand for one file with the origin's digest."""

    origin: RecordOrigin
    records: Iterable[ParsedRecord | RejectedRecord | Unreadable]
    probably_new: bool = False

    @property
    def now(self) -> datetime:
        """Return the time of the load."""
        return self.origin.now

    @property
    def growth(self) -> FileProgress:
        """Return the origin's digest; such records can't be resumed."""
        return FileProgress(self.origin.digest)

    def batches(self) -> Iterator[Batch]:
        """Yield the records in batches."""
        return record_batches.batches_of_records(self.records)


@contextmanager
def _opened(con: Connection, input_file: Input, path: Path, now: datetime) -> Generator[_Opened]:
    size = path.stat().st_size
    form = files.detect_form(path)
    source = source_of(input_file, path, form)
    can_grow = growth.can_grow(path, form, source.NAME)
    before = (
        growth.previous_load(con, input_file.place, source.NAME, input_file.defaults)
        if can_grow
        else None
    )
    probably_new = growth.probably_new(con, input_file.place, size)
    new = size - before.size if before else size
    with ThreadPoolExecutor(max_workers=1) as thread, writer.bulk_load(con, new):
        growth_future = thread.submit(
            growth.measure_progress, path, size, before, can_grow=can_grow
        )
        yield _Opened(path, input_file, form, source, now, probably_new, growth_future)


def _sample(record: ParsedRecord | RejectedRecord | Unreadable) -> str:
    is_parsed = isinstance(record, ParsedRecord)
    value: Json = record.record if is_parsed else {"quarantined": record.reason}
    return json.dumps(value, ensure_ascii=False)


def _load(
    con: Connection,
    opened: _Opened | _Read,
    within: Callable[[Connection], AbstractContextManager[None]] = warehouse.transaction,
) -> Loaded:
    # Batches of a file that is probably new are validated while it is hashed.
    if not opened.probably_new and (known := _known(con, opened.origin)) is not None:
        return known
    with (
        within(con),
        record_batches.open_validator(con) as validator,
        writer.validated(validator, opened.now, opened.batches()) as batches,
    ):
        origin = opened.origin
        if opened.probably_new and (known := _known(con, origin)) is not None:
            return known
        return _store(con, origin, opened.growth, batches)


def _store(
    con: Connection, origin: RecordOrigin, progress: FileProgress, batches: Iterator[ValidatedBatch]
) -> Loaded:
    growth.drop_partial_line(con, origin.source, progress)
    # Lines of the same file that were refused under other defaults are validated again.
    con.execute(
        "delete from raw.quarantine where file_digest = $digest and source = $source",
        {"digest": origin.digest, "source": origin.source},
    )
    stored = writer.store_batches(con, origin, batches)
    new_fields = _new_fields(con, origin)
    record = {
        "source": origin.source,
        "digest": origin.digest,
        "workload_id": origin.defaults.workload_id,
        "client_id": origin.defaults.client_id,
        "path": origin.path,
        "rows": progress.rows_before + stored.new + stored.known,
        "size": progress.size,
        "quarantined": stored.quarantined,
        "loaded_at": origin.now,
    }
    warehouse.insert(con, "raw.files", [record])
    return Loaded(
        Path(origin.path),
        stored.new,
        stored.known,
        stored.quarantined,
        skipped=False,
        source=origin.source,
        new_fields=new_fields,
        merged=stored.merged,
        reasons=_reasons(con, origin) if stored.quarantined else (),
    )


def _reasons(con: Connection, origin: RecordOrigin) -> tuple[QuarantineReason, ...]:
    return quarantine.read(con, digest=origin.digest, source=origin.source, now=origin.now)


def last_load(con: Connection, input_file: Input) -> datetime | None:
    """Return when new rows were last loaded from a place with a named source; ``None`` if never."""
    values = {
        "path": input_file.place,
        "source_name": input_file.source,
        "workload_id": input_file.defaults.workload_id,
        "client_id": input_file.defaults.client_id,
    }
    (last,) = warehouse.read(con, "marts/last_load", _LastLoad, **values)
    return last.loaded_at


@dataclass(frozen=True, slots=True)
class _LastLoad:
    loaded_at: datetime | None


def _known(con: Connection, origin: RecordOrigin) -> Loaded | None:
    loads = con.execute(
        "select rows from raw.files where digest = $digest and source = $source"
        " and workload_id = $workload_id and client_id = $client_id",
        {
            "digest": origin.digest,
            "source": origin.source,
            "workload_id": origin.defaults.workload_id,
            "client_id": origin.defaults.client_id,
        },
    ).fetchall()
    if not loads:
        return None
    return Loaded(Path(origin.path), 0, int(loads[0][0]), 0, skipped=True, source=origin.source)


def _new_fields(con: Connection, origin: RecordOrigin) -> tuple[str, ...]:
    rows = con.execute(
        "select field from raw.fields where source = $source and first_path = $path"
        " and first_seen_at = $now and is_new order by field",
        {"source": origin.source, "path": origin.path, "now": origin.now},
    ).fetchall()
    return tuple(field for (field,) in rows)
