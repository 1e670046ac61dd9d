"""Measure a whole curation, to its frozen snapshot; ``python -m tests.benchmarks.curate [FOLDER]``.

FOLDER holds ``telemetry*.jsonl.gz`` whose rows are written again with other ids and texts; without
it the rows are made. One in fifty has a thumb, one in two hundred a correction. Each curation runs
in a process of its own; its memory is that of the process and its crew together, where a page that
several hold counts once (PSS), looked at twice a second. Collecting is not timed.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from components.curate import curate_workload
from components.curate.settings import Rules
from components.dataset import freeze_snapshot
from components.schema import Json
from components.store import warehouse
from tests.benchmarks import traffic
from tests.support import logs

WORKLOAD = "bench"
RULES = Rules(split_by="conversation")


def collect(folder: Path, seeds: list[dict[str, Json]], rows: int) -> None:
    """Fill the folder's warehouse with so many interactions, and what people said of some."""
    log, said = folder / "log.jsonl", folder / "feedback.jsonl"
    traffic.write(log, [row | {"workload_id": WORKLOAD} for row in seeds], rows)
    with log.open() as file, said.open("w") as out:
        for signal in feedback_on(file):
            out.write(json.dumps(signal) + "\n")
    now = datetime.now(UTC)
    with warehouse.connect(folder / "store.duckdb", memory=warehouse.COLLECTING) as con:
        logs.load(con, log, now=now)
        logs.load_feedback(con, said, now=now)


def feedback_on(lines: Iterator[str]) -> Iterator[dict[str, Json]]:
    """Give a thumb on one line in fifty, and a correction of one in two hundred."""
    for number, line in enumerate(lines):
        if number % 50:
            continue
        row = json.loads(line)
        about: dict[str, Json] = {
            "workload_id": WORKLOAD,
            "client_id": row["client_id"],
            "response_id": row["response"]["id"],
            "actor_id": f"user-{number % 997}",
        }
        if number % 200:
            yield logs.feedback("thumb", "down" if number % 150 else "up", **about)
        else:
            yield logs.feedback("correction", logs.say(f"Rather {number}."), **about)


def curate(folder: Path) -> dict[str, float]:
    """Curate and freeze; be the process that is measured."""
    now = datetime.now(UTC)
    begun = time.monotonic()
    with warehouse.connect(folder / "store.duckdb") as con:
        tally = curate_workload.curate(con, WORKLOAD, RULES, now=now)
        curated = time.monotonic()
        with tempfile.TemporaryDirectory() as snapshots:
            freeze_snapshot.freeze(con, Path(snapshots), WORKLOAD, rules=RULES, now=now)
    return {
        "rows": tally.interactions,
        "curate": curated - begun,
        "freeze": time.monotonic() - curated,
    }


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Curate several times, in processes of their own; give each figure's median."""
    command = [sys.executable, "-m", "tests.benchmarks.curate", "--curate", str(folder)]
    runs = [_run(command) for _ in range(rounds)]
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}


def _run(command: list[str]) -> dict[str, float]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    largest = 0
    while process.poll() is None:
        largest = max(largest, _resident(psutil.Process(process.pid)))
        time.sleep(0.5)
    said, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return json.loads(said) | {"resident_gb": largest / 2**30}


def _resident(process: psutil.Process) -> int:
    """Give the bytes that a process and its crew hold now."""
    held = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            held += one.memory_full_info().pss
    return held


def report(seeds: Path | None, rows: int, rounds: int) -> None:
    """Curate so many interactions and a tenth of them; print what they took."""
    with tempfile.TemporaryDirectory() as root:
        per_row: list[float] = []
        for count in (rows // 10, rows):
            folder = Path(root) / str(count)
            folder.mkdir()
            collect(folder, traffic.seeds(seeds), count)
            found = measure(folder, rounds)
            took = found["curate"] + found["freeze"]
            per_row.append(took / found["rows"])
            sys.stdout.write(
                f"{found['rows']:9.0f} interactions  {took:7.1f} s, of it freezing "
                f"{found['freeze']:.1f} s; {found['resident_gb']:.2f} GB resident\n"
            )
    small, large = per_row
    sys.stdout.write(f"cost a row {large / small:.2f} of that of a tenth  (0.7 to 1.3)\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", help="the folder of the seed rows")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curate", action="store_true", help="curate the warehouse in PATH")
    given = parser.parse_args()
    if given.curate:
        sys.stdout.write(json.dumps(curate(given.path)))
    else:
        report(given.path, given.rows, given.rounds)
