"""Counters in a small SQLite file of the home, which many short processes add to."""

import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

NAME = "metrics.sqlite"
"""Next to the warehouse. A warehouse outside a home has no such file, and nothing is counted."""

WAITED, GAVE_UP = "warehouse_wait_seconds", "warehouse_gave_up"
"""Counters of waits for the warehouse's lock."""

WAIT_SECONDS = 5.0  # how long to wait for another process that is adding

TABLE = """create table if not exists counters (
    name text, labels text, value real not null, primary key (name, labels)
) without rowid"""
ADD = """insert into counters values (?, ?, ?)
on conflict do update set value = value + excluded.value"""
SET = "insert or replace into counters values (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Count:
    """The value of a counter with its labels."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


def create(home: Path) -> None:
    """Create a home's counters; existing ones keep their values."""
    _write(home, [])


def add(home: Path, counts: Sequence[Count], latest: Sequence[Count] = ()) -> None:
    """Add to ``counts`` and overwrite ``latest``, all or none of them; no-op without a file."""
    if (home / NAME).exists():
        _write(home, [(ADD, count) for count in counts] + [(SET, count) for count in latest])


def read(home: Path) -> list[Count]:
    """Return all counters; empty where nothing is counted."""
    if not (home / NAME).exists():
        return []
    with closing(_connect(home)) as con:
        rows = con.execute("select name, labels, value from counters order by name, labels")
        return [Count(name, value, json.loads(labels)) for name, labels, value in rows]


def _write(home: Path, changes: Sequence[tuple[str, Count]]) -> None:
    try:
        with closing(_connect(home)) as con, con:
            con.execute("begin immediate")
            con.execute(TABLE)
            for statement, count in changes:
                labels = json.dumps(dict(count.labels), sort_keys=True)
                con.execute(statement, (count.name, labels, count.value))
    except sqlite3.Error as error:
        logging.getLogger(__name__).warning("counting in %s failed: %s", home / NAME, error)


def _connect(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(home / NAME, timeout=WAIT_SECONDS)
