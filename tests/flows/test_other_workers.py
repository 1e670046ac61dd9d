"""On a real stack: what measures has other libraries than what orders the stages."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import cast

import pytest

from components import scorecard
from flows.stack import control, stack_services
from tests.support import small_workload, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OTHER = version("rouge-score") + "+cuda"
"""What the worker of the gpu pool says that it has of a library."""


def test_a_turn_takes_the_scorecards_that_its_worker_wrote(shell: Terminal, tmp_path: Path) -> None:
    config = small_workload.write(tmp_path / "small")
    with worker_elsewhere(shell, tmp_path / "image"):
        stays_the_same(shell, config)


def stays_the_same(shell: Terminal, config: Path) -> None:
    """Take a turn to its champion, and once more."""
    turn = shell.start("turn", config)
    output = terminal.said_until_asked(turn)
    turn.terminate()
    turn.communicate()
    assert terminal.QUESTION in output, output
    cards = (shell.settings.scorecards / small_workload.WORKLOAD).iterdir()
    libraries = [scorecard.read(card).conditions["libraries"] for card in cards]
    assert {cast("dict[str, str]", library)["rouge-score"] for library in libraries} == {OTHER}

    assert shell.answer("approve", small_workload.WORKLOAD, "--as", "ann").returncode == 0
    again = shell.run("turn", config)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "champion already" in again.stdout


@contextmanager
def worker_elsewhere(shell: Terminal, image: Path) -> Generator[None]:
    """Show a worker of the gpu pool other metadata of a library, as another image would.

    The stack's own worker is stopped meanwhile, so that it takes no run.
    """
    metadata = image / "rouge_score-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: rouge-score\nVersion: {OTHER}\n"
    )
    services = control.stack_status(shell.settings).services
    own = next(each.process for each in services if each.name == "worker-gpu")
    assert own is not None
    os.kill(own.pid, signal.SIGSTOP)
    paths = os.pathsep.join([str(image), shell.env.get("PYTHONPATH", "")])
    env = stack_services.service_environment(shell.settings, shell.env | {"PYTHONPATH": paths})
    command = [sys.executable, "-m", "flows.stack.worker", "gpu", "1"]
    other = subprocess.Popen(command, env=env)
    try:
        yield
    finally:
        other.kill()
        other.wait()
        os.kill(own.pid, signal.SIGCONT)
