"""``flywheel train`` on a real stack: interrupted, gone on with, and found finished."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.store.manifest import AdapterManifest
from flows.jobs import runner
from tests.support import small_workload, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 40


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    shell = terminal.in_home(tmp_path / "home")
    yield shell
    shell.run("down")


@pytest.fixture(autouse=True)
def heard_ctrl_c() -> Iterator[None]:
    """Let commands hear SIGINT although a shell makes its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_training_resumes_after_ctrl_c_and_is_not_done_twice(
    shell: Terminal, tmp_path: Path
) -> None:
    config = small_workload.write(tmp_path / "workload", epochs=EPOCHS)
    for command in (["up"], ["collect", config], ["curate", config]):
        done = shell.run(*command)
        assert done.returncode == 0, done.stderr

    training = shell.start("train", config)
    while (step := steps_done(shell)) < 20:
        assert training.poll() is None, training.communicate()[0]
        time.sleep(0.1)
    training.send_signal(signal.SIGINT)
    output, _ = training.communicate(timeout=60)
    assert training.returncode == 130, output
    (adapter,) = (shell.settings.adapters / small_workload.WORKLOAD).iterdir()
    assert list((adapter / "checkpoints").glob("checkpoint-*")), "it was saved"

    again = shell.run("train", config)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1].endswith(f"/{adapter.name}")
    assert (adapter / "adapter_model.safetensors").exists()
    assert steps_done(shell) > step
    took = AdapterManifest.read(adapter).training_work
    assert took is not None
    assert took.seconds > 0

    repeated = shell.run("train", config)
    assert repeated.returncode == 0, repeated.stderr
    assert repeated.stdout.splitlines()[-1].endswith(f"/{adapter.name} (done before)")

    scheduled = shell.run("schedule", config)
    assert scheduled.returncode == 0, scheduled.stderr
    copy = config.with_name("tried.yaml")
    copy.write_text(config.read_text().replace("learning_rate: 0.02", "learning_rate: 0.01"))
    tried = shell.run("train", copy)
    assert tried.returncode == 0, tried.stderr
    assert adapter.name not in tried.stdout.splitlines()[-1], "another recipe, another adapter"
    assert len(list((shell.settings.adapters / small_workload.WORKLOAD).iterdir())) == 2


def steps_done(shell: Terminal) -> int:
    adapters = (shell.settings.adapters / small_workload.WORKLOAD).glob("*")
    newest = [
        runner.newest_progress(shell.settings.jobs / f"train-{each.name}") for each in adapters
    ]
    return max((progress.done for progress in newest if progress), default=0)
