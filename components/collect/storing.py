"""Store batches of records: equal ones once, bad ones in quarantine.

DuckDB does the JSON work on whole batches (``sql/temp`` judges the records, ``sql/raw`` picks those
that are new).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from components import warehouse
from components.collect.batch import Batch
from components.collect.lines import Unreadable
from components.collect.record import Defaults, Kind
from components.warehouse import Connection

TOLERANCE = timedelta(days=1)
"""How far ahead of ours the clock of an application may be."""

ROWS_LOOKED_AT = 500
"""Of each batch, for fields that its source has not shown before: looking costs a parse."""

SPAN: dict[Kind, str] = {
    "interactions": "select min(timestamp), max(timestamp) from temp.interactions",
    "feedback": "select min(timestamp), max(timestamp) from temp.feedback",
}
REFUSED: dict[Kind, str] = {
    "interactions": "select line, content, objection from temp.interactions"
    " inner join lines using (ordinal, line) where objection is not null",
    "feedback": "select line, content, objection from temp.feedback"
    " inner join lines using (ordinal, line) where objection is not null",
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
class Stored:
    """How many rows of a batch were new, known from before, and put in quarantine."""

    new: int
    known: int
    quarantined: int

    def __add__(self, other: "Stored") -> "Stored":
        """Count two batches together."""
        return Stored(
            self.new + other.new,
            self.known + other.known,
            self.quarantined + other.quarantined,
        )


def store(con: Connection, origin: Origin, batch: Batch) -> Stored:
    """Store a batch within the transaction that is open."""
    new, refused = 0, list[Unreadable]()
    if batch.rows:
        latest = (origin.now + TOLERANCE).timestamp()
        with warehouse.present(con, "lines", batch.columns):
            warehouse.build(con, f"temp/{batch.kind}", latest_seconds=latest)
            ((first, last),) = con.execute(SPAN[batch.kind]).fetchall()
            if first is not None:
                values = {"digest": origin.digest, "source_name": origin.source}
                new = warehouse.append(
                    con, f"raw/{batch.kind}", earliest=first, latest=last, **values
                )
            refused = _refused(con, batch.kind)
            _note_fields(con, origin)
    quarantined = quarantine(con, origin, [*refused, *batch.unreadable])
    return Stored(new, batch.rows - len(refused) - new, quarantined)


def quarantine(con: Connection, origin: Origin, refused: Iterable[Unreadable]) -> int:
    """Keep what could not be read: its bytes, its place and the reasons; return how many.

    A line may hold several bad parts, such as the spans of a request; each is kept.
    """
    reasons: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for one in refused:
        reasons[one.number, one.content].append(one.reason)
    records = [
        {
            "quarantine_id": hashlib.md5(
                f"{origin.digest} {origin.source} {number} ".encode() + content
            ).hexdigest(),
            "path": origin.path,
            "file_digest": origin.digest,
            "source": origin.source,
            "workload_id": origin.defaults.workload_id,
            "client_id": origin.defaults.client_id,
            "line": number,
            "reason": "; ".join(dict.fromkeys(found)),
            "content": content,
            "quarantined_at": origin.now,
        }
        for (number, content), found in reasons.items()
    ]
    return warehouse.insert(con, "raw.quarantine", records)


def _refused(con: Connection, kind: Kind) -> list[Unreadable]:
    """Read the records that DuckDB objected to."""
    found = con.execute(REFUSED[kind]).fetchall()
    return [Unreadable(line, content.encode(), objection) for line, content, objection in found]


def _note_fields(con: Connection, origin: Origin) -> None:
    """Keep account of the fields that the source shows."""
    warehouse.append(
        con,
        "raw/fields",
        source_name=origin.source,
        path=origin.path,
        digest=origin.digest,
        now=origin.now,
        rows_looked_at=ROWS_LOOKED_AT,
    )
