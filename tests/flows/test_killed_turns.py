"""Kill any part of a turn in the middle and run the command again: it ends as if undisturbed."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.jobs import runner
from flows.stack import control
from tests.support import logins, small_workload, terminal, warehouses
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 60
STEPS = 240
"""What 60 epochs of the small workload's 27 examples, 8 a step, come to."""

Victim = Callable[[Terminal], int]
Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """One home for the whole file; each test has a workload of its own in it."""
    shell = terminal.in_home(tmp_path_factory.mktemp("killed") / "home")
    yield shell
    shell.run("down")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_workload.stubborn_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def undisturbed(shell: Terminal, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What is in the warehouse after a turn that nothing happened to."""
    config = prepare(tmp_path_factory.mktemp("undisturbed"), base, "undisturbed")
    bring_up(shell)
    turn = shell.start("turn", config)
    assert terminal.QUESTION in terminal.said_until_asked(turn)
    approve(shell, turn, config.stem)
    return rows(shell, config.stem)


def trainer(shell: Terminal) -> int:
    matches = [each for each in shell.processes() if is_job(each, "train")]
    assert len(matches) == 1
    return matches[0].pid


def service(name: str) -> Victim:
    def pid(shell: Terminal) -> int:
        services = control.stack_status(shell.settings).services
        process = next(each.process for each in services if each.name == name)
        assert process is not None
        return process.pid

    return pid


def supervisor(shell: Terminal) -> int:
    return psutil.Process(service("prefect")(shell)).ppid()


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(trainer, id="trainer"),
        pytest.param(service("worker-gpu"), id="gpu-worker"),
        pytest.param(service("worker-cpu"), id="cpu-worker"),
        pytest.param(service("prefect"), id="server"),
        pytest.param(supervisor, id="supervisor"),
    ],
)
def test_after_a_kill_the_same_command_completes_the_turn(
    shell: Terminal,
    undisturbed: Rows,
    base: Path,
    tmp_path: Path,
    victim: Victim,
    request: pytest.FixtureRequest,
) -> None:
    config = prepare(tmp_path, base, f"killed-{request.node.callspec.id}")
    bring_up(shell)
    turn = start_and_train(shell, config)
    os.kill(victim(shell), signal.SIGKILL)
    output = terminal.said_until_asked(turn)
    if terminal.QUESTION not in output:
        assert turn.wait() == 1, output
        bring_up(shell)
        turn = shell.start("turn", config)
        output = terminal.said_until_asked(turn)
    assert terminal.QUESTION in output, output
    approve(shell, turn, config.stem)
    assert rows(shell, config.stem) == undisturbed
    assert_one_champion(shell, config.stem)
    assert_trained_once(shell, config.stem)
    assert_down_leaves_nothing(shell)


@pytest.fixture
def heard_ctrl_c() -> Iterator[None]:
    """Let commands hear SIGINT although a shell makes its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_ctrl_c")
@pytest.mark.parametrize(
    ("asked_to_stop", "code", "message"),
    [
        pytest.param(signal.SIGINT, 130, "the turn continues in the stack", id="ctrl-c"),
        pytest.param(signal.SIGTERM, -signal.SIGTERM, "", id="term"),
    ],
)
def test_a_turn_continues_when_its_command_is_stopped_and_the_command_joins_it_again(
    shell: Terminal,
    undisturbed: Rows,
    base: Path,
    tmp_path: Path,
    asked_to_stop: signal.Signals,
    code: int,
    message: str,
) -> None:
    config = prepare(tmp_path, base, f"stopped-{asked_to_stop.name.lower()}")
    bring_up(shell)
    turn = start_and_train(shell, config)
    turn.send_signal(asked_to_stop)
    output, _ = turn.communicate(timeout=30)
    assert turn.returncode == code
    assert message in output
    turn = shell.start("turn", config)
    assert terminal.QUESTION in terminal.said_until_asked(turn)
    approve(shell, turn, config.stem)
    assert rows(shell, config.stem) == undisturbed
    assert_one_champion(shell, config.stem)
    assert_trained_once(shell, config.stem)
    assert_down_leaves_nothing(shell)


def prepare(folder: Path, base: Path, workload: str) -> Path:
    """Write a workload whose training takes long enough to be killed in the middle."""
    shutil.copytree(base, folder / "base")
    return small_workload.write(folder, workload, EPOCHS)


def bring_up(shell: Terminal) -> None:
    started = shell.run("up")
    assert started.returncode == 0, started.stderr


def start_and_train(shell: Terminal, config: Path) -> "subprocess.Popen[str]":
    """Start a turn; return when a quarter of the training is done."""
    turn = shell.start("turn", config)
    while steps_done(shell, config.stem) < STEPS / 4:
        assert turn.poll() is None, turn.communicate()[0]
        time.sleep(0.1)
    assert steps_done(shell, config.stem) < STEPS
    return turn


def steps_done(shell: Terminal, workload: str) -> int:
    adapters = (shell.settings.adapters / workload).glob("*")
    newest = [
        runner.newest_progress(shell.settings.jobs / f"train-{each.name}") for each in adapters
    ]
    return max((progress.done for progress in newest if progress), default=0)


def approve(shell: Terminal, turn: "subprocess.Popen[str]", workload: str) -> None:
    """Approve a turn that asks, and follow both commands to their ends."""
    approved = shell.answer("approve", workload, "--as", "ann")
    output, _ = turn.communicate()
    assert (approved.returncode, turn.returncode) == (0, 0), approved.stderr + output
    assert f"{workload} version 1 (models:/{workload}@champion)" in output


def rows(shell: Terminal, workload: str) -> Rows:
    """Read what the warehouse holds of a workload, without what differs from one to another."""
    selects = {
        "interactions": "select payload ->> '$.response.id' from raw.interactions",
        "feedback": "select response_id, actor_id, kind from raw.feedback",
        "manifests": "select kind from raw.manifests",
        "decisions": "select decision, approver from raw.decisions",
    }
    named = {"workload": workload}
    with warehouses.connect(shell.settings.warehouse) as con:
        return {
            table: con.execute(
                f"{select} where workload_id = $workload order by all", named
            ).fetchall()
            for table, select in selects.items()
        }


def assert_one_champion(shell: Terminal, workload: str) -> None:
    client = logins.mlflow(shell.settings)
    versions = client.search_model_versions(f"name = '{workload}'")
    assert [version.version for version in versions] == ["1"]
    assert client.get_registered_model(workload).aliases == {"champion": "1"}


def assert_trained_once(shell: Terminal, workload: str) -> None:
    """The one MLflow run has every step once, but for the few since the last checkpoint."""
    client = logins.mlflow(shell.settings)
    experiment = client.get_experiment_by_name(workload)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert max(steps) == STEPS
    assert len(steps) - len(set(steps)) <= 2 * small_workload.SAVE_STEPS


def assert_down_leaves_nothing(shell: Terminal) -> None:
    assert not [each for each in shell.processes() if is_job(each, "train")]
    assert shell.run("down").returncode == 0
    assert shell.processes() == []


def is_job(process: psutil.Process, kind: str) -> bool:
    try:
        return process.cmdline()[1:4] == ["-m", "flows.jobs.launch", kind]
    except psutil.NoSuchProcess:
        return False
