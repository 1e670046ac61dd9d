"""Measure a lake beside a DuckDB file; ``python -m tests.benchmarks.lake``, in `.venv-lake`.

The same log is loaded and curated in both, by turns, each time in a process of its own; CPU seconds
are the system's of that process, PostgreSQL's beside them. Then ``--known`` rows of 30 days are put
into a lake, a file a day, and batches of 50,000 rows of one day and of all are held to them.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from components.collect import load_file
from components.collect.source import Input
from components.curate import curate_workload
from components.curate.settings import Rules
from components.store import lake, warehouse, working_copy
from components.store.lake import Lake
from components.store.warehouse import Connection, Location
from tests.benchmarks import traffic
from tests.benchmarks.curate import WORKLOAD
from tests.support import lakes, logs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 3
DAYS, BATCH = 30, 50_000
FIRST = "first.jsonl"  # a line: what a lake does once should not count as loading
REPEATED = (0, 10, BATCH)  # known rows in a batch

COLUMNS = """
    md5((range + $first)::text) as interaction_id,
    $begin + to_milliseconds(range * $days * 86400000 // $rows) as timestamp,
    hash(range + $first) as content_hash
    from range($rows)
"""

Figures = dict[str, float]


def cpu_seconds() -> float:
    """Return the CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def postgres_seconds() -> float:
    """Return the CPU time of the tests' PostgreSQL, with that of its processes that ended."""
    ((lines,),) = lakes.execute("select pg_read_file('postmaster.pid')")
    server = psutil.Process(int(lines.split()[0]))
    times = server.cpu_times()
    seconds = times.user + times.system + times.children_user + times.children_system
    for process in server.children():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def run(place: Location, log: Path, scratch: Path) -> Figures:
    """Open, load, load again and curate; be the process that is measured."""
    figures: Figures = {}

    @contextmanager
    def measured(part: str) -> Generator[None]:
        of_postgres = postgres_seconds() if isinstance(place, Lake) else 0.0
        begun, spent = time.monotonic(), cpu_seconds()
        yield
        figures[part] = cpu_seconds() - spent
        figures[f"{part}_wall"] = time.monotonic() - begun
        if isinstance(place, Lake):
            figures[f"{part}_postgres"] = postgres_seconds() - of_postgres

    with measured("open"), warehouse.connect(place, writes=()) as con:
        con.execute("select count(*) from raw.interactions").fetchall()
    for part, file in (("first", FIRST), ("load", log.name), ("again", log.name)):
        with measured(part), _loading(place) as con:
            logs.load(con, log.with_name(file), now=NOW)
    with measured("curate"), working_copy.open_copy(place, WORKLOAD, scratch) as copy:
        curate_workload.curate(copy.con, WORKLOAD, Rules(), now=NOW)
        copy.merge()
    return figures


def _loading(place: Location) -> AbstractContextManager[Connection]:
    return warehouse.connect(place, memory=warehouse.COLLECTING, writes=["raw"])


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
    logs.write(root / FIRST, [logs.interaction()])
    runs: dict[str, list[Figures]] = {"file": [], "lake": []}
    for number in range(ROUNDS):
        for kind, taken in runs.items():
            folder = root / f"{kind}{number}"
            folder.mkdir()
            taken.append(measure(kind, log, folder))
    sys.stdout.write(
        f"{rows} rows; medians of {ROUNDS} runs, CPU seconds: file, lake, ratio, PostgreSQL's\n"
    )
    for part in ("open", "first", "load", "again", "curate", "open_wall"):
        file, other, postgres = (
            statistics.median(run.get(name, 0.0) for run in runs[kind])
            for kind, name in (("file", part), ("lake", part), ("lake", f"{part}_postgres"))
        )
        columns = (file, other, other / file, postgres)
        sys.stdout.write(f"{part:10}" + "".join(f"{column:9.2f}" for column in columns) + "\n")


def hold_against(place: Lake, known: int, root: Path) -> None:
    """Print what it takes to find the new rows of a batch among many known ones."""
    rows = known // DAYS
    with warehouse.connect(place, writes=lake.GROUPS) as con:
        for day in range(DAYS):
            with warehouse.transaction(con, "raw"):
                con.execute(
                    "insert into raw.interactions by name select 'w' as workload_id,"
                    " 'c' as client_id, '{}' as payload, hash(range + $first + 1) as likeness,"
                    f" 'd' as file_digest, range as line, {COLUMNS}",
                    _values(1, rows, first=day * rows, begin=NOW + timedelta(days=day)),
                )
    for days in (1, DAYS):
        with _loading(place) as con:
            for repeated in REPEATED:
                _anti_join(con, days, known, repeated)
        log = root / f"{days}.jsonl"
        step = days * 86_400 / BATCH
        times = (NOW.timestamp() + number * step for number in range(BATCH))
        logs.write(log, (logs.interaction(f"Question {t}", timestamp=t) for t in times))
        with _loading(place) as con, _printed(f"loading {BATCH} rows of {days} day(s)"):
            now = NOW + timedelta(days=DAYS)
            item, within = Input(str(log), "fivekey"), warehouse.rehearsal
            loaded = load_file.load(con, item, log, now=now, within=within)
        assert loaded.new == BATCH
    with _loading(place) as con, _printed(f"the last row among {known:,}"):
        con.table("raw.interactions").max("rowid").fetchall()


def _anti_join(con: Connection, days: int, known: int, repeated: int) -> None:
    within = {"earliest": NOW, "latest": NOW + timedelta(days=days)}
    con.execute(
        "create or replace temporary table passed"
        " (kind text, id text, timestamp timestamptz, content_hash ubigint)"
    )
    con.execute(
        "create or replace temporary table found as"
        f" select range as ordinal, null::text as objection, {COLUMNS}",
        _values(days, BATCH, first=2 * known, begin=NOW),
    )
    if repeated:
        con.execute(
            "update found set interaction_id = known.interaction_id, timestamp = known.timestamp,"
            " content_hash = known.content_hash from (select *, row_number() over () - 1 as number"
            " from (select interaction_id, timestamp, content_hash from raw.interactions"
            " where timestamp between $earliest and $latest and line % $every = 0"
            " limit $repeated)) as known where known.number = found.ordinal",
            within | {"every": known // DAYS * days // repeated, "repeated": repeated},
        )
    with _printed(f"{BATCH} rows of {days} day(s), {repeated} of them among {known:,}"):
        fresh = warehouse.table(con, "temp/fresh_interactions", **within)
    new = len(fresh.column("ordinal").to_pylist())  # type: ignore[attr-defined]
    assert new == BATCH - repeated


def _values(days: int, rows: int, *, first: int, begin: datetime) -> dict[str, int | datetime]:
    return {"days": days, "rows": rows, "first": first, "begin": begin}


@contextmanager
def _printed(what: str) -> Generator[None]:
    begun, spent = time.monotonic(), cpu_seconds()
    yield
    taken = time.monotonic() - begun, cpu_seconds() - spent
    sys.stdout.write(f"{what}: {taken[0]:.2f} s, {taken[1]:.2f} CPU s\n")


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
        if args.known:
            hold_against(lakes.new(Path(name) / "known"), args.known, Path(name))


if __name__ == "__main__":
    main()
