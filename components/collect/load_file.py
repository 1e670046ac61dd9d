"""Load one file: detect its source, and store its records in one transaction."""

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
    """How many rows of a file were new, known from before, or unreadable.

    ``skipped``: a file of equal content was loaded before, so this one was not read again; its
    rows count as ``known``. ``new_fields`` are those that no earlier file of its source had shown.
    ``merged`` counts the interactions that were known and to which the file added metadata.
    ``reasons`` explain the quarantined lines, the most frequent reason first.
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


SHOWN = 3


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would come of a file: its form, the counts, and its first records as JSON."""

    form: Form
    loaded: Loaded
    shown: list[str]


def load(con: Connection, given: Input, *, now: datetime) -> Loaded:
    """Load a file unless one of equal content was loaded before, by the same source.

    Raises:
        OSError: The file can't be opened.
        UnknownSourceError: It names a source that does not exist.
    """
    with files.local_copy(given.place) as path:
        return load_copy(con, given, path, now=now)


def load_copy(con: Connection, given: Input, path: Path, *, now: datetime) -> Loaded:
    """Load what was fetched from ``given.place`` to ``path``, like ``load``."""
    with _opened(con, given, path, now) as opened:
        return _load(con, opened)


def dry_run(con: Connection, given: Input, *, now: datetime) -> DryRun:
    """Load a file and undo it: tell what would come of it, and show its first records.

    Raises:
        OSError: The file can't be opened.
        UnknownSourceError: It names a source that does not exist.
    """
    with files.local_copy(given.place) as path:
        return dry_run_copy(con, given, path, now=now)


def dry_run_copy(con: Connection, given: Input, path: Path, *, now: datetime) -> DryRun:
    """Rehearse the load of what was fetched from ``given.place`` to ``path``, like ``rehearse``."""
    with _opened(con, given, path, now) as opened:
        found = islice(opened.records(), SHOWN)
        shown = [one.record if isinstance(one, ParsedRecord) else _as_json(one) for one in found]
        loaded = _load(con, opened, within=warehouse.rehearsal)
        written = [json.dumps(one, ensure_ascii=False) for one in shown]
        return DryRun(opened.form, loaded, written)


def load_records(
    con: Connection,
    origin: RecordOrigin,
    records: Iterable[ParsedRecord | RejectedRecord | Unreadable],
) -> Loaded:
    """Load records that were read elsewhere as one file of the origin's digest."""
    return _load(con, _Read(origin, records))


def source_of(given: Input, path: Path, form: Form) -> Source:
    """Give the source that is named, else the one that claims the first records."""
    if given.source is not None:
        return files.source_named(given.source)
    looked_at = files.first_rows(path, form, files.SAMPLED_ROWS)
    found = files.detect_source(row.value for row in looked_at)
    return found or (feedback if given.kind == "feedback" else fivekey)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file of which is known what it holds; what is new in it is found out meanwhile.

    ``is_unknown``: it is probably all new, so that reading it need not wait for that.
    """

    path: Path
    given: Input
    form: Form
    source: Source
    now: datetime
    is_unknown: bool
    measuring: Future[FileProgress]

    @property
    def growth(self) -> FileProgress:
        """Wait until it is known where what is new begins."""
        return self.measuring.result()

    @property
    def origin(self) -> RecordOrigin:
        """Wait for the digest."""
        place, defaults = self.given.place, self.given.defaults
        return RecordOrigin(place, self.growth.digest, self.source.NAME, defaults, self.now)

    def records(self) -> Iterator[ParsedRecord | RejectedRecord | Unreadable]:
        """Go through what the source makes of the new part of the file."""
        unreadable: list[Unreadable] = []
        pieces = files.read_pieces(self.path, self.form, self._start)
        for found in self.source.read(files.read_rows(pieces, unreadable), self.given.defaults):
            yield found
            yield from unreadable
            unreadable.clear()
        yield from unreadable

    def batches(self) -> Iterator[Batch]:
        """Take the short way where the lines are the records."""
        kind = files.CANONICAL.get(self.source.NAME)
        if self.form == "lines" and self.given.defaults == NO_DEFAULTS and kind is not None:
            return record_batches.batches_of_lines(kind, self.path, self._start)
        return record_batches.batches_of_records(self.records())

    @property
    def _start(self) -> LineStart:
        return BEGINNING if self.is_unknown else self.growth.start


@dataclass(frozen=True, slots=True)
class _Read:
    """Records that were read elsewhere, as one file of the origin's digest."""

    origin: RecordOrigin
    records: Iterable[ParsedRecord | RejectedRecord | Unreadable]
    is_unknown: bool = False

    @property
    def now(self) -> datetime:
        """Say when they came."""
        return self.origin.now

    @property
    def growth(self) -> FileProgress:
        """They don't grow."""
        return FileProgress(self.origin.digest)

    def batches(self) -> Iterator[Batch]:
        """Make batches of them."""
        return record_batches.batches_of_records(self.records)


@contextmanager
def _opened(con: Connection, given: Input, path: Path, now: datetime) -> Generator[_Opened]:
    size = path.stat().st_size
    form = files.detect_form(path)
    source = source_of(given, path, form)
    can_grow = growth.can_grow(path, form, source.NAME)
    before = (
        growth.previous_load(con, given.place, source.NAME, given.defaults) if can_grow else None
    )
    is_unknown = growth.probably_new(con, given.place, size)
    new = size - before.size if before else size
    with ThreadPoolExecutor(max_workers=1) as thread, writer.bulk_load(con, new):
        measuring = thread.submit(growth.measure_progress, path, size, before, can_grow=can_grow)
        yield _Opened(path, given, form, source, now, is_unknown, measuring)


def _as_json(refused: RejectedRecord | Unreadable) -> Json:
    return {"quarantined": refused.reason}


def _load(
    con: Connection,
    found: _Opened | _Read,
    within: Callable[[Connection], AbstractContextManager[None]] = warehouse.transaction,
) -> Loaded:
    """Load what was found; of what is probably new, batches are judged while it is hashed."""
    if not found.is_unknown and (known := _known(con, found.origin)) is not None:
        return known
    with (
        within(con),
        record_batches.open_validator(con) as judge,
        writer.validated(judge, found.now, found.batches()) as judged,
    ):
        origin = found.origin
        if found.is_unknown and (known := _known(con, origin)) is not None:
            return known
        return _store(con, origin, found.growth, judged)


def _store(
    con: Connection, origin: RecordOrigin, grown: FileProgress, judged: Iterator[ValidatedBatch]
) -> Loaded:
    growth.drop_partial_line(con, origin.source, grown)
    # Lines of the same file that were refused under other defaults are judged anew.
    con.execute(
        "delete from raw.quarantine where file_digest = $digest and source = $source",
        {"digest": origin.digest, "source": origin.source},
    )
    stored = writer.store_batches(con, origin, judged)
    new_fields = _new_fields(con, origin)
    record = {
        "source": origin.source,
        "digest": origin.digest,
        "workload_id": origin.defaults.workload_id,
        "client_id": origin.defaults.client_id,
        "path": origin.path,
        "rows": grown.rows_before + stored.new + stored.known,
        "size": grown.size,
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


def last_load(con: Connection, given: Input) -> datetime | None:
    """Tell when anything new was last loaded from a place whose source is named."""
    values = {
        "path": given.place,
        "source_name": given.source,
        "workload_id": given.defaults.workload_id,
        "client_id": given.defaults.client_id,
    }
    (last,) = warehouse.read(con, "marts/last_load", _Last, **values)
    return last.loaded_at


@dataclass(frozen=True, slots=True)
class _Last:
    loaded_at: datetime | None


def _known(con: Connection, origin: RecordOrigin) -> Loaded | None:
    """Say what came of it if it was loaded before."""
    found = con.execute(
        "select rows from raw.files where digest = $digest and source = $source"
        " and workload_id = $workload_id and client_id = $client_id",
        {
            "digest": origin.digest,
            "source": origin.source,
            "workload_id": origin.defaults.workload_id,
            "client_id": origin.defaults.client_id,
        },
    ).fetchall()
    if not found:
        return None
    return Loaded(Path(origin.path), 0, int(found[0][0]), 0, skipped=True, source=origin.source)


def _new_fields(con: Connection, origin: RecordOrigin) -> tuple[str, ...]:
    found = con.execute(
        "select field from raw.fields where source = $source and first_path = $path"
        " and first_seen_at = $now and is_new order by field",
        {"source": origin.source, "path": origin.path, "now": origin.now},
    ).fetchall()
    return tuple(field for (field,) in found)
