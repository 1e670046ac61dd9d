"""Measure a night with one row in a hundred new; ``python -m tests.benchmarks.night --rows N``.

A home with N rows is curated and frozen, then one row in a hundred is collected and all is curated
and frozen twice: with what judging the others gave, and, in a copy of the home, without. Each
runs in a process of its own on one core; CPU seconds and memory are the system's figures of it, the
memory without pages of files, which the system drops when others need it.
Both snapshots must be equal byte by byte; redaction has a seed, since surrogates of new
conversations are random without one. ``--folder`` holds ``telemetry*.jsonl.gz`` whose rows
are written again in other words; without it rows are made, one in ``--clones`` of them from the
same text with some words changed. More than ``--at-most`` are
curated as a sample.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

from components.curate import curate_workload, parsed_rows
from components.curate.settings import MAX_ROWS, Redaction, Rules
from components.dataset import freeze_snapshot
from components.schema import Json
from components.store import warehouse, working_copy
from tests.benchmarks import traffic
from tests.benchmarks.curate import WORKLOAD, feedback_on
from tests.support import logs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = 100  # one row in so many is new


def collect(home: Path, log: Path) -> None:
    """Load a log, and what people said of some of its rows."""
    words = log.with_suffix(".feedback")
    with log.open() as file, words.open("w") as out:
        out.writelines(json.dumps(signal) + "\n" for signal in feedback_on(file))
    with warehouse.connect(home / "warehouse.duckdb", memory=warehouse.COLLECTING) as con:
        logs.load(con, log, now=NOW)
        logs.load_feedback(con, words, now=NOW)


def curate(home: Path, to: Path, rules: Rules) -> dict[str, Json]:
    """Curate and freeze as a flow does; be the process that is measured."""
    judgements = home / "judgements"
    parsed = parsed_rows.read(judgements)
    with (
        _largest_memory() as memory,
        working_copy.open_copy(
            home / "warehouse.duckdb",
            WORKLOAD,
            home / "tmp",
            at_most=rules.at_most,
            parsed=parsed.keys,
        ) as copy,
    ):
        copied = _cpu_seconds()
        tally = curate_workload.curate(
            copy.con, WORKLOAD, rules, now=NOW, judgements_folder=judgements, parsed=parsed
        )
        curated = _cpu_seconds()
        copy.merge()
        merged = _cpu_seconds()
        frozen = freeze_snapshot.freeze(copy.con, to, WORKLOAD, rules=rules, now=NOW)
        copy.merge_settled()
    files = sorted(frozen.path.iterdir())
    digests = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return {
        "interactions": tally.interactions,
        "judged": tally.judged,
        "copy": copied,
        "curate": curated - copied,
        "merge": merged - curated,
        "freeze": _cpu_seconds() - merged,
        "cpu": _cpu_seconds(),
        "memory_gb": max(memory) / 2**20,
        "key": frozen.key,
        "snapshot": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
    }


def verdicts(home: Path) -> dict[str, str | None]:
    """Return the verdict on each row."""
    with warehouse.connect(home / "warehouse.duckdb") as con:
        return dict(
            con.execute("select interaction_id, objection from curated.verdicts").fetchall()
        )


@contextmanager
def _largest_memory() -> Generator[list[int]]:
    """Yield the KiB of anonymous memory at all times of the block."""
    values, ended = [0], Event()

    def watch() -> None:
        while not ended.wait(0.05):
            status = Path("/proc/self/status").read_text().split("RssAnon:")
            values.append(int(status[1].split()[0]))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield values
    finally:
        ended.set()
        watcher.join()


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(figures.ru_utime + figures.ru_stime for figures in used)


def measure(name: str, home: Path, rules: Rules) -> dict[str, float]:
    """Curate in a process of its own, print what it took, and return it."""
    place = ["--curate", str(home), "--rules", rules.model_dump_json()]
    command = [sys.executable, "-m", "tests.benchmarks.night", *place]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(output)
    parts = ", ".join(
        f"{part} {figures[part]:.1f}" for part in ("copy", "curate", "merge", "freeze")
    )
    sys.stdout.write(
        f"{name:12} {figures['interactions']:9,} rows, {figures['judged']:9,} judged: "
        f"{figures['cpu']:8.1f} CPU s ({parts}), {figures['memory_gb']:.2f} GB\n"
    )
    sys.stdout.flush()
    return figures


def report(folder: Path | None, rows: int, clones: int, rules: Rules) -> None:
    """Measure the first night, one with new rows, and the same one without what was kept."""
    seeds = traffic.seeds(folder) if folder else traffic.made(max(1, rows // clones))
    seeds = [row | {"workload_id": WORKLOAD} for row in seeds]
    with tempfile.TemporaryDirectory() as root:
        home, whole = Path(root) / "home", Path(root) / "whole"
        home.mkdir()
        log = Path(root) / "log.jsonl"
        traffic.write(log, seeds, rows - rows // NEW)
        collect(home, log)
        measure("first night", home, rules)
        before = verdicts(home)
        traffic.write(log, seeds, rows // NEW, seed=1)
        collect(home, log)
        log.unlink()
        shutil.copytree(home, whole, ignore=shutil.ignore_patterns("judgements"))
        kept = measure("new rows", home, rules)
        after = verdicts(home)
        changed = sum(after.get(row, "") != verdict for row, verdict in before.items())
        anew = measure("whole", whole, rules)
        kept_files = (path for path in (home / "judgements").rglob("*") if path.is_file())
        disk = sum(path.stat().st_size for path in kept_files)
    share, of_curate = kept["cpu"] / anew["cpu"], kept["curate"] / anew["curate"]
    sys.stdout.write(
        f"a night costs {share:.1%} of the whole (its curation alone {of_curate:.1%}; at most 25 %)"
        f"; snapshots {'equal' if kept['snapshot'] == anew['snapshot'] else 'DIFFERENT'}; "
        f"{changed:,} of {len(before):,} earlier verdicts changed; "
        f"what is kept takes {disk / kept['interactions']:,.0f} bytes a row\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--clones", type=int, default=20, help="rows made from one text")
    parser.add_argument("--at-most", type=int, default=MAX_ROWS)
    parser.add_argument("--curate", type=Path, help="curate this home, and print the figures")
    parser.add_argument("--rules", default="{}")
    arguments = parser.parse_args()
    if arguments.curate:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        with tempfile.TemporaryDirectory() as snapshots:
            settings = Rules.model_validate_json(arguments.rules)
            sys.stdout.write(json.dumps(curate(arguments.curate, Path(snapshots), settings)))
    else:
        settings = Rules(
            split_by="conversation", at_most=arguments.at_most, redaction=Redaction(seed=1)
        )
        report(arguments.folder, arguments.rows, arguments.clones, settings)
