"""Measure how fast a five-key log loads; ``python -m tests.benchmarks.collect [FOLDER]``.

FOLDER holds ``telemetry*.jsonl.gz`` whose rows are written again with other ids and texts; without
it the rows are made. Each load runs in a process of its own, so that its memory is its own.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import duckdb
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from components import warehouse
from components.collect import interactions
from tests.benchmarks import traffic

PYDANTIC_ROWS = 50_000
"""The line-by-line loader takes these only: it is slow, and as slow for each."""

BATCH = 1000

Figures = dict[str, float]


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


def ours(log: Path, store: Path) -> Figures:
    """Load the log, then load it again; each to the end, when the file is closed."""
    with warehouse.connect(store, memory=warehouse.COLLECTING) as con:
        begun = time.monotonic()
        loaded = interactions.load(con, log, now=datetime.now(UTC))
    first = time.monotonic() - begun
    with warehouse.connect(store, memory=warehouse.COLLECTING) as con:
        begun = time.monotonic()
        interactions.load(con, log, now=datetime.now(UTC))
    return {"rows": loaded.new, "first": first, "again": time.monotonic() - begun}


def floor(log: Path, store: Path) -> Figures:
    """Let DuckDB read the log into a table that is typed by hand."""
    con = duckdb.connect(store, config={"storage_compatibility_version": "v1.5.0"})
    con.execute("set force_compression = 'zstd'")
    begun = time.monotonic()
    con.execute(
        "create table logged as select * from read_json($log, format = 'newline_delimited',"
        " columns = {timestamp: 'DOUBLE', workload_id: 'VARCHAR', client_id: 'VARCHAR',"
        " request: 'JSON', response: 'JSON', metadata: 'JSON'})",
        {"log": str(log)},
    )
    con.close()
    return {"first": time.monotonic() - begun}


def pydantic(log: Path, store: Path) -> Figures:
    """Validate line by line and store the lines in columns like ours, in one transaction.

    They are inserted by batches, as Arrow tables. The primary key, a hash of what was validated,
    keeps each row to once. A line that is not valid is put aside with the reason.
    """
    refused: list[tuple[str, str]] = []
    count = 0
    with warehouse.connect(store) as con, log.open() as file:
        begun = time.monotonic()
        with warehouse.transaction(con):
            con.execute(
                "create table logged (interaction_id text primary key, timestamp timestamptz,"
                " workload_id text, client_id text, payload text)"
            )
            lines = islice(file, PYDANTIC_ROWS)
            while batch := list(islice(lines, BATCH)):
                count += warehouse.insert(con, "logged", _validated(batch, refused))
    return {"rows": count, "first": time.monotonic() - begun}


def _validated(lines: list[str], refused: list[tuple[str, str]]) -> list[warehouse.Row]:
    rows: list[warehouse.Row] = []
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


LOADERS: dict[str, Callable[[Path, Path], Figures]] = {
    "ours": ours,
    "floor": floor,
    "pydantic": pydantic,
}


def measure(loader: str, log: Path) -> Figures:
    """Run one loader in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.collect", "--loader", loader, str(log)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(ended.stdout)
    return figures


def run_loader(loader: str, log: Path) -> None:
    """Be that process."""
    with tempfile.TemporaryDirectory() as folder:
        figures = LOADERS[loader](log, Path(folder) / "store.duckdb")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(json.dumps(figures | {"resident_gb": peak}))


def report(seeds: Path | None, rows: int) -> None:
    """Write a log and a tenth of one, load both, and print the ratios."""
    said = sys.stdout.write
    with tempfile.TemporaryDirectory() as folder:
        log, tenth = Path(folder) / "log.jsonl", Path(folder) / "tenth.jsonl"
        for path, count in ((log, rows), (tenth, rows // 10)):
            traffic.write(path, traffic.seeds(seeds), count)
        os.sync()  # or the first to read the log would share the disk with its writing
        said(f"{rows} rows of {log.stat().st_size / rows:.0f} bytes\n")
        lowest, mine, small = measure("floor", log), measure("ours", log), measure("ours", tenth)
        lines = measure("pydantic", log)
    per_row, line_by_line = mine["first"] / rows, lines["first"] / lines["rows"]
    said(f"first load      {mine['first']:8.1f} s  {rows / mine['first']:8.0f} rows/s\n")
    said(f"over read_json  {mine['first'] / lowest['first']:8.2f} x  (at most 2.0)\n")
    said(f"over pydantic   {line_by_line / per_row:8.2f} x faster  (at least 5)\n")
    said(f"again           {mine['again'] / mine['first']:8.1%}  (at most 25 %)\n")
    flat = per_row / (small["first"] / (rows // 10))
    said(f"cost a row      {flat:8.2f} of that of a tenth of the rows  (0.75 to 1.25)\n")
    said(f"resident        {mine['resident_gb']:8.2f} GB  (at most 2)\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", help="the folder of the seed rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--loader", choices=LOADERS, help="measure one loader on the log at PATH")
    given = parser.parse_args()
    if given.loader:
        run_loader(given.loader, given.path)
    else:
        report(given.path, given.rows)
