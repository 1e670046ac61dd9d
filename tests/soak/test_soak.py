"""Weeks of work in an hour: people turn their workloads while processes are killed at random.

``pytest -m slow tests/soak -s`` is a short one; ``FLYWHEEL_SOAK_TURNS=20`` makes it the whole,
``FLYWHEEL_SOAK_SEED`` another.
"""

import os
import random
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.soak import killer, machine, outside
from tests.soak.killer import Killer
from tests.soak.machine import Machine
from tests.soak.person import Person
from tests.support import logins, small_workload

TURNS = int(os.environ.get("FLYWHEEL_SOAK_TURNS", "2"))
SEED = int(os.environ.get("FLYWHEEL_SOAK_SEED", "1"))
WORKLOADS = ("alpha", "beta", "gamma")

QUIET = 240.0
"""Seconds in which what a kill left behind must be settled by itself."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 + 900 * TURNS)]


def test_nothing_is_lost_doubled_or_left_over_however_often_processes_are_killed(
    tmp_path: Path,
) -> None:
    base, is_over = small_workload.stubborn_base(tmp_path / "base"), Event()
    began = time.monotonic()
    with machine.running(tmp_path) as here:
        people = [
            Person(here, name, random.Random(f"{SEED} {name}"))  # each draws alike every time
            for name in WORKLOADS
        ]
        with machine.receiving(here):
            with killer.about(here, SEED) as killed, ThreadPoolExecutor(len(people)) as pool:
                working = [pool.submit(one.work, TURNS, base, is_over) for one in people]
                for done in working:
                    done.result()
            took = time.monotonic() - began
            settle(here, people)
        for places in ([one.config for one in people], []):  # the files; what the receiver took
            assert here.type("collect", *places).returncode == 0, here.newest()
        assert here.type("audit", "--verify").returncode == 0, here.newest()
        down = time.monotonic()
        assert here.type("down").returncode == 0
        down = time.monotonic() - down
        left = [" ".join(each.cmdline()) for each in here.processes()]
        sys.stdout.write(f"\n{summary(people, killed, here, took)}\n")
    assert not left, "processes of the home are left"
    assert down < 25, "`flywheel down` promises 20 s"
    home = here.home
    found = outside.all_of(
        outside.checks(home, people),
        outside.rows(home, people),
        outside.flow_runs(home),
        outside.turns(home, people),
        outside.decisions(home, people),
        outside.champions(home, people),
        outside.tracked(home),
        outside.files(home, here.scratch),
        confused(here),
    )
    assert found == [], "\n".join(found)
    assert all(len(one.turns) == TURNS for one in people)


def settle(here: Machine, people: list[Person]) -> None:
    """Wait until nothing runs any more, then let maintenance look, as it does by the hour."""
    here.bring_up()
    wait_until_quiet(here)
    found = ask(here, "GET", "deployments/name/maintenance/maintenance")
    ask(here, "POST", f"deployments/{found['id']}/create_flow_run", {"state": SCHEDULED})
    wait_until_quiet(here)


SCHEDULED = {"type": "SCHEDULED"}


def wait_until_quiet(here: Machine) -> None:
    states = {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]}}
    wanted = {"flow_runs": {"state": states}, "limit": 200}
    deadline = time.monotonic() + QUIET
    while time.monotonic() < deadline:
        found = ask(here, "POST", "flow_runs/filter", wanted)
        if not [
            run for run in found if not (run["auto_scheduled"] and run["state_type"] == "SCHEDULED")
        ]:
            return
        time.sleep(1)


def ask(here: Machine, method: str, path: str, body: object = None) -> Any:
    """Ask the Prefect server; its SQLite is busy now and then, and nobody kills it any more."""
    with logins.prefect(here.shell.settings) as prefect:
        while True:
            answer = prefect.request(method, f"/{path}", json=body)
            if answer.status_code != 503:
                return answer.raise_for_status().json()
            time.sleep(1)


def confused(here: Machine) -> list[str]:
    """Find what commands said that no person can use."""
    return [said for said in here.transcript if "Traceback" in said]


def summary(people: list[Person], killed: Killer, here: Machine, took: float) -> str:
    """Say on one line what was done and what it took."""
    turns = [turn for one in people for turn in one.turns]
    endings = Counter(turn.said.split(":")[0].split(" by ")[0] for turn in turns)
    seconds = sorted(turn.seconds for turn in turns)
    median = statistics.median(seconds)
    rows = sum(len(one.sent.interactions) for one in people)
    sent = sum((one.sent.attempts for one in people), Counter[str]())
    return (
        f"soak, seed {SEED}: {len(turns)} turns in {took:.0f} s "
        f"(one {seconds[0]:.0f} to {seconds[-1]:.0f}, half under {median:.0f}); "
        f"{killed.killed.total()} kills ({_counted(killed.killed)}); "
        f"{sum(turn.attempts for turn in turns)} `turn`s typed, {here.ups} `up`s; "
        f"{_counted(endings)}; {sum(one.rollbacks for one in people)} rollbacks; "
        f"{rows} interactions; {sent.total()} requests to the receiver"
    )


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in sorted(counter.items()))
