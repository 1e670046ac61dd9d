"""Measure how fast a five-key log loads; ``python -m tests.benchmarks.collect [FOLDER]``.

FOLDER holds ``telemetry*.jsonl.gz`` whose rows are written again with other ids and texts; without
it the rows are made. Each load runs in a process of its own, so that its memory is its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from components.store import warehouse
from tests.benchmarks import line_by_line, traffic
from tests.support import logs

ROUNDS = 3

Figures = dict[str, float]


def ours(log: Path, store: Path) -> Figures:
    """Load the log, then load it again; each to the end, when the file is closed."""
    with warehouse.connect(store, memory=warehouse.COLLECTING) as con:
        begun = time.monotonic()
        loaded = logs.load(con, log, now=datetime.now(UTC))
    first = time.monotonic() - begun
    with warehouse.connect(store, memory=warehouse.COLLECTING) as con:
        begun = time.monotonic()
        logs.load(con, log, now=datetime.now(UTC))
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
    ((rows,),) = con.execute("select count(*) from logged").fetchall()
    con.close()
    return {"rows": rows, "first": time.monotonic() - begun}


LOADERS: dict[str, Callable[[Path, Path], Figures]] = {
    "ours": ours,
    "floor": floor,
    "executemany": line_by_line.executemany,
    "arrow": line_by_line.arrow,
}


def measure(loader: str, log: Path) -> Figures:
    """Run one loader in a process of its own, after what was written before is on the disk."""
    os.sync()
    command = [sys.executable, "-m", "tests.benchmarks.collect", "--loader", loader, str(log)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(ended.stdout)
    return figures


def medians(loaders: dict[str, tuple[str, Path]]) -> dict[str, Figures]:
    """Run the loaders by turns, so that all meet the same machine; give each figure's median."""
    runs = [{name: measure(*given) for name, given in loaders.items()} for _ in range(ROUNDS)]
    return {
        name: {figure: statistics.median(run[name][figure] for run in runs) for figure in found}
        for name, found in runs[0].items()
    }


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
        said(f"{rows} rows of {log.stat().st_size / rows:.0f} bytes; medians of {ROUNDS} runs\n")
        found = medians(
            {"floor": ("floor", log), "ours": ("ours", log), "small": ("ours", tenth)}
            | {name: (name, log) for name in ("executemany", "arrow")}
        )
    mine, lowest = found["ours"], found["floor"]
    per_row = {name: figures["first"] / figures["rows"] for name, figures in found.items()}
    said(f"first load      {mine['first']:8.1f} s  {rows / mine['first']:8.0f} rows/s\n")
    said(f"over read_json  {per_row['ours'] / per_row['floor']:8.2f} x  (at most 2.0;")
    said(f" it took {lowest['first']:.1f} s)\n")
    for name, shown in (("executemany", "at least 5"), ("arrow", "no target")):
        ratio = per_row[name] / per_row["ours"]
        said(f"line by line    {ratio:8.2f} x faster than pydantic and {name}  ({shown})\n")
    said(f"again           {mine['again'] / mine['first']:8.1%}  (at most 25 %)\n")
    flat = per_row["ours"] / per_row["small"]
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
