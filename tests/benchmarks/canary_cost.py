"""Measure what a canary and its shadow cost a request: ``python -m tests.benchmarks.canary_cost``.

Gateways without a canary, with one at a share of a half, and with one that shadows every request
stand before the same fast engine; one client asks each ``REQUESTS`` times, in blocks in random
order, with a pause after each answer, and the CPU time is that of the gateway's process.
``--before FOLDER`` is another checkout of this repository, whose gateway is measured, too. A last
run asks the shadowing gateway over many connections at once, where shadows are shed.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from components.extensions.canary.rollout_order import HOUR, RolloutOrder, RolloutPlan, ShareStep
from components.receive import client_tokens
from components.store import spool
from tests.benchmarks.serve import (
    REQUEST,
    Connection,
    free_port,
    message,
    quantile,
    running,
    say,
    wait_for,
)
from tests.support import tiny

REQUESTS, BLOCK, WARM_UP = 2_000, 50, 100
PAUSE_SECONDS = 0.02  # at most, at least half of it; without one a shadow never begins
CONNECTIONS = 32
STEPS = {"canary": (ShareStep(0.5, HOUR),), "shadow": (ShareStep(0.0, HOUR), ShareStep(0.5, HOUR))}


@dataclass
class MeasuredGateway:
    """A gateway's process, and what its answers took."""

    home: Path
    port: int
    token: str
    process: psutil.Process
    milliseconds: list[float] = field(default_factory=list[float])
    cpu_seconds: float = 0.0
    number: int = 0

    def request(self) -> bytes:
        """Return a request of a conversation of its own."""
        self.number += 1
        body = REQUEST | {
            "model": "tool-calls",
            "metadata": {"conversation_id": str(self.number)},
        }
        return message(self.port, "/v1/chat/completions", body, self.token)

    def measure(self, count: int) -> None:
        """Ask this many times over a new connection, with a pause after each answer."""
        connection = Connection(self.port)
        connection.ask(self.request())
        before = self.process.cpu_times()
        for _ in range(count):
            self.milliseconds.append(1000 * connection.ask(self.request())[-1])
            time.sleep(random.uniform(PAUSE_SECONDS / 2, PAUSE_SECONDS))
        after = self.process.cpu_times()
        self.cpu_seconds += after.user + after.system - before.user - before.system

    def shadows(self) -> dict[str, float]:
        """Return how many requests were shadowed and how many shadows were shed."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            page = answer.read().decode()
        lines = re.findall(r'rollout_shadows_total\{result="(\w+)".*\} (\S+)', page)
        return {name: float(count) for name, count in lines}


def order(name: str) -> RolloutOrder:
    plan = RolloutPlan("tool-calls", "2", "1", STEPS[name], deadline_seconds=4 * HOUR)
    shadow = 1.0 if name == "shadow" else 0.0
    return RolloutOrder("0123456789ab", plan, None, "2026-11-27T16:00:00+00:00", shadow)


def start(stack: ExitStack, name: str, base: Path, engine: int, folder: Path) -> MeasuredGateway:
    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    token = client_tokens.add_token(home / "tokens.json", "bench", now=datetime.now(UTC))
    port = free_port()
    arguments = [str(home), str(base), f"http://127.0.0.1:{engine}", str(port)]
    if name in STEPS:
        arguments.append(order(name).to_text())
    code = f"import sys; sys.path.insert(0, {str(folder)!r})"
    run = "import runpy; runpy.run_module('tests.benchmarks.gateway_alone', run_name='__main__')"
    process = stack.enter_context(running(sys.executable, "-c", f"{code}; {run}", *arguments))
    wait_for(port)
    return MeasuredGateway(home, port, token, process)


def load(gateway: MeasuredGateway, seconds: float) -> int:
    """Ask over many connections at once; return the answers."""
    answers = [0] * CONNECTIONS
    stop = threading.Event()

    def ask(number: int) -> None:
        connection = Connection(gateway.port)
        while not stop.is_set():
            connection.ask(gateway.request())
            answers[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(answers)


def logged(home: Path) -> int:
    """Return the interactions in a spool."""
    spool.recover(home / "spool")
    entries = [entry for path in spool.sealed(home / "spool") for entry in spool.read(path)]
    return sum(isinstance(e, spool.Entry) and e.kind == "interactions" for e in entries)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    folders = {"no canary": here, "canary": here, "shadow": here}
    if options.before is not None:
        folders = {"before": options.before, **folders}
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tiny.tokenizer().save_pretrained(base)
        engine = free_port()
        stack.enter_context(
            running(sys.executable, "-m", "tests.benchmarks.fast_engine", str(engine))
        )
        wait_for(engine)
        gateways = {
            name: start(stack, name, base, engine, folder) for name, folder in folders.items()
        }
        for each in gateways.values():
            each.measure(WARM_UP)
            each.milliseconds.clear()
            each.cpu_seconds = 0.0
        for _ in range(options.requests // BLOCK):
            for name in random.sample([*gateways], len(gateways)):
                gateways[name].measure(BLOCK)
        say("a whole answer               p50 ms    p99 ms   CPU ms")
        for name, each in gateways.items():
            p50, p99 = (quantile(each.milliseconds, share) for share in (0.5, 0.99))
            cpu = 1000 * each.cpu_seconds / options.requests
            say(f"{name:<26}{p50:>9.2f}{p99:>10.2f}{cpu:>9.3f}")
        shadowing = gateways["shadow"]
        say(f"shadows, one client: {json.dumps(shadowing.shadows())}")
        answers = load(shadowing, 5.0)
        say(f"shadows after {answers} more over {CONNECTIONS} connections: {shadowing.shadows()}")
        for each in gateways.values():
            each.process.terminate()
        psutil.wait_procs([each.process for each in gateways.values()], timeout=60)
        asked = shadowing.number
        say(f"logged of the {asked} requests of the shadowed gateway: {logged(shadowing.home)}")


if __name__ == "__main__":
    main()
