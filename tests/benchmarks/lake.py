"""Measure a lake beside a DuckDB file; ``python -m tests.benchmarks.lake``, in `.venv-lake`.

The same log is loaded and curated in both, by turns, each time in a process of its own; CPU seconds
are the system's of that process, without PostgreSQL's. Then ``--known`` rows of 30 days are put
into the lake, a file a day, and 50,000 new rows are held to them: rows of one day, and of all.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from components.curate import curate_workload
from components.curate.settings import Rules
from components.store import lake, warehouse, working_copy
from components.store.lake import Lake
from components.store.warehouse import Location
from tests.benchmarks import traffic
from tests.benchmarks.curate import WORKLOAD
from tests.support import lakes, logs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 3
DAYS, BATCH = 30, 50_000

Figures = dict[str, float]


def cpu_seconds() -> float:
    """Return the CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(place: Location, log: Path, scratch: Path) -> Figures:
    """Open, load, load again and curate; be the process that is measured."""
    marks = [cpu_seconds()]
    begun = time.monotonic()
    with warehouse.connect(place, writes=()) as con:
        con.execute("select count(*) from raw.interactions").fetchall()
    opened = time.monotonic() - begun
    marks.append(cpu_seconds())
    for _ in range(2):
        with warehouse.connect(place, memory=warehouse.COLLECTING, writes=["raw"]) as con:
            logs.load(con, log, now=NOW)
        marks.append(cpu_seconds())
    with working_copy.open_copy(place, WORKLOAD, scratch) as copy:
        curate_workload.curate(copy.con, WORKLOAD, Rules(), now=NOW)
        copy.merge()
    marks.append(cpu_seconds())
    parts = ("open", "load", "again", "curate")
    spent = [after - before for before, after in pairwise(marks)]
    return dict(zip(parts, spent, strict=True)) | {"open_wall": opened}


def measure(kind: str, log: Path, folder: Path) -> Figures:
    """Run a new file or a new lake in a process of its own."""
    place = lakes.new(folder / "lake") if kind == "lake" else None
    named = ["--url", place.url, "--data", place.data] if place else []
    command = [sys.executable, "-m", "tests.benchmarks.lake", "--run", folder, "--log", log]
    output = subprocess.check_output([*command, *named], text=True)
    figures: Figures = json.loads(output)
    return figures


def compare(rows: int, root: Path) -> None:
    """Print the medians of both and their ratios."""
    log = root / "log.jsonl"
    seeds = [row | {"workload_id": WORKLOAD} for row in traffic.seeds(None)]
    traffic.write(log, seeds, rows)
    runs: dict[str, list[Figures]] = {"file": [], "lake": []}
    for number in range(ROUNDS):
        for kind, taken in runs.items():
            folder = root / f"{kind}{number}"
            folder.mkdir()
            taken.append(measure(kind, log, folder))
    sys.stdout.write(f"{rows} rows; medians of {ROUNDS} runs, CPU seconds; file, lake, ratio\n")
    for part in ("open", "load", "again", "curate", "open_wall"):
        file, other = (statistics.median(run[part] for run in runs[kind]) for kind in runs)
        sys.stdout.write(f"{part:10} {file:8.2f} {other:8.2f} {other / file:8.2f}\n")


def hold_against(place: Lake, known: int) -> None:
    """Print what it takes to find the fresh rows of a batch among many known ones."""
    with warehouse.connect(place, writes=lake.GROUPS) as con:
        for day in range(DAYS):
            with warehouse.transaction(con, "raw"):
                con.execute(
                    "insert into raw.interactions by name"
                    " select md5(range::text) as interaction_id,"
                    " $day + to_milliseconds(range * 86400000 // $rows) as timestamp,"
                    " 'w' as workload_id, 'c' as client_id, '{}' as payload,"
                    " hash(range) as content_hash, hash(range) as likeness,"
                    " 'd' as file_digest, range as line from range($rows)",
                    {"day": NOW + timedelta(days=day), "rows": known // DAYS},
                )
        con.execute(
            "create temporary table passed (kind text, id text, timestamp timestamptz,"
            " content_hash ubigint)"
        )
        for name, days in (("one day", 1), ("all days", DAYS)):
            con.execute(
                "create or replace temporary table found as select range as ordinal,"
                " md5('new' || range) as interaction_id, null::text as objection,"
                " $day + to_milliseconds(range * $days * 86400000 // $rows) as timestamp,"
                " hash(range) as content_hash from range($rows)",
                {"day": NOW, "days": days, "rows": BATCH},
            )
            within = {"earliest": NOW, "latest": NOW + timedelta(days=days)}
            begun, spent = time.monotonic(), cpu_seconds()
            fresh = warehouse.table(con, "temp/fresh_interactions", **within)
            taken = time.monotonic() - begun, cpu_seconds() - spent
            assert len(fresh.column("ordinal").to_pylist()) == BATCH  # type: ignore[attr-defined]
            sys.stdout.write(f"{BATCH} rows of {name} against {known:,}: {taken[0]:.2f} s, ")
            sys.stdout.write(f"{taken[1]:.2f} CPU s\n")
        begun = time.monotonic()
        con.table("raw.interactions").max("rowid").fetchall()
        sys.stdout.write(f"the last row among {known:,}: {time.monotonic() - begun:.2f} s\n")


def main() -> None:
    """Measure, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--known", type=int, default=10_000_000)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--data")
    args = parser.parse_args()
    if args.run:
        place = Lake(args.url, args.data) if args.url else args.run / "warehouse.duckdb"
        sys.stdout.write(json.dumps(run(place, args.log, args.run / "tmp")))
        return
    with tempfile.TemporaryDirectory() as name:
        if args.rows:
            compare(args.rows, Path(name))
        hold_against(lakes.new(Path(name) / "known"), args.known)


if __name__ == "__main__":
    main()
