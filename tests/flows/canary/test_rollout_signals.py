"""A canary that is decided is settled at once, by one run for each of its states."""

import json
import time
from pathlib import Path

import httpx
import pytest
from s3fs import S3FileSystem

from components.extensions.canary import shared_rollouts
from components.extensions.machines.object_store import ObjectStore
from components.schema import Json
from flows.canary import rollout_reports
from flows.canary.rollout_signals import EVERY, RolloutSignals, decided
from flows.settings import Settings
from tests.support import buckets


class FakeDeployments:
    """The two routes of the Prefect API that start a run; it may be away."""

    def __init__(self) -> None:
        self.started: dict[str, str] = {}
        self.requests = 0
        self.is_away = False
        self.http = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            return httpx.Response(503)
        if request.method == "GET":
            assert request.url.path.endswith("/deployments/name/settle_rollouts/settle_rollouts")
            return httpx.Response(200, json={"id": "d1"})
        self.requests += 1
        body = json.loads(request.content)
        self.started[body["idempotency_key"]] = body["parameters"]["workload"]
        return httpx.Response(201, json={})


def write(home: Settings, workload: str, **content: str) -> Path:
    file = rollout_reports.rollout_file(home, workload)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"id": "abc", "workload": workload, **content}))
    return file


def test_each_state_of_a_canary_starts_one_run(tmp_path: Path) -> None:
    home, prefect = Settings(tmp_path, 4200, 5000), FakeDeployments()
    signals = RolloutSignals(prefect.http, home)
    signals.look_round(0.0)
    write(home, "support", state="running")
    write(home, "other", state="hold", id="def")
    signals.look_round(EVERY)
    signals.look_round(2 * EVERY)
    assert prefect.started == {"settle def hold": "other"}
    assert prefect.requests == 1
    write(home, "support", state="undecided")
    signals.look_round(2.5 * EVERY)  # too early
    assert prefect.requests == 1
    prefect.is_away = True
    with pytest.raises(httpx.HTTPError):
        signals.look_round(3 * EVERY)
    prefect.is_away = False
    signals.look_round(4 * EVERY)
    write(home, "support", state="roll back")
    signals.look_round(5 * EVERY)
    expected = {"settle abc undecided": "support", "settle abc roll back": "support"}
    assert prefect.started == {"settle def hold": "other"} | expected


def test_what_is_no_report_starts_nothing(tmp_path: Path) -> None:
    home, prefect = Settings(tmp_path, 4200, 5000), FakeDeployments()
    signals = RolloutSignals(prefect.http, home)
    write(home, "support", state="hold").write_text('{"id": 3')
    write(home, "support", state="hold").rename(rollout_reports.rollout_file(home, "other"))
    write(home, "third", state="hold").write_text("[" * 100_000)
    signals.look_round(0.0)
    assert prefect.requests == 0


def test_what_gateways_on_other_machines_decide_starts_a_run_too(tmp_path: Path) -> None:
    with buckets.serving():
        store = ObjectStore("s3://flywheel/team")
        home, prefect = Settings(tmp_path, 4200, 5000, store=store), FakeDeployments()
        standing: dict[str, Json] = {"id": "abc", "workload": "support", "state": "running"}
        shared_rollouts.write_standing(store, "abc", standing)
        shared_rollouts.end_once(store, "def", {"id": "other", "state": "hold", "workload": "x"})
        store.write("rollouts/broken/end.json", "{")
        system = S3FileSystem(use_listings_cache=False)
        system.pipe_file("flywheel/team/rollouts/a broken one/status.json", b"\xff")
        known: dict[str, str] = {}
        assert [*decided(store, known)] == []
        shared_rollouts.write_standing(store, "abc", {**standing, "state": "undecided"})
        assert [*decided(store, known)] == [("support", "abc undecided")]
        assert [*decided(store, known)] == []
        shared_rollouts.end_once(store, "abc", {**standing, "state": "roll back"})
        assert [*decided(store, known)] == [("support", "abc roll back")]
        assert [*decided(store, known)] == []
        signals, now = RolloutSignals(prefect.http, home), 0.0
        prefect.is_away = True
        with pytest.raises(httpx.HTTPError):
            while True:  # until the thread has read it
                signals.look_round(now := now + EVERY)
                time.sleep(0.05)
        prefect.is_away = False
        signals.look_round(now + EVERY)
    assert prefect.started == {"settle abc roll back": "support"}
