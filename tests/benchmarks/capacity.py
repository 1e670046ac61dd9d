"""Compute what 1, 10 and 100 million interactions a day take: ``tests.benchmarks.capacity``.

The rates of this machine are measured first, on rows of ``--folder`` or made ones: what a receiver
stores durably a second, what one loader loads, what a row takes in the warehouse, and CPU seconds
and memory of curations of two sizes, with and without kept judgements. All else is arithmetic on
them, which the table's last column gives. It knows nothing of what a rate does on other machines.
"""

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.curate.settings import MAX_ROWS, Rules
from components.schema import Json
from components.store import warehouse
from tests.benchmarks import night, receive, traffic
from tests.support import logs, receivers

DAY = 86_400
PEAK = 5.0  # the busiest second, in means of the day
VOLUMES = (1e6, 1e7, 1e8)
RECEIVED_ROWS = 120_000  # more than can be sent in the time
HALF = 2  # of the rows in the smaller curation, for what a row adds


@dataclass(frozen=True)
class Rates:
    """What was measured on this machine, by row where nothing else is said."""

    received: float  # rows a second, beside the load generator
    loaded: float  # rows a second, one loader
    load_cpu: float  # seconds
    raw_bytes: float
    stored_bytes: float
    whole_cpu: float  # seconds of a curation that judges every row
    compare_cpu: float  # seconds for a row that was judged before
    fixed_gb: float  # memory of a curation before its first row
    row_gb: float


@dataclass(frozen=True)
class Terms:
    """What a team chooses, and what it pays."""

    keep_days: int
    at_most: int
    core_hour: float
    gb_month: float


def measure_receiver(folder: Path, rows: list[dict[str, Json]]) -> float:
    """Return the rows that a receiver stores durably a second."""
    log = folder / "received.jsonl"
    traffic.write(log, rows, RECEIVED_ROWS)
    with receivers.running(folder) as receiver:
        sent = receive.finish(receive.start(receiver, log))
    log.unlink()
    return len(sent.acknowledged) / sent.seconds


def measure_load(folder: Path, rows: list[dict[str, Json]], count: int) -> dict[str, float]:
    """Return rows and CPU seconds of a load, and the bytes of a row in the log and stored."""
    log, store = folder / "log.jsonl", folder / "store.duckdb"
    traffic.write(log, rows, count)
    began, cpu = time.monotonic(), _cpu_seconds()
    with warehouse.connect(store, memory=warehouse.COLLECTING) as con:
        empty = store.stat().st_size
        logs.load(con, log, now=datetime.now(UTC))
    return {
        "loaded": count / (time.monotonic() - began),
        "load_cpu": (_cpu_seconds() - cpu) / count,
        "raw_bytes": log.stat().st_size / count,
        "stored_bytes": (store.stat().st_size - empty) / count,
    }


def measure_curation(folder: Path, rows: list[dict[str, Json]], count: int) -> dict[str, float]:
    """Return CPU seconds and memory of a first night, and CPU seconds of one without new rows."""
    home = folder / f"home-{count}"
    home.mkdir()
    log, rules = folder / "night.jsonl", Rules(split_by="conversation")
    traffic.write(log, [row | {"workload_id": night.WORKLOAD} for row in rows], count)
    night.collect(home, log)
    first = night.measure("all rows new", home, rules)
    again = night.measure("none new", home, rules)
    return {"whole": first["cpu"], "again": again["cpu"], "memory_gb": first["memory_gb"]}


def measure(folder: Path | None, count: int) -> Rates:
    """Measure the rates of this machine."""
    rows = traffic.seeds(folder)
    with tempfile.TemporaryDirectory() as root:
        received = measure_receiver(Path(root), rows)
        load = measure_load(Path(root), rows, count)
        small = measure_curation(Path(root), rows, count // HALF)
        large = measure_curation(Path(root), rows, count)
    more = count - count // HALF
    row_gb = (large["memory_gb"] - small["memory_gb"]) / more
    return Rates(
        received=received,
        **load,
        whole_cpu=(large["whole"] - small["whole"]) / more,
        compare_cpu=(large["again"] - small["again"]) / more,
        fixed_gb=large["memory_gb"] - row_gb * count,
        row_gb=row_gb,
    )


def memory_gb(rates: Rates, rows: float) -> float:
    """Return the memory of a curation; DuckDB's, 1 GB in those measured, grows with many rows."""
    duckdb = max(0.0, rows * warehouse.CURATING_ROW_BYTES - warehouse.CURATING_BYTES) / 1e9
    return rates.fixed_gb + rates.row_gb * rows + duckdb


def table(rates: Rates, terms: Terms) -> list[tuple[str, list[str], str]]:
    """Return the lines of the table: what it is, its value by volume, how it is computed."""

    def line(name: str, how: str, form: str, *values: float) -> tuple[str, list[str], str]:
        return name, [form.format(value) for value in values], how

    days, most = terms.keep_days, terms.at_most
    kept = [min(volume * days, most) for volume in VOLUMES]
    new = [min(volume, most / days) for volume in VOLUMES]
    nightly = [
        (rates.compare_cpu * rows + (rates.whole_cpu - rates.compare_cpu) * fresh) / 3600
        for rows, fresh in zip(kept, new, strict=True)
    ]
    cores = [
        volume * (1 / rates.received + rates.load_cpu) / 3600 + hours
        for volume, hours in zip(VOLUMES, nightly, strict=True)
    ]
    stored = [volume * days * rates.stored_bytes / 1e9 for volume in VOLUMES]
    return [
        line("requests/s, mean", "volume / 86,400", "{:,.0f}", *(v / DAY for v in VOLUMES)),
        line("requests/s, peak", f"{PEAK:g} x mean", "{:,.0f}", *(PEAK * v / DAY for v in VOLUMES)),
        line(
            "receivers",
            f"peak / {rates.received:,.0f} rows/s, one more if one fails",
            "{:.0f}",
            *(math.ceil(PEAK * v / DAY / rates.received) + 1 for v in VOLUMES),
        ),
        line(
            "logged, GB a day",
            f"{rates.raw_bytes:,.0f} bytes a row",
            "{:,.1f}",
            *(v * rates.raw_bytes / 1e9 for v in VOLUMES),
        ),
        line(
            f"stored in {days} days, GB",
            f"{rates.stored_bytes:,.0f} bytes a row",
            "{:,.0f}",
            *stored,
        ),
        line(
            "loading, minutes a day",
            f"one loader, {rates.loaded:,.0f} rows/s",
            "{:,.1f}",
            *(v / rates.loaded / 60 for v in VOLUMES),
        ),
        line(
            "judging all new rows, core hours",
            f"{1000 * (rates.whole_cpu - rates.compare_cpu):.2f} ms a row",
            "{:,.1f}",
            *(v * (rates.whole_cpu - rates.compare_cpu) / 3600 for v in VOLUMES),
        ),
        line(
            f"memory of all {days} days, GB",
            f"{rates.fixed_gb:.1f} GB and {1e6 * rates.row_gb:.1f} KB a row, and of DuckDB "
            f"{warehouse.CURATING_ROW_BYTES / 1e3:.0f} KB a row where that is over 1 GB",
            "{:,.0f}",
            *(memory_gb(rates, v * days) for v in VOLUMES),
        ),
        line("rows that are curated", f"a sample of {most:,.0f}", "{:,.0f}", *kept),
        line(
            "memory of the sample, GB",
            "as above",
            "{:,.0f}",
            *(memory_gb(rates, rows) for rows in kept),
        ),
        line(
            "a night with the sample, core hours",
            f"{1000 * rates.compare_cpu:.2f} ms a row, and judging what is new",
            "{:,.1f}",
            *nightly,
        ),
        line(
            "cost a month",
            f"core hours at {terms.core_hour:g}, GB at {terms.gb_month:g}; not training, serving",
            "{:,.0f}",
            *(
                30 * hours * terms.core_hour + gb * terms.gb_month
                for hours, gb in zip(cores, stored, strict=True)
            ),
        ),
    ]


def report(lines: list[tuple[str, list[str], str]]) -> None:
    """Print the table in Markdown."""
    heads = [f"{volume / 1e6:g} M" for volume in VOLUMES]
    rows = [("interactions a day", heads, "unit rate"), ("---", ["---:"] * len(heads), "---")]
    for name, values, how in [*rows, *lines]:
        sys.stdout.write(f"| {' | '.join([name, *values, how])} |\n")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder of telemetry*.jsonl.gz to vary")
    parser.add_argument("--rows", type=int, default=200_000, help="of the larger curation")
    parser.add_argument(
        "--rates", type=Path, help="a JSON file: read the rates, or keep them there"
    )
    parser.add_argument("--keep-days", type=int, default=30)
    parser.add_argument("--at-most", type=int, default=MAX_ROWS)
    parser.add_argument("--core-hour", type=float, default=0.05, help="price of a core for an hour")
    parser.add_argument("--gb-month", type=float, default=0.10, help="price of a GB for a month")
    arguments = parser.parse_args()
    kept_rates: Path | None = arguments.rates
    if kept_rates and kept_rates.exists():
        measured = Rates(**json.loads(kept_rates.read_text()))
    else:
        sys.stdout.write(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        measured = measure(arguments.folder, arguments.rows)
        if kept_rates:
            kept_rates.write_text(json.dumps(vars(measured)))
    report(
        table(
            measured,
            Terms(arguments.keep_days, arguments.at_most, arguments.core_hour, arguments.gb_month),
        )
    )
