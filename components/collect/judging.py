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

import pyarrow as pa

from components import warehouse
from components.collect.batch import Batch
from components.collect.lines import Unreadable
from components.collect.record import Defaults, Kind
from components.shown import Table
from components.warehouse import Connection

TOLERANCE = timedelta(days=1)
"""How far ahead of ours the clock of an application may be."""

ROWS_LOOKED_AT = 500
"""Of each batch, for fields that its source has not shown before: looking costs a parse."""

READERS = 2
"""Batches that are read at a time. What stores them takes in a whole row group, then compresses it:
while it waits for the rows, one reader would keep one processor busy."""

PASSED: dict[Kind, str] = {
    "interactions": "insert into temp.passed"
    " select 'interactions', id, timestamp from temp.fresh_interactions",
    "feedback": "insert into temp.passed select 'feedback', id, timestamp from temp.fresh_feedback",
}
FRESH: dict[Kind, str] = {
    "interactions": "select fresh.id is not null as is_fresh from found"
    " left join temp.fresh_interactions as fresh using (ordinal) order by ordinal",
    "feedback": "select fresh.id is not null as is_fresh from found"
    " left join temp.fresh_feedback as fresh using (ordinal) order by ordinal",
}


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
    fields: Sequence[warehouse.Row]


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
    fields: Sequence[warehouse.Row]


class Judge:
    """Judges batches for one transaction, whose rows it remembers: nobody sees them before."""

    def __init__(self, beside: Connection, readers: Sequence[Connection]) -> None:
        self._con = beside
        self._readers: SimpleQueue[Connection] = SimpleQueue()
        for reader in readers:
            self._readers.put(reader)
        beside.execute("create temporary table passed (kind text, id text, timestamp timestamptz)")

    def read(self, origin: Origin, batch: Batch) -> Reading:
        """Say what a batch of that origin holds; threads may ask at the same time."""
        if not batch.rows:
            return Reading(batch, None, batch.unreadable, ())
        con = self._readers.get()
        try:
            return _read(con, origin, batch)
        finally:
            self._readers.put(con)

    def judge(self, reading: Reading) -> Judged:
        """Say what of a batch is new: nothing in the batches before, in whose order to ask."""
        batch, found, refused = reading.batch, reading.found, reading.refused
        rows = None if found is None else self._rows(reading, found)
        records = batch.rows - (len(refused) - len(batch.unreadable))
        return Judged(batch.kind, records, rows, refused, reading.fields)

    def _rows(self, reading: Reading, found: Table) -> Table | None:
        con, kind = self._con, reading.batch.kind
        with warehouse.present(con, "found", found):
            ((first, last),) = con.execute(
                "select min(timestamp), max(timestamp) from found"
            ).fetchall()
            if first is None:
                return None
            warehouse.build(con, f"temp/fresh_{kind}", earliest=first, latest=last)
            ((fresh,),) = con.execute(PASSED[kind]).fetchall()
            if not fresh:
                return None
            is_fresh = con.sql(FRESH[kind]).to_arrow_table().column("is_fresh")
        found = found.append_column("is_fresh", is_fresh)
        for name in ("content", "record"):
            column = pa.chunked_array([reading.batch.columns[name]])
            found = found.append_column(name, column)
        return found


@contextmanager
def judging(con: Connection) -> Generator[Judge]:
    """Give a judge for a transaction of ``con`` that is about to begin or has just begun."""
    with ExitStack() as open_ones:
        beside, *readers = (
            open_ones.enter_context(warehouse.beside(con)) for _ in range(1 + READERS)
        )
        yield Judge(beside, readers)


def _read(con: Connection, origin: Origin, batch: Batch) -> Reading:
    with warehouse.present(con, "lines", batch.columns):
        latest_seconds = (origin.now + TOLERANCE).timestamp()
        found = warehouse.table(con, f"temp/{batch.kind}", latest_seconds=latest_seconds)
        fields = warehouse.select(
            con,
            "raw/fields",
            source_name=origin.source,
            path=origin.path,
            now=origin.now,
            rows_looked_at=ROWS_LOOKED_AT,
        )
    refused = _refused(batch, found)
    return Reading(batch, found, [*refused, *batch.unreadable], fields)


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
