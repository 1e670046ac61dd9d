"""A home is backed up while an approval waits, lost with its machine, and put back."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import small_workload, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    shell = terminal.in_home(tmp_path / "home")
    yield shell
    shell.run("down")


def held(shell: Terminal) -> Any:
    return json.loads(shell.run("status", "--json").stdout)["holdings"]


def test_a_restored_home_is_equal_and_turns_on(shell: Terminal, tmp_path: Path) -> None:
    config = small_workload.write(tmp_path / "small")
    assert shell.run("up").returncode == 0
    turn = shell.start("turn", config)
    assert terminal.QUESTION in terminal.said_until_asked(turn)
    turn.terminate()
    turn.wait()
    before = held(shell)
    assert before["approvals_waiting"] == 1
    archive = tmp_path / "backup.tar.zst"
    backed_up = shell.run("backup", archive)
    assert backed_up.returncode == 0
    sha256 = backed_up.stdout.split("sha256 ")[1].split()[0]
    shell.run("down")
    shutil.rmtree(shell.settings.home)

    restored = shell.run("restore", archive, "--sha256", sha256)
    assert restored.returncode == 0, restored.stderr
    assert shell.run("up").returncode == 0
    assert held(shell) == before
    approved = shell.answer("approve", small_workload.WORKLOAD, "--as", "ann")
    assert approved.returncode == 0, approved.stderr
    assert held(shell)["workloads"][small_workload.WORKLOAD]["versions"]["champion"] == "1"
    small_workload.add_log(tmp_path / "small", first=100, count=8)
    again = shell.run("turn", config)
    assert again.returncode == 0, again.stderr
    assert "8 new rows" in again.stdout
