"""Judge batches of records: what each holds, whether it is new, or why it is refused.

DuckDB does the work on whole batches (``sql/temp``), on connections beside the one that stores
them: so the next batches are judged while the last ones are stored. Most of the work is to find out
what a batch holds: several are read at a time. What is new in it is asked of one after the other.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import warehouse
from components.collect.batch import Batch
from components.collect.lines import Unreadable
from components.collect.record import Defaults, Kind
from components.shown import Table
from components.warehouse import Connection

TOLERANCE = timedelta(days=1)
"""How far ahead of ours the clock of an application may be."""

ROWS_LOOKED_AT = 500
"""Of each batch at least, for fields that its source has not shown before: looking costs a parse.
All of a small one, so a field that only few rows of a long log have may be missed."""

READERS = 2
"""Batches that are read at a time. What stores them takes in a whole row group, then compresses it:
while it waits for the rows, one reader would keep one processor busy."""

READ_TOGETHER = 256
"""Records that are parsed at a time: what becomes of these stays in a processor's cache."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where records come from: a file of that digest, read by a source with its defaults."""

    path: str
    digest: str
    source: str
    defaults: Defaults
    now: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """A batch and what its records say, whether that is new or not.

    ``found`` has a row per record, in their order; it is ``None`` if there is no record.
    """

    batch: Batch
    found: Table | None
    refused: Sequence[Unreadable]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch and what was found in it.

    ``records`` were not refused. ``rows`` has a row per record, with ``content``, ``record`` and
    what the columns of ``raw`` are filled with; those to be stored are ``is_fresh``. It is ``None``
    if none of them is.
    """

    kind: Kind
    records: int
    rows: Table | None
    refused: Sequence[Unreadable]
    fields: frozenset[str]


class Judge:
    """Judges batches for one transaction, whose rows it remembers: nobody sees them before."""

    def __init__(self, beside: Connection, readers: Sequence[Connection]) -> None:
        self._con = beside
        self._readers: SimpleQueue[Connection] = SimpleQueue()
        for reader in readers:
            self._readers.put(reader)
        beside.execute(
            "create temporary table passed"
            " (kind text, id text, timestamp timestamptz, content_hash ubigint)"
        )

    def read(self, now: datetime, batch: Batch) -> Reading:
        """Say what a batch holds that came at that time; threads may ask at the same time."""
        if not batch.rows:
            return Reading(batch, None, batch.unreadable, frozenset())
        con = self._readers.get()
        try:
            return _read(con, now, batch)
        finally:
            self._readers.put(con)

    def judge(self, reading: Reading) -> Judged:
        """Say what of a batch is new: nothing in the batches before, in whose order to ask."""
        batch, found, refused = reading.batch, reading.found, reading.refused
        rows = None if found is None else self._rows(reading, found)
        records = batch.rows - (len(refused) - len(batch.unreadable))
        return Judged(batch.kind, records, rows, refused, reading.fields)

    def _rows(self, reading: Reading, found: Table) -> Table | None:
        is_fresh = self._is_fresh(reading.batch, found)
        if not is_fresh.any():
            return None
        found = found.append_column("is_fresh", pa.array(is_fresh))
        for name in ("content", "record"):
            column = pa.chunked_array([reading.batch.columns[name]])
            found = found.append_column(name, column)
        return found

    def _is_fresh(self, batch: Batch, found: Table) -> NDArray[np.bool_]:
        """Tell of each record whether it is to be stored, and remember those that are."""
        is_fresh = np.zeros(batch.rows, np.bool_)
        times = pc.call_function("min_max", [found.column("timestamp")]).as_py()
        if times["min"] is None:
            return is_fresh
        within = {"earliest": times["min"], "latest": times["max"]}
        with warehouse.present(self._con, "found", found):
            fresh = warehouse.table(self._con, f"temp/fresh_{batch.kind}", **within)
        with warehouse.present(self._con, "fresh", fresh):
            remember = (
                "insert into temp.passed by name"
                " select $kind as kind, fresh.* exclude (ordinal) from fresh"
            )
            self._con.execute(remember, {"kind": batch.kind})
        is_fresh[np.asarray(fresh.column("ordinal")) - 1] = True
        return is_fresh


@contextmanager
def judging(con: Connection) -> Generator[Judge]:
    """Give a judge for a transaction of ``con`` that is about to begin or has just begun."""
    with ExitStack() as open_ones:
        beside, *readers = (
            open_ones.enter_context(warehouse.beside(con)) for _ in range(1 + READERS)
        )
        yield Judge(beside, readers)


def _read(con: Connection, now: datetime, batch: Batch) -> Reading:
    latest_seconds = (now + TOLERANCE).timestamp()
    with warehouse.present(con, "lines", batch.columns, READ_TOGETHER):
        found = warehouse.table(con, f"temp/{batch.kind}", latest_seconds=latest_seconds)
        step = max(1, batch.rows // ROWS_LOOKED_AT)
        shapes = warehouse.select(con, "temp/shapes", step=step)
        if batch.kind == "interactions":
            found = found.append_column("objection", _objections(con, batch, found, latest_seconds))
    refused = _refused(batch, found)
    return Reading(batch, found, [*refused, *batch.unreadable], _fields(shapes))


def _objections(con: Connection, batch: Batch, found: Table, latest_seconds: float) -> object:
    """Give a column of what there is to object to each interaction, null where nothing is."""
    is_plain = np.asarray(found.column("is_plain"))
    if is_plain.all():
        return pa.nulls(len(is_plain), pa.string())
    odd = np.flatnonzero(~is_plain).tolist()
    # Handed over as plain strings: DuckDB 1.5 has Arrow filter what it reads, and Arrow can't
    # filter views of strings.
    written = {
        "ordinal": pa.array([place + 1 for place in odd]),
        "written": pa.array([_written(batch, place) for place in odd], pa.large_string()),
    }
    with warehouse.present(con, "found", found), warehouse.present(con, "odd_lines", written):
        model = "temp/refused_interactions"
        return warehouse.table(con, model, latest_seconds=latest_seconds).column("objection")


def _written(batch: Batch, place: int) -> str:
    """Return the canonical JSON text of a record; it is the line itself where that is canonical."""
    record, content = (pa.chunked_array([batch.columns[name]]) for name in ("record", "content"))
    return str(record[place].as_py() or content[place].as_py())


def _fields(shapes: Sequence[warehouse.Row]) -> frozenset[str]:
    """Name the fields of the payload, and those of its request and response."""
    fields: set[str] = set()
    for shape in shapes:
        keys = cast("Sequence[Sequence[str] | None]", shape["shape"] or ())
        for within, names in zip(("", "request.", "response."), keys, strict=False):
            fields.update(f"{within}{name}" for name in names or ())
    return frozenset(fields)


def _refused(batch: Batch, found: Table) -> list[Unreadable]:
    """Give the records that DuckDB objected to, with what stood there."""
    objections = found.column("objection")
    if objections.null_count == batch.rows:
        return []
    content = pa.chunked_array([batch.columns["content"]])
    reasons = zip(found.column("line").to_pylist(), objections.to_pylist(), strict=True)
    return [
        Unreadable(line, content[place].as_py().encode(), reason)
        for place, (line, reason) in enumerate(reasons)
        if reason is not None
    ]
