"""The five-key log of NVIDIA's blueprint: its records are the canonical form itself."""

import gzip
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from components.collect.source import Defaults, Kind, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import fields
from components.schema import Json
from components.store import archived_files, warehouse
from components.store.warehouse import Connection

NAME = "fivekey"
KEYS = frozenset({"timestamp", "workload_id", "client_id", "request", "response"})


def claims(value: dict[str, Json]) -> bool:
    """Claim records with all five keys."""
    return value.keys() >= KEYS


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the record unchanged, with the default workload and client where they are missing."""
    yield ParsedRecord(row, "interactions", complete(row.value, defaults))


def complete(value: dict[str, Json], defaults: Defaults) -> dict[str, Json]:
    """Return the record with defaults filled in; the same object if there are none to fill in."""
    missing: dict[str, Json] = {}
    if defaults.workload_id and value.get("workload_id") in (None, ""):
        missing["workload_id"] = defaults.workload_id
    if defaults.client_id and "client_id" not in value:
        missing["client_id"] = defaults.client_id
    return value | missing if missing else value


def export(con: Connection, path: Path, kind: Kind, *, workload_id: str | None = None) -> int:
    """Write the canonical records of one workload or of all (``None``) to a JSONL file.

    Return the number of lines. The file is compressed if its name ends in ``.gz``; it appears, or
    is replaced, only when it is complete. Raise ``FileNotFoundError`` if archived rows are missing.
    """
    _register_archived(con, kind)
    count = 0
    with _replaced(path) as file:
        model = f"marts/exported_{kind}"
        for row in warehouse.read(con, model, dict[str, str], workload_id=workload_id):
            file.write(row["line"] + "\n")
            count += 1
    return count


def _register_archived(con: Connection, kind: Kind) -> None:
    """Make the rows that retention archived readable in SQL as ``archived``."""
    sql = "select distinct path from raw.archived where kind = $kind order by path"
    paths = warehouse.texts(con, sql, kind=kind)
    for path in archived_files.missing(paths):
        raise FileNotFoundError(
            f"exporting: {path}, where retention put old rows, is gone; put it back"
        )
    warehouse.show_files(con, "archived", paths, like=f"raw.{kind}")


@contextmanager
def _replaced(path: Path) -> Generator[IO[str]]:
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(partial, "wt", encoding="utf-8", newline="\n") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
