"""Load one file: detect its source, then store its records in one transaction."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import cast

from components.collect import files, growth, quarantine, record_batches, writer
from components.collect.files import Form
from components.collect.growth import FileProgress
from components.collect.lines import BEGINNING, LineStart, Unreadable
from components.collect.quarantine import QuarantineReason
from components.collect.record_batches import Batch, RecordOrigin, ValidatedBatch
from components.collect.source import (
    NO_DEFAULTS,
    Defaults,
    Input,
    Kind,
    ParsedRecord,
    Source,
    SourceRecord,
)
from components.collect.sources import feedback, fivekey
from components.collect.writer import Within, committed
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection

SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows of a file were new, already known, or unreadable."""

    path: Path
    new: int
    known: int
    quarantined: int
    skipped: bool  # a file with this content was loaded before; its rows count as ``known``
    source: str = ""
    new_fields: tuple[str, ...] = ()  # in no earlier file of the source
    merged: int = 0  # known interactions to which the file added metadata
    reasons: tuple[QuarantineReason, ...] = ()  # of quarantined lines, the most frequent first
    waiting: int = 0  # model calls whose span or log records may still come
    form: str = ""  # of a dry run, as are the first records as JSON
    samples: tuple[str, ...] = ()


def load(
    con: Connection,
    input_file: Input,
    copy: Path,
    *,
    now: datetime,
    within: Within = committed,
    with_samples: bool = False,
) -> Loaded:
    """Load a file from its local copy, unless the source loaded the same content before.

    Raise ``UnknownSourceError`` if its ``source`` does not exist.
    """
    with _opened(con, input_file, copy, now) as opened:
        loaded = _load(con, opened, within)
        return _sampled(loaded, opened.form, opened.records()) if with_samples else loaded


def sampled(loaded: Loaded, input_file: Input, copy: Path) -> Loaded:
    """Return the outcome of a load with the file's form and first records, unless it has them."""
    if loaded.form:
        return loaded
    form, source = files.detect_form(copy), files.source_named(loaded.source)
    pieces = files.read_pieces(copy, form)
    return _sampled(loaded, form, files.read_records(source, pieces, input_file.defaults))


def load_records(
    con: Connection,
    origin: RecordOrigin,
    records: Iterable[SourceRecord | Unreadable],
    finish: Callable[[Connection], None] | None = None,
) -> Loaded:
    """Load records as one file with the origin's digest; ``finish`` is in the same transaction."""
    if (known := _known(con, origin)) is not None:
        return known
    batches = record_batches.batches_of_records(records)
    with begun(con, origin.now, batches) as validated:
        loaded = _store(con, origin, FileProgress(origin.digest), validated)
        if finish is not None:
            finish(con)
        return loaded


def source_of(input_file: Input, path: Path, form: Form) -> Source:
    """Return the named source, else the one that claims the first records."""
    if input_file.source is not None:
        return files.source_named(input_file.source)
    rows = files.first_rows(path, form)
    detected = files.detect_source(row.value for row in rows)
    return detected or (feedback if input_file.kind == "feedback" else fivekey)


def canonical_kind(source: Source, form: Form, defaults: Defaults) -> Kind | None:
    """Return the kind of a file whose lines already are canonical records; else ``None``."""
    is_canonical = form == "lines" and defaults == NO_DEFAULTS
    return files.CANONICAL.get(source.NAME) if is_canonical else None


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file with its form and source; a thread hashes it to find its new part."""

    path: Path
    input_file: Input
    form: Form
    source: Source
    now: datetime
    probably_new: bool  # so that reading it need not wait for the hash
    growth_future: Future[FileProgress]

    @property
    def growth(self) -> FileProgress:
        """Wait for the hash; return the digest and the start of the new part."""
        return self.growth_future.result()

    @property
    def origin(self) -> RecordOrigin:
        """Wait for the hash; return the origin of the file's records."""
        place, defaults = self.input_file.stored_place, self.input_file.defaults
        return RecordOrigin(place, self.growth.digest, self.source.NAME, defaults, self.now)

    def records(self) -> Iterator[SourceRecord | Unreadable]:
        pieces = files.read_pieces(self.path, self.form, self._start)
        return files.read_records(self.source, pieces, self.input_file.defaults)

    def batches(self) -> Iterator[Batch]:
        """Yield batches; lines that already are canonical records are not parsed in Python."""
        kind = canonical_kind(self.source, self.form, self.input_file.defaults)
        if kind is not None:
            return record_batches.batches_of_lines(kind, self.path, self._start)
        return record_batches.batches_of_records(self.records())

    @property
    def _start(self) -> LineStart:
        return BEGINNING if self.probably_new else self.growth.start


@contextmanager
def _opened(con: Connection, input_file: Input, path: Path, now: datetime) -> Generator[_Opened]:
    size = path.stat().st_size
    form = files.detect_form(path)
    source = source_of(input_file, path, form)
    place, can_grow = input_file.stored_place, growth.can_grow(path, form, source.NAME)
    before = None
    with warehouse.one_state(con):
        if can_grow:
            before = growth.previous_load(con, place, source.NAME, input_file.defaults)
        probably_new = growth.probably_new(con, place, size)
    new = size - before.size if before else size
    with ThreadPoolExecutor(max_workers=1) as thread, writer.bulk_load(con, new):
        hashed = thread.submit(growth.measure_progress, path, size, before, can_grow=can_grow)
        yield _Opened(path, input_file, form, source, now, probably_new, hashed)


def _sampled(loaded: Loaded, form: Form, records: Iterator[SourceRecord | Unreadable]) -> Loaded:
    samples = tuple(_sample(record) for record in islice(records, SAMPLES))
    return replace(loaded, form=form, samples=samples)


def _sample(record: SourceRecord | Unreadable) -> str:
    is_parsed = isinstance(record, ParsedRecord)
    value: Json = record.record if is_parsed else {"quarantined": record.reason}
    return json.dumps(value, ensure_ascii=False)


def _load(con: Connection, opened: _Opened, within: Within = committed) -> Loaded:
    # Batches of a file that is probably new are validated while it is hashed.
    if not opened.probably_new and (known := _known(con, opened.origin)) is not None:
        return known
    with begun(con, opened.now, opened.batches(), within) as batches:
        if opened.probably_new and (known := _known(con, opened.origin)) is not None:
            return known
        return _store(con, opened.origin, opened.growth, batches)


@contextmanager
def begun(
    con: Connection,
    now: datetime,
    batches: Iterable[Batch],
    within: Within = committed,
) -> Generator[Iterator[ValidatedBatch]]:
    """Begin the transaction of a load, and yield its batches as they are validated for it."""
    with (
        within(con),
        record_batches.open_validator(con) as validator,
        writer.validated(validator, now, batches) as validated,
    ):
        yield validated


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
    growth.drop_completed_cuts(con, origin, stored.known)
    earlier = progress.earlier.rows if progress.earlier else 0
    rows = earlier + stored.new + stored.known
    record = file_record(origin, rows, progress.size, stored.quarantined)
    warehouse.insert(con, "raw.files", [record])
    return Loaded(
        Path(origin.path),
        stored.new,
        stored.known,
        stored.quarantined,
        skipped=False,
        source=origin.source,
        new_fields=new_fields(con, origin),
        merged=stored.merged,
        reasons=quarantine.read(con, origin) if stored.quarantined else (),
    )


def file_record(
    origin: RecordOrigin, rows: int, size: int | None, quarantined: int
) -> warehouse.Row:
    """Return what is kept of a loaded file; ``size`` in bytes if a later load resumes there."""
    return {
        "source": origin.source,
        "digest": origin.digest,
        **asdict(origin.defaults),
        "path": origin.path,
        "rows": rows,
        "size": size,
        "quarantined": quarantined,
        "loaded_at": origin.now,
    }


def last_load(con: Connection, input_file: Input) -> datetime | None:
    """Return when new rows were last loaded from a place with a named source; ``None`` if never."""
    place, source = input_file.stored_place, input_file.source
    values = {"path": place, "source_name": source, **asdict(input_file.defaults)}
    (last,) = warehouse.select(con, "marts/last_load", **values)
    return cast("datetime | None", last["loaded_at"])


def _known(con: Connection, origin: RecordOrigin) -> Loaded | None:
    loads = con.execute(
        "select rows from raw.files where digest = $digest and source = $source"
        " and workload_id = $workload_id and client_id = $client_id",
        {"digest": origin.digest, "source": origin.source, **asdict(origin.defaults)},
    ).fetchall()
    if not loads:
        return None
    return Loaded(Path(origin.path), 0, int(loads[0][0]), 0, skipped=True, source=origin.source)


def new_fields(con: Connection, origin: RecordOrigin) -> tuple[str, ...]:
    """Return the fields that a source sent for the first time with a load."""
    rows = con.execute(
        "select field from raw.fields where source = $source and first_path = $path"
        " and first_seen_at = $now and is_new order by field",
        {"source": origin.source, "path": origin.path, "now": origin.now},
    ).fetchall()
    return tuple(field for (field,) in rows)
