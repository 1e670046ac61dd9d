import json
import os
import subprocess
import sys
from typing import Any

import httpx

from flows.stack import health
from flows.stack.health import EVERY, FLOW_RUN, PATIENCE, LostRuns

API = "http://prefect/api"


class FakePrefect:
    """The few routes of the Prefect API that the supervisor uses, over a dict of runs."""

    def __init__(self, **states: str) -> None:
        self.states = states
        self.pools: dict[str, str | None] = dict.fromkeys(states, "cpu")
        self.parents: dict[str, str] = {}
        self.stubborn: set[str] = set()
        self.heartbeats: dict[str, str] = {}
        self.http = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body: dict[str, Any] = json.loads(request.content)
        parts = request.url.path.split("/")
        if parts[2] == "work_pools":
            beats = [
                {"name": name, "last_heartbeat_time": beat}
                for name, beat in self.heartbeats.items()
            ]
            return httpx.Response(200, json=beats)
        if parts[3] == "filter":
            return httpx.Response(200, json=[self._run(name) for name in self._find(body)])
        if parts[3] in self.stubborn and not body.get("force"):
            return httpx.Response(200, json={"status": "REJECT"})
        self.states[parts[3]] = body["state"]["type"]
        return httpx.Response(200, json={"status": "ACCEPT"})

    def _find(self, body: dict[str, Any]) -> list[str]:
        wanted = body["flow_runs"]
        pools = body.get("work_pools", {}).get("name", {}).get("any_")
        tasks = body.get("task_runs", {}).get("id", {}).get("any_")
        return [
            name
            for name, state in self.states.items()
            if state in wanted["state"]["type"]["any_"]
            and (pools is None or self.pools[name] in pools)
            and (tasks is None or f"task-of-{name}" in tasks)
            and ("parent_task_run_id" not in wanted or name in self.parents)
        ]

    def _run(self, name: str) -> dict[str, Any]:
        parent = self.parents.get(name)
        task = f"task-of-{parent}" if parent else None
        return {"id": name, "work_pool_name": self.pools[name], "parent_task_run_id": task}


def test_every_run_that_needs_a_process_is_crashed_and_no_other() -> None:
    states = {"a": "PENDING", "b": "RUNNING", "c": "CANCELLING", "d": "PAUSED", "e": "SCHEDULED"}
    prefect = FakePrefect(**states, f="COMPLETED")
    LostRuns(prefect.http, API).crash("gone")
    assert list(prefect.states.values()) == ["CRASHED"] * 3 + ["PAUSED", "SCHEDULED", "COMPLETED"]


def test_only_the_runs_of_the_dead_workers_pool_are_crashed() -> None:
    prefect = FakePrefect(a="RUNNING", b="RUNNING")
    prefect.pools["b"] = "gpu"
    LostRuns(prefect.http, API).crash("gone", "gpu")
    assert prefect.states == {"a": "RUNNING", "b": "CRASHED"}


def test_subflows_crash_once_the_run_that_they_are_part_of_has_ended() -> None:
    prefect = FakePrefect(turn="RUNNING", collect="RUNNING", load="RUNNING", other="RUNNING")
    prefect.pools |= {"collect": None, "load": None, "other": None}
    prefect.parents |= {"collect": "turn", "load": "collect"}
    lost = LostRuns(prefect.http, API)
    lost.look_round(now=0)
    assert set(prefect.states.values()) == {"RUNNING"}
    prefect.states["turn"] = "CRASHED"  # as its own process reported while it was ended
    lost.crash("gone", "cpu")
    assert prefect.states == dict.fromkeys(("turn", "collect", "load"), "CRASHED") | {
        "other": "RUNNING"
    }


def test_a_refused_crash_is_forced() -> None:
    prefect = FakePrefect(a="CANCELLING")
    prefect.stubborn.add("a")
    LostRuns(prefect.http, API).crash("gone")
    assert prefect.states == {"a": "CRASHED"}


def test_a_run_without_a_process_is_given_time_and_then_crashed() -> None:
    prefect = FakePrefect(a="RUNNING")
    lost = LostRuns(prefect.http, API)
    lost.look_round(now=100)
    lost.look_round(now=100 + PATIENCE)
    assert prefect.states == {"a": "RUNNING"}
    lost.look_round(now=100 + PATIENCE + EVERY)
    assert prefect.states == {"a": "CRASHED"}


def test_a_run_whose_process_lives_is_left_alone() -> None:
    prefect = FakePrefect(a="RUNNING")
    lost = LostRuns(prefect.http, API)
    command = [sys.executable, "-c", "print(flush=True); input()"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, FLOW_RUN: "a"},
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        for now in range(0, int(10 * PATIENCE), int(EVERY)):
            lost.look_round(now=now)
        process.kill()
    assert prefect.states == {"a": "RUNNING"}


def test_the_last_heartbeat_is_that_of_the_stacks_own_worker() -> None:
    prefect = FakePrefect()
    assert health.last_heartbeat(prefect.http, API, "cpu") is None
    prefect.heartbeats = {"somebody's": "2026-11-24T10:00:01Z", "cpu": "2026-11-24T09:59:59Z"}
    assert health.last_heartbeat(prefect.http, API, "cpu") == "2026-11-24T09:59:59Z"
