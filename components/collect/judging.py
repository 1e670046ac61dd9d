"""Judge batches of records: what each holds, whether it is new, or why it is refused.

DuckDB does the work on whole batches (``sql/temp``), on a connection beside the one that stores
them: so the next batch is judged while the last one is stored.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

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

TALLY: dict[Kind, str] = {
    "interactions": "select min(timestamp), max(timestamp), count(objection)"
    " from temp.interactions",
    "feedback": "select min(timestamp), max(timestamp), count(objection) from temp.feedback",
}
REFUSED: dict[Kind, str] = {
    "interactions": "select line, content, objection from temp.interactions"
    " inner join lines using (ordinal, line) where objection is not null",
    "feedback": "select line, content, objection from temp.feedback"
    " inner join lines using (ordinal, line) where objection is not null",
}
PASSED: dict[Kind, str] = {
    "interactions": "insert into temp.passed"
    " select 'interactions', id, timestamp from temp.fresh_interactions",
    "feedback": "insert into temp.passed select 'feedback', id, timestamp from temp.fresh_feedback",
}
JUDGED: dict[Kind, str] = {
    "interactions": "select judged.* exclude (objection), fresh.id is not null as is_fresh"
    " from temp.interactions as judged left join temp.fresh_interactions as fresh using (ordinal)"
    " order by ordinal",
    "feedback": "select judged.* exclude (objection), fresh.id is not null as is_fresh"
    " from temp.feedback as judged left join temp.fresh_feedback as fresh using (ordinal)"
    " order by ordinal",
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

    def __init__(self, beside: Connection) -> None:
        self._con = beside
        beside.execute("create temporary table passed (kind text, id text, timestamp timestamptz)")

    def judge(self, origin: Origin, batch: Batch) -> Judged:
        """Say what a batch of that origin holds."""
        if not batch.rows:
            return Judged(batch.kind, 0, None, batch.unreadable, ())
        con, kind = self._con, batch.kind
        with warehouse.present(con, "lines", batch.columns):
            latest = (origin.now + TOLERANCE).timestamp()
            warehouse.build(con, f"temp/{kind}", latest_seconds=latest)
            ((first, last, objections),) = con.execute(TALLY[kind]).fetchall()
            refused = _refused(con, kind) if objections else []
            fields = warehouse.select(
                con,
                "raw/fields",
                source_name=origin.source,
                path=origin.path,
                now=origin.now,
                rows_looked_at=ROWS_LOOKED_AT,
            )
        rows = None if first is None else self._rows(batch, earliest=first, latest=last)
        return Judged(kind, batch.rows - objections, rows, [*refused, *batch.unreadable], fields)

    def _rows(self, batch: Batch, *, earliest: datetime, latest: datetime) -> Table | None:
        con, kind = self._con, batch.kind
        warehouse.build(con, f"temp/fresh_{kind}", earliest=earliest, latest=latest)
        ((fresh,),) = con.execute(PASSED[kind]).fetchall()
        if not fresh:
            return None
        rows: Table = con.sql(JUDGED[kind]).to_arrow_table()
        for name in ("content", "record"):
            rows = rows.append_column(name, pa.chunked_array([batch.columns[name]]))
        return rows


@contextmanager
def judging(con: Connection) -> Generator[Judge]:
    """Give a judge for a transaction of ``con`` that is about to begin or has just begun."""
    with warehouse.beside(con) as beside:
        yield Judge(beside)


def _refused(con: Connection, kind: Kind) -> list[Unreadable]:
    """Read the records that DuckDB objected to."""
    found = con.execute(REFUSED[kind]).fetchall()
    return [Unreadable(line, content.encode(), objection) for line, content, objection in found]
