"""Traffic of the soak: each turn brings requests and votes, through the receiver and as files.

A client sends the same body again until the receiver has acknowledged it, as clients do. So what is
sent twice and what is stored must be told apart by whoever counts.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from flows.settings import HOST
from tests.soak.machine import Machine
from tests.support import small_workload

LIVE, FILED, VOTES = 8, 4, 2
"""Requests and votes of a turn."""

PATIENCE = 300.0
"""Seconds that a client goes on sending while nobody acknowledges."""


@dataclass
class Sent:
    """What a workload's applications know to be kept: response ids, and who voted on them."""

    interactions: list[str] = field(default_factory=list[str])
    votes: list[str] = field(default_factory=list[str])
    attempts: Counter[str] = field(default_factory=Counter[str])


def begin(folder: Path, workload: str, base: Path, sent: Sent) -> None:
    """Write the traffic of the time before."""
    folder.mkdir()
    (folder / "base").symlink_to(base)
    small_workload.write(folder, workload)
    sent.interactions += [f"answer-{number}" for number in range(small_workload.REQUESTS)]
    sent.votes += [f"person-{number}" for number in range(0, small_workload.REQUESTS, 8)]


def bring(machine: Machine, folder: Path, workload: str, first: int, sent: Sent) -> int:
    """Bring a turn's traffic; give the first number of the next one's."""
    live = range(first, first + LIVE)
    for half in (live[: LIVE // 2], live[LIVE // 2 :]):
        rows = [small_workload.interaction(number, workload) for number in half]
        post(machine, "interactions", "\n".join(json.dumps(row) for row in rows), sent)
        sent.interactions += [f"answer-{number}" for number in half]
    votes = [small_workload.vote(number, workload) for number in live[:VOTES]]
    post(machine, "feedback", json.dumps(votes), sent)
    sent.votes += [f"person-{number}" for number in live[:VOTES]]
    filed = range(live.stop, live.stop + FILED)
    small_workload.add_log(folder, filed.start, FILED, workload)
    sent.interactions += [f"answer-{number}" for number in filed]
    return filed.stop


def post(machine: Machine, path: str, body: str, sent: Sent) -> None:
    """Send a body until it is acknowledged."""
    url = f"http://{HOST}:{machine.port}/v1/{path}"
    headers = {"authorization": f"Bearer {machine.token}"}
    deadline = time.monotonic() + PATIENCE
    while True:
        sent.attempts[path] += 1
        try:
            answer = httpx.post(url, content=body, headers=headers, timeout=20, trust_env=False)
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"nobody took {path} for {PATIENCE:g} s"
        else:
            if answer.status_code == 200:
                return
            assert answer.status_code in (429, 503), answer.text
        time.sleep(0.5)
