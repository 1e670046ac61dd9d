"""Measure the receiver: durable interactions a second, latency, and what a kill -9 loses.

A receiver and a load generator of 64 connections run as processes of their own. First they run
undisturbed; then the receiver is killed with -9 under load and started again, and its spool is
collected. Run: ``.venv/bin/python -m tests.benchmarks.receive [--seeds FOLDER]``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from components.store import warehouse
from tests.benchmarks import load, traffic
from tests.benchmarks.load import Sent
from tests.support import logs, receivers
from tests.support.receivers import Receiver

CONNECTIONS = 64
SECONDS = 15.0
SECONDS_BEFORE_THE_KILL = 4.0
ROWS = 120_000
"""Interactions in each log: more than can be sent in the time."""

LEAST_RATE = 2000
MAX_P99 = 150.0


def main() -> None:
    """Measure, print, and exit with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=Path, help="folder of telemetry*.jsonl.gz to vary")
    rows = traffic.seeds(parser.parse_args().seeds)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        log, second = home / "log.jsonl", home / "second.jsonl"
        traffic.write(log, rows, ROWS, seed=0)
        traffic.write(second, rows, ROWS, seed=1)
        with receivers.running(home) as receiver:
            sent = finish(start(receiver, log))
            killed = send_and_kill(receiver, second)
        with receivers.running(home):
            pass  # it recovers what the killed one left
        stored = collect(home)
        acknowledged = ids(log, sent) | ids(second, killed)
    rate = len(sent.acknowledged) / sent.seconds
    lost = len(acknowledged - stored)
    say(f"{CONNECTIONS} connections, one interaction a request, {sent.refused} refused")
    say(f"durable:  {rate:,.0f} interactions/s (target: {LEAST_RATE:,} or more)")
    say(f"latency:  p50 {sent.p50:.1f} ms, p99 {sent.p99:.1f} ms (target: under {MAX_P99:g} ms)")
    say(f"kill -9:  {len(acknowledged):,} acknowledged, {len(stored):,} stored, {lost} lost")
    sys.exit(0 if rate >= LEAST_RATE and sent.p99 < MAX_P99 and not lost else 1)


def start(receiver: Receiver, log: Path) -> "subprocess.Popen[str]":
    """Start the load generator."""
    asked = [receiver.url, receiver.token, log, SECONDS, CONNECTIONS]
    command = [sys.executable, load.__file__, *map(str, asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(generator: "subprocess.Popen[str]") -> Sent:
    """Wait for the load generator; say what it found."""
    printed, _ = generator.communicate()
    return Sent(**json.loads(printed))


def send_and_kill(receiver: Receiver, log: Path) -> Sent:
    """Kill the receiver under load."""
    generator = start(receiver, log)
    time.sleep(SECONDS_BEFORE_THE_KILL)
    receiver.kill()
    return finish(generator)


def collect(home: Path) -> set[str]:
    """Collect the spool; give the response ids that are in the warehouse then."""
    with warehouse.connect(home / "warehouse.duckdb") as con:
        logs.load_spool(con, home / "spool", now=datetime.now(UTC))
        found = con.execute("select payload ->> '$.response.id' from raw.interactions").fetchall()
    return {response_id for (response_id,) in found}


def ids(log: Path, sent: Sent) -> set[str]:
    """Give the response ids of the lines that were acknowledged."""
    lines = log.read_text().splitlines()
    return {json.loads(lines[number - 1])["response"]["id"] for number in sent.acknowledged}


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
