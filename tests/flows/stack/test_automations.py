"""What Prefect does by itself once the stack is up."""

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID

import pytest
from prefect.artifacts import Artifact
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.states import Running

from components.monitor import turn_starts
from components.monitor.turn_starts import TurnStart
from components.store import warehouse
from flows import approvals, automations, collect, maintenance, monitor, turn
from flows.monitor import TURN_WANTED
from flows.settings import HOST, Settings
from flows.stack import control
from tests.support import logins, small_workload

PATIENCE_SECONDS = 90


@pytest.fixture
def stack(settings: Settings) -> Iterator[Settings]:
    """A stack with the real flows, and this process pointed at its Prefect."""
    control.up(settings, lambda _: None)
    with logins.pointed_at(settings):
        yield settings
        EventsWorker.drain_all(timeout=30, at_exit=False)  # it would stay at this stack's server


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The test's own webhook: its URL, and what it received."""
    heard: list[dict[str, str]] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer((HOST, 0), Ear)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{HOST}:{server.server_port}/", heard
    server.shutdown()
    server.server_close()


def names() -> dict[str, bool]:
    with get_client(sync_client=True) as client:
        reply = client.request("POST", "/automations/filter", json={}).raise_for_status()
    return {one["name"]: one["enabled"] for one in reply.json()}


@pytest.mark.slow
def test_a_wanted_turn_starts_and_people_are_told_when_it_fails(
    stack: Settings, told: tuple[str, list[dict[str, str]]]
) -> None:
    url, heard = told
    assert len(names()) == 2  # nobody is told anything while there is no block to tell it
    said = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock.model_validate(
        {"name": "test", "url": url, "json_data": said}
    )
    block.save("flywheel")
    with get_client(sync_client=True) as client:
        off = client.read_automations_by_name("flywheel: crash runs without a heartbeat")[0]
        client.pause_automation(off.id)
    assert len(automations.install_automations()) == 7
    automations.install_automations()
    assert len(names()) == 7
    assert not names()[off.name]  # a person turned it off

    stack.workloads.mkdir(exist_ok=True)
    broken = stack.workloads / "shop.yaml"
    broken.write_text("workload: shop\n")
    resource = {"prefect.resource.id": "flywheel.workload.shop", "prefect.resource.name": "shop"}
    emit_event(TURN_WANTED, resource=resource, payload={"config": str(broken), "start": "s1"})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not heard and time.monotonic() < deadline:
        time.sleep(1)
    broken.unlink()
    assert heard[0]["subject"] == "Flywheel: a turn crashed or failed"
    assert "turn shop ended Failed" in heard[0]["body"]
    assert "base: is missing" in heard[0]["body"]


@pytest.mark.slow
def test_new_feedback_starts_one_turn_and_the_book_says_why(
    stack: Settings, tmp_path: Path
) -> None:
    config = small_workload.write(tmp_path / "small")
    config.write_text(config.read_text() + "trigger: {min_feedback: 6}\n")
    assert "no turn: 0 new feedback" in monitor.consider(str(config))
    collect.collect(str(config))
    assert "asks for a turn: 6 new feedback" in monitor.consider(str(config))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not taken(stack) and time.monotonic() < deadline:
        time.sleep(1)
    first, second = taken(stack)[0], monitor.consider(str(config))
    assert "no turn: a turn is under way" in second  # it is that turn's, once that has ended
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(first.flow_run_id))
    assert run.parameters["start"] == first.start_id

    stack.workloads.mkdir(exist_ok=True)
    (stack.workloads / config.name).symlink_to(config)
    (stack.workloads / "other.yaml").write_text("workload: other\n")
    assert monitor.monitor(span_days=3000).startswith("1 workloads, 1 files with mistakes")
    artifact = Artifact.get(approvals.artifact_key("monitor", small_workload.WORKLOAD))
    assert f"| {small_workload.REQUESTS} |" in str(artifact)


def taken(stack: Settings) -> list[TurnStart]:
    with warehouse.connect(stack.warehouse) as con:
        automation = turn_starts.read_starts(con, small_workload.WORKLOAD, None)
    return [one for one in automation if one.flow_run_id]


@pytest.mark.slow
def test_a_run_that_never_beat_is_crashed_and_a_young_one_is_not(stack: Settings) -> None:
    with get_client(sync_client=True) as client:
        ours = client.read_deployment_by_name("turn/turn").id
        begun = partial(
            client.create_flow_run_from_deployment,
            ours,
            parameters={"config": "of-nothing.yaml"},
            state=Running(),
        )
        lost = begun().id
        somebody_elses = client.create_flow_run(turn.turn, state=Running()).id
        time.sleep(6)
        young = begun().id
        assert "1 runs were dead" in str(maintenance.maintenance(silence_seconds=5, verify=False))
        states = {
            run: client.read_flow_run(run).state_type for run in (lost, somebody_elses, young)
        }
    running = StateType.RUNNING
    assert states == {lost: StateType.CRASHED, somebody_elses: running, young: running}
