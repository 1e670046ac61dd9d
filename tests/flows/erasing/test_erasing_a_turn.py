"""On a real stack: a person is erased while a promotion that their requests are shown in waits."""

import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support import logins, small_workload, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_champion_is_demoted_and_an_approval_that_waits_becomes_stale(
    shell: Terminal, tmp_path: Path
) -> None:
    config = small_workload.write(tmp_path / "small")
    small_workload.name_people(tmp_path / "small", 6)
    client = logins.mlflow(shell.settings)

    wait_for_approval(shell, config)
    assert shell.answer("approve", small_workload.WORKLOAD, "--as", "ann").returncode == 0
    assert aliases(client) == {"champion": "1"}
    output = erase(shell, config, "person-3-zq", "--demote")
    assert "1 model versions flagged, 0 approvals made stale" in output
    assert "demoted; champion now nobody" in output
    assert aliases(client) == {}
    assert client.get_model_version(small_workload.WORKLOAD, "1").tags["flywheel.tainted"]

    wait_for_approval(shell, config)
    assert "1 approvals made stale" in erase(shell, config, "person-4-zq")
    assert shell.run("pending").stdout == "no approval waits\n"
    assert shell.run("erase", "--verify", "--subject", "person-4-zq").returncode == 0


def erase(shell: Terminal, config: Path, person: str, *options: str) -> str:
    """Erase a person and find nothing left; return the output."""
    done = shell.run("erase", "--subject", person, "--yes", "--config", config, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left" in done.stdout
    return done.stdout


def aliases(client: MlflowClient) -> dict[str, str]:
    numbers = client.get_registered_model(small_workload.WORKLOAD).aliases
    return {alias: str(number) for alias, number in numbers.items()}


def wait_for_approval(shell: Terminal, config: Path) -> None:
    """Run a turn until it waits for a person, and leave it there."""
    turn = shell.start("turn", config)
    assert turn.stdout is not None
    lines: list[str] = []
    for line in turn.stdout:
        lines.append(line)
        if terminal.QUESTION in line:
            turn.terminate()
            with turn:
                return
    raise subprocess.CalledProcessError(turn.wait(), "turn", "".join(lines))
