"""How the time for hostile rows and requests grows with their size, and who waits meanwhile.

    heavy python -m tests.benchmarks.hostile [--size 131072] [--attack NAME] [--requests 1048576]

For each row it prints the processor time of judging it at 1, 2 and 4 times the size and the ratios;
2 and 4 are linear. A row that is left out, because of a bound or of its deadline, says so. For each
request it prints how long the receiver takes for it, and what 99 % of another client's small
requests took meanwhile. Compare on a machine that does nothing else.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from components.curate import judging
from components.curate.rules.dispositions import Dispositions
from components.curate.settings import Rules
from components.receive import tokens
from tests.receive import receivers
from tests.receive.receivers import Receiver
from tests.security import attacks

RULES = Rules(max_prompt_chars=10**9, rules=Dispositions.model_validate({"repetition": "ignore"}))
"""So that redaction gets to see what is repeated."""

SECONDS = 3.0
"""So long each request is sent again and again."""

SMALL = b'{"timestamp":1,"workload_id":"w","request":{},"response":{}}'


def judged(name: str, size: int) -> tuple[float, str]:
    """Judge a row; return its processor time, and the verdict with its mark."""
    row = attacks.ROWS[name](size)
    began = time.process_time()
    found = judging.judge(row, RULES)
    took = max(time.process_time() - began, 1e-4)
    return took, " ".join(filter(None, [found.objection or "kept", found.mark]))


def answered(receiver: Receiver, name: str, size: int, other: str) -> tuple[float, float, int]:
    """Send a request for a while; return its seconds, another client's p99, and the status."""
    request = attacks.REQUESTS[name](size)
    took: list[float] = []
    is_over = threading.Event()

    def others() -> None:
        with httpx.Client(headers={"authorization": f"Bearer {other}"}, timeout=60) as client:
            while not is_over.is_set():
                began = time.perf_counter()
                client.post(receiver.url + "/v1/interactions", content=SMALL).raise_for_status()
                took.append(time.perf_counter() - began)

    thread = threading.Thread(target=others)
    thread.start()
    began, count, status = time.perf_counter(), 0, 0
    while time.perf_counter() - began < SECONDS:
        status = receiver.post("/v1/interactions", **request).status_code
        count += 1
    seconds = (time.perf_counter() - began) / count
    is_over.set()
    thread.join()
    return seconds, statistics.quantiles(took, n=100)[-1], status


def main(arguments: list[str]) -> None:
    """Print a line for each attack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2**17)
    parser.add_argument("--requests", type=int, default=2**20)
    parser.add_argument("--attack", action="append", choices=[*attacks.ROWS, *attacks.REQUESTS])
    given = parser.parse_args(arguments)
    wanted = given.attack or [*attacks.ROWS, *attacks.REQUESTS]
    for name in ("one word", "many secrets", "marks on a letter"):
        judged(name, 1000)  # loads what is loaded once a process
    for name in (one for one in attacks.ROWS if one in wanted):
        found = [judged(name, factor * given.size) for factor in (1, 2, 4)]
        (once, _), (twice, _), (four, verdict) = found
        sys.stdout.write(
            f"{name:30} {once:7.3f} s {twice:7.3f} s {four:7.3f} s   "
            f"ratios {twice / once:4.1f} {four / once:4.1f}   {verdict}\n"
        )
        sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder, receivers.running(Path(folder)) as receiver:
        other = tokens.add(Path(folder) / "tokens.json", "other", now=datetime.now(UTC))
        for name in (one for one in attacks.REQUESTS if one in wanted):
            for factor in (1, 2, 4):
                seconds, p99, status = answered(receiver, name, factor * given.requests, other)
                sys.stdout.write(
                    f"{name:30} {factor} x {given.requests:,} bytes: {seconds:6.3f} s, answered "
                    f"with {status}; p99 of another client {1000 * p99:6.1f} ms\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
