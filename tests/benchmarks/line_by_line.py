"""Loaders of the usual kind, to be measured beside: a line at a time, validated with pydantic.

Both store the lines in columns like ours, in one transaction. The primary key, a hash of what was
validated, keeps each row to once. A line that is not valid is put aside with the reason.
"""

import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from components.store import warehouse
from components.store.warehouse import Connection, Row

BATCH = 1000

TABLE = """
create table logged (
    interaction_id text primary key, timestamp timestamptz, workload_id text, client_id text,
    payload text
)
"""


class Request(BaseModel):
    """A request as most loaders would describe it."""

    model_config = ConfigDict(extra="allow")

    messages: list[JsonValue]


class Logged(BaseModel):
    """A log line as most loaders would describe it."""

    model_config = ConfigDict(extra="allow")

    timestamp: datetime
    workload_id: str
    client_id: str
    request: Request
    response: dict[str, JsonValue]


def executemany(log: Path, store: Path) -> dict[str, float]:
    """Insert each batch by ``executemany``, as a database's users do."""
    insert = "insert or ignore into logged values (?, ?, ?, ?, ?)"
    return _load(
        log, store, 10_000, lambda con, rows: con.executemany(insert, [[*r.values()] for r in rows])
    )


def arrow(log: Path, store: Path) -> dict[str, float]:
    """Insert each batch as an Arrow table: the fastest that a line at a time can be."""
    return _load(log, store, 50_000, lambda con, rows: warehouse.insert(con, "logged", rows))


def _load(
    log: Path, store: Path, most: int, insert: Callable[[Connection, list[Row]], object]
) -> dict[str, float]:
    """Load the first lines, and stop: these loaders are as slow for each line."""
    refused: list[tuple[str, str]] = []
    with warehouse.connect(store) as con, log.open() as file:
        begun = time.monotonic()
        with warehouse.transaction(con):
            con.execute(TABLE)
            lines = islice(file, most)
            while batch := list(islice(lines, BATCH)):
                insert(con, _validated(batch, refused))
            ((count,),) = con.execute("select count(*) from logged").fetchall()
    return {"rows": count, "first": time.monotonic() - begun}


def _validated(lines: list[str], refused: list[tuple[str, str]]) -> list[Row]:
    rows: list[Row] = []
    for line in lines:
        try:
            row = Logged.model_validate_json(line)
        except ValidationError as error:
            refused.append((line, str(error)))
            continue
        canonical = row.model_dump_json(include=set(Logged.model_fields))
        rows.append(
            {
                "interaction_id": hashlib.md5(canonical.encode()).hexdigest(),
                "timestamp": row.timestamp,
                "workload_id": row.workload_id,
                "client_id": row.client_id,
                "payload": line.removesuffix("\n"),
            }
        )
    return rows
