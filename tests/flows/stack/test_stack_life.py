"""The whole stack, with real servers and workers: what is killed comes back or is cleared up."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.settings import HOST, Settings
from flows.stack import control, processes, stack_services
from flows.stack.processes import ProcessIdentity
from tests.support import logins

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def up(shared_settings: Settings) -> Settings:
    """Bring the file's stack up, or find it up."""
    control.up(shared_settings, lambda _: None, "tiny_deploy")
    return shared_settings


def eventually(claim: Callable[[], bool], seconds: float = 90) -> bool:
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.2)
    return claim()


def test_prefects_background_worker_looks_as_seldom_as_it_is_told() -> None:
    script = """
import asyncio
from docket import Docket
from prefect.server.api import background_workers
from flows.stack.guarded_server import TASKS_LOOK_EVERY, look_less_often
made, cancelled = [], []
look_less_often()
worker = background_workers.Worker
background_workers.Worker = lambda docket: made.append(worker(docket)) or made[0]
async def endless():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled.append(True)
        raise
async def serve():
    async with Docket("test", "memory://test") as docket:
        async with background_workers.background_worker(docket):
            pass
    async with Docket("other", "memory://other") as docket, worker(docket) as patient:
        docket.register(endless)
        serving = asyncio.create_task(patient.run_forever())
        await docket.add(endless, key="endless")()
        await asyncio.sleep(1)
        await docket.cancel("endless")
        await asyncio.sleep(3)
        serving.cancel()
asyncio.run(serve())
assert made[0].minimum_check_interval == made[0].scheduling_resolution == TASKS_LOOK_EVERY
assert cancelled
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def post(settings: Settings, path: str, body: dict[str, Any]) -> Any:
    """Ask the server; SQLite is busy now and then, and Prefect's own client asks again, too."""
    with logins.prefect(settings) as prefect:
        answer = prefect.post(f"/{path}", json=body)
        for _ in range(5):
            if answer.status_code != 503:
                break
            time.sleep(1)
            answer = prefect.post(f"/{path}", json=body)
    return answer.raise_for_status().json()


def get(settings: Settings, path: str) -> Any:
    with logins.prefect(settings) as prefect:
        return prefect.get(f"/{path}").raise_for_status().json()


def start_flow(settings: Settings, name: str, config: Path) -> str:
    deployment = get(settings, f"deployments/name/{name}/{name}")["id"]
    body = {"parameters": {"config": str(config)}, "state": {"type": "SCHEDULED"}}
    return post(settings, f"deployments/{deployment}/create_flow_run", body)["id"]


def state_of(settings: Settings, run: str) -> str:
    return get(settings, f"flow_runs/{run}")["state"]["type"]


def service_pid(settings: Settings, name: str) -> int:
    status = next(each for each in control.stack_status(settings).services if each.name == name)
    return status.process.pid if status.process else 0


def train(settings: Settings, folder: Path, flow: str = "endless") -> tuple[str, ProcessIdentity]:
    """Start a flow that runs a trainer; return both once the trainer runs."""
    note = folder / "pid"
    run = start_flow(settings, flow, note)
    assert eventually(lambda: note.exists() and note.read_text() != "")
    return run, processes.identify_process(int(note.read_text()))


def all_processes(settings: Settings) -> list[psutil.Process]:
    return processes.marked_processes(stack_services.MARK, stack_services.stack_mark(settings))


def test_a_second_up_finds_the_stack_up_at_once(up: Settings) -> None:
    output: list[str] = []
    start = time.monotonic()
    control.up(up, output.append)
    assert output == ["the stack is already up"]
    assert time.monotonic() - start < 1
    assert control.stack_status(up).is_up


def test_a_deployed_flow_runs_in_this_home(up: Settings, tmp_path: Path) -> None:
    run = start_flow(up, "quick", tmp_path / "said")
    assert eventually(lambda: state_of(up, run) == "COMPLETED")
    assert (tmp_path / "said").read_text() == "ran"


@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker-cpu", "worker-gpu"])
def test_a_killed_service_comes_back(up: Settings, name: str) -> None:
    killed = service_pid(up, name)
    os.kill(killed, signal.SIGKILL)
    assert eventually(
        lambda: service_pid(up, name) not in {0, killed} and control.stack_status(up).is_up
    )
    servers = [each for each in all_processes(up) if "flows.stack.guarded_server" in each.cmdline()]
    assert len(servers) == 2


def test_a_home_that_is_away_for_a_moment_ends_no_stack(up: Settings) -> None:
    killed, first = service_pid(up, "worker-cpu"), supervisor(up)
    away = up.home.rename(up.home.with_name("away"))
    os.kill(killed, signal.SIGKILL)
    time.sleep(5)  # its restart fails meanwhile
    away.rename(up.home)
    assert eventually(
        lambda: service_pid(up, "worker-cpu") not in {0, killed} and control.stack_status(up).is_up
    )
    assert supervisor(up) == first


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_server_that_hangs_is_seen_within_30_s_and_comes_back(up: Settings, name: str) -> None:
    stopped = service_pid(up, name)
    began = time.monotonic()
    for process in [psutil.Process(stopped), *psutil.Process(stopped).children(recursive=True)]:
        process.suspend()
    asked = control.probe_services(control.stack_status(up))
    assert [each.name for each in asked.services if each.condition == "hanging"] == [name]
    assert eventually(lambda: not control.stack_status(up).is_up, seconds=30)
    assert time.monotonic() - began < 30
    assert eventually(lambda: service_pid(up, name) not in {0, stopped}, seconds=120)
    assert eventually(lambda: control.probe_services(control.stack_status(up)).is_up, seconds=200)
    assert f"{name} hangs (12 checks failed): kill it" in (up.logs / "stack.log").read_text()


def test_a_killed_workers_run_crashes_and_its_trainer_ends(up: Settings, tmp_path: Path) -> None:
    run, trainer = train(up, tmp_path)
    os.kill(service_pid(up, "worker-gpu"), signal.SIGKILL)
    assert eventually(lambda: state_of(up, run) == "CRASHED")
    assert eventually(lambda: not processes.is_alive(trainer))
    assert eventually(lambda: control.stack_status(up).is_up)
    (tmp_path / "pid").unlink()
    _, again = train(up, tmp_path)  # the slot of the killed run is free
    assert processes.is_alive(again)
    assert_down_ends_everything(up)


def test_a_killed_workers_subflow_crashes_with_its_parent(up: Settings, tmp_path: Path) -> None:
    run, trainer = train(up, tmp_path, "parent")
    os.kill(service_pid(up, "worker-cpu"), signal.SIGKILL)
    assert eventually(lambda: state_of(up, run) == "CRASHED")
    assert eventually(lambda: not unfinished(up))
    assert eventually(lambda: not processes.is_alive(trainer))


def test_a_run_survives_the_kill_of_the_server(up: Settings, tmp_path: Path) -> None:
    run, trainer = train(up, tmp_path)
    killed = service_pid(up, "prefect")
    os.kill(killed, signal.SIGKILL)
    assert eventually(
        lambda: service_pid(up, "prefect") != killed and control.stack_status(up).is_up
    )
    assert state_of(up, run) == "RUNNING"
    os.kill(trainer.pid, signal.SIGKILL)
    assert eventually(lambda: state_of(up, run) == "COMPLETED")


def test_up_clears_up_after_a_killed_supervisor(up: Settings, tmp_path: Path) -> None:
    run, trainer = train(up, tmp_path)
    before = {each.pid for each in all_processes(up)}
    os.kill(supervisor(up), signal.SIGKILL)
    assert eventually(lambda: control.stack_status(up).phase == "lost")
    control.up(up, lambda _: None, "tiny_deploy")
    assert state_of(up, run) == "CRASHED"
    assert eventually(lambda: not processes.is_alive(trainer))
    assert not before & {each.pid for each in all_processes(up)}


def test_down_clears_up_after_a_killed_supervisor(up: Settings, tmp_path: Path) -> None:
    train(up, tmp_path)
    os.kill(supervisor(up), signal.SIGKILL)
    assert_down_ends_everything(up)


def test_interrupting_up_ends_what_it_started(settings: Settings) -> None:
    start = (
        # A suite in the background ignores what Ctrl-C sends, and what it starts would, too.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from pathlib import Path; from flows.settings import Settings;"
        "from flows.stack import control;"
        f"settings = Settings(Path({str(settings.home)!r}), {settings.prefect_port},"
        f" {settings.mlflow_port});"
        "control.up(settings, lambda line: print(line, flush=True), 'tiny_deploy')"
    )
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert eventually(lambda: bool(all_processes(settings)))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    assert not all_processes(settings)
    assert control.stack_status(settings).phase == "down"


def test_a_gateway_that_is_killed_comes_back_and_goes_down_with_the_stack(
    settings: Settings,
) -> None:
    with socket.socket() as one:
        one.bind((HOST, 0))
        serving = replace(settings, serve_port=one.getsockname()[1])
    control.up(serving, lambda _: None, "tiny_deploy")
    first = service_pid(serving, "gateway")
    assert httpx.get(f"{serving.serve_url}/healthz").json() == {"status": "ok"}
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: service_pid(serving, "gateway") not in (0, first))
    assert eventually(lambda: is_answering(f"{serving.serve_url}/healthz"))
    assert_down_ends_everything(serving)
    assert not (serving.serve / "status.json").exists()


def is_answering(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def supervisor(settings: Settings) -> int:
    return psutil.Process(service_pid(settings, "prefect")).ppid()


def unfinished(settings: Settings) -> list[Any]:
    wanted = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    return post(settings, "flow_runs/filter", {"flow_runs": wanted})


def assert_down_ends_everything(settings: Settings) -> None:
    start = time.monotonic()
    assert control.down(settings)
    assert time.monotonic() - start < 20
    assert not all_processes(settings)
    assert control.stack_status(settings).phase == "down"
