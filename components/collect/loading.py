"""Load one file: detect its source, and store what it holds in one transaction."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from components import warehouse
from components.collect import batch, containers, detect, growth, judging, places, storing
from components.collect.batch import Batch
from components.collect.containers import Form
from components.collect.growth import Growth
from components.collect.judging import Origin
from components.collect.lines import Unreadable
from components.collect.loaded import Loaded
from components.collect.record import Defaults, Found, Kind, Refused, Source
from components.collect.sources import feedback, fivekey
from components.schema import Json
from components.warehouse import Connection

NO_DEFAULTS = Defaults("", "")
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Input:
    """A file to load: a path or an fsspec URL.

    ``source`` is detected when it is ``None``; what no source claims is taken for canonical records
    of ``kind``, and quarantined as such.
    """

    place: str
    source: str | None = None
    kind: Kind = "interactions"
    defaults: Defaults = field(default=NO_DEFAULTS)


@dataclass(frozen=True, slots=True)
class Rehearsed:
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
    with places.local(given.place) as path:
        return load_copy(con, given, path, now=now)


def load_copy(con: Connection, given: Input, path: Path, *, now: datetime) -> Loaded:
    """Load what was fetched from ``given.place`` to ``path``, like ``load``."""
    opened = _opened(con, given, path, now)
    return _load(con, opened.origin, opened.batches(), opened.growth)


def rehearse(con: Connection, given: Input, *, now: datetime) -> Rehearsed:
    """Load a file and undo it: tell what would come of it, and show its first records.

    Raises:
        OSError: The file can't be opened.
        UnknownSourceError: It names a source that does not exist.
    """
    with places.local(given.place) as path:
        return rehearse_copy(con, given, path, now=now)


def rehearse_copy(con: Connection, given: Input, path: Path, *, now: datetime) -> Rehearsed:
    """Rehearse the load of what was fetched from ``given.place`` to ``path``, like ``rehearse``."""
    opened = _opened(con, given, path, now)
    found = islice(opened.records(), SHOWN)
    shown = [one.record if isinstance(one, Found) else _said(one) for one in found]
    loaded = _load(con, opened.origin, opened.batches(), opened.growth, within=warehouse.rehearsal)
    return Rehearsed(opened.form, loaded, [json.dumps(one, ensure_ascii=False) for one in shown])


def load_records(
    con: Connection, origin: Origin, records: Iterable[Found | Refused | Unreadable]
) -> Loaded:
    """Load records that were read elsewhere as one file of the origin's digest."""
    return _load(con, origin, batch.of_found(records), Growth(origin.digest))


def source_of(given: Input, path: Path, form: Form) -> Source:
    """Give the source that is named, else the one that claims the first records."""
    if given.source is not None:
        return detect.named(given.source)
    looked_at = containers.first(path, form, detect.ROWS_LOOKED_AT)
    found = detect.detect(row.value for row in looked_at)
    return found or (feedback if given.kind == "feedback" else fivekey)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file of which is known what it holds, and where what is new in it begins."""

    path: Path
    form: Form
    source: Source
    origin: Origin
    growth: Growth

    def records(self) -> Iterator[Found | Refused | Unreadable]:
        """Go through what the source makes of the new part of the file."""
        unreadable: list[Unreadable] = []
        pieces = containers.read(self.path, self.form, self.growth.start)
        for found in self.source.read(containers.rows(pieces, unreadable), self.origin.defaults):
            yield found
            yield from unreadable
            unreadable.clear()
        yield from unreadable

    def batches(self) -> Iterator[Batch]:
        """Take the short way where the lines are the records."""
        kind = detect.CANONICAL.get(self.source.NAME)
        if self.form == "lines" and self.origin.defaults == NO_DEFAULTS and kind is not None:
            return batch.of_lines(kind, self.path, self.growth.start)
        return batch.of_found(self.records())


def _opened(con: Connection, given: Input, path: Path, now: datetime) -> _Opened:
    form = containers.form(path)
    source = source_of(given, path, form)
    grown = growth.measure(con, path, given.place, form, source.NAME, given.defaults)
    origin = Origin(given.place, grown.digest, source.NAME, given.defaults, now)
    return _Opened(path, form, source, origin, grown)


def _said(refused: Refused | Unreadable) -> Json:
    return {"quarantined": refused.reason}


def _load(
    con: Connection,
    origin: Origin,
    batches: Iterable[Batch],
    grown: Growth,
    within: Callable[[Connection], AbstractContextManager[None]] = warehouse.transaction,
) -> Loaded:
    path = Path(origin.path)
    if (rows := _loaded_before(con, origin)) is not None:
        return Loaded(path, 0, rows, 0, skipped=True, source=origin.source)
    with within(con), judging.judging(con) as judge:
        growth.take_back(con, origin.source, grown)
        stored = storing.store(con, judge, origin, batches)
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
        path,
        stored.new,
        stored.known,
        stored.quarantined,
        skipped=False,
        source=origin.source,
        new_fields=new_fields,
    )


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


def _loaded_before(con: Connection, origin: Origin) -> int | None:
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
    return int(found[0][0]) if found else None


def _new_fields(con: Connection, origin: Origin) -> tuple[str, ...]:
    found = con.execute(
        "select field from raw.fields where source = $source and first_path = $path"
        " and first_seen_at = $now and is_new order by field",
        {"source": origin.source, "path": origin.path, "now": origin.now},
    ).fetchall()
    return tuple(field for (field,) in found)
