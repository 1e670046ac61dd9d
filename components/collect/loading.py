"""Load one file: detect its source, and store what it holds in one transaction."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from components import manifest, warehouse
from components.collect import batch, containers, detect, judging, places, storing
from components.collect.batch import Batch
from components.collect.containers import Form
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
    origin, batches = _opened(given, path, now)
    return _load(con, origin, batches)


def rehearse(con: Connection, given: Input, *, now: datetime) -> Rehearsed:
    """Load a file and undo it: tell what would come of it, and show its first records.

    Raises:
        OSError: The file can't be opened.
        UnknownSourceError: It names a source that does not exist.
    """
    with places.local(given.place) as path:
        form = containers.form(path)
        source = source_of(given, path, form)
        found = islice(records(path, form, source, given.defaults), SHOWN)
        shown = [one.record if isinstance(one, Found) else _said(one) for one in found]
        origin, batches = _opened(given, path, now)
        loaded = _load(con, origin, batches, within=warehouse.rehearsal)
    return Rehearsed(form, loaded, [json.dumps(one, ensure_ascii=False) for one in shown])


def load_records(
    con: Connection, origin: Origin, records: Iterable[Found | Refused | Unreadable]
) -> Loaded:
    """Load records that were read elsewhere as one file of the origin's digest."""
    return _load(con, origin, batch.of_found(records))


def _opened(given: Input, path: Path, now: datetime) -> tuple[Origin, Iterator[Batch]]:
    form = containers.form(path)
    source = source_of(given, path, form)
    digest = manifest.file_digest(path)
    origin = Origin(given.place, digest, source.NAME, given.defaults, now)
    return origin, _batches(path, form, source, given.defaults)


def source_of(given: Input, path: Path, form: Form) -> Source:
    """Give the source that is named, else the one that claims the first records."""
    if given.source is not None:
        return detect.named(given.source)
    looked_at = containers.first(path, form, detect.ROWS_LOOKED_AT)
    found = detect.detect(row.value for row in looked_at)
    return found or (feedback if given.kind == "feedback" else fivekey)


def records(
    path: Path, form: Form, source: Source, defaults: Defaults
) -> Iterator[Found | Refused | Unreadable]:
    """Go through what a source makes of a file."""
    unreadable: list[Unreadable] = []
    for found in source.read(containers.rows(containers.read(path, form), unreadable), defaults):
        yield found
        yield from unreadable
        unreadable.clear()
    yield from unreadable


def _batches(path: Path, form: Form, source: Source, defaults: Defaults) -> Iterator[Batch]:
    """Take the short way where the lines are the records."""
    if form == "lines" and defaults == NO_DEFAULTS and source.NAME in detect.CANONICAL:
        return batch.of_lines(detect.CANONICAL[source.NAME], path)
    return batch.of_found(records(path, form, source, defaults))


def _said(refused: Refused | Unreadable) -> Json:
    return {"quarantined": refused.reason}


def _load(
    con: Connection,
    origin: Origin,
    batches: Iterable[Batch],
    within: Callable[[Connection], AbstractContextManager[None]] = warehouse.transaction,
) -> Loaded:
    path = Path(origin.path)
    if (rows := _loaded_before(con, origin)) is not None:
        return Loaded(path, 0, rows, 0, skipped=True, source=origin.source)
    with within(con), judging.judging(con) as judge:
        stored = storing.store(con, judge, origin, batches)
        new_fields = _new_fields(con, origin)
        record = {
            "source": origin.source,
            "digest": origin.digest,
            "workload_id": origin.defaults.workload_id,
            "client_id": origin.defaults.client_id,
            "path": origin.path,
            "rows": stored.new + stored.known,
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
