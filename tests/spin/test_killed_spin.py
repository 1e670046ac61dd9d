"""The whole wheel with a tiny model: killed in the middle it goes on, and keeps every promise."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import small_workload, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

TURNS = 3
SECONDS = 2400.0


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    shell = terminal.in_home(tmp_path / "home")
    yield shell
    shell.run("down")


@pytest.fixture
def start(shell: Terminal, tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Start a spin, or another one in the same home; both end with the test."""
    base = small_workload.stubborn_base(tmp_path / "base")
    with ExitStack() as stack:

        def begin() -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.spin.tiny_spin", str(base), str(TURNS)],
                env=shell.env | {"COLUMNS": "200"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.kill)
            return process

        yield begin


def state(home: Path) -> dict[str, Any]:
    path = home / "spin/state.json"
    return json.loads(path.read_text()) if path.exists() else {"turns": [], "run": None}


def test_a_killed_spin_goes_on_and_keeps_every_promise(
    shell: Terminal, start: Callable[[], "subprocess.Popen[str]"]
) -> None:
    home, killed = shell.settings.home, start()
    deadline = time.monotonic() + SECONDS
    while not (len(state(home)["turns"]) == 1 and state(home)["run"]):  # the second turn is on
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    second = state(home)["run"]

    ended = start()
    printed, _ = ended.communicate(timeout=SECONDS)
    assert ended.returncode == 0, printed
    assert "BROKEN" not in printed
    turns = state(home)["turns"]
    assert [turn["number"] for turn in turns] == [1, 2, 3]
    assert (home / "turns/spin" / second / "manifest.json").exists(), "the turn was followed"
    assert [turn["version"] for turn in turns[:2]] == ["1", "2"]
    assert turns[1]["ending"] == "approved; canary: hold"
    right = [sum(turn["sealed"].values()) for turn in turns]
    assert right[0] < right[-1]
    assert f"{home}/spin/spin.html" in printed.replace("\n", "")
    page = (home / "spin/spin.html").read_text()
    assert "version 2" in page
    assert 'src="data:image/png' in page

    answers = [json.loads(line) for line in (home / "spin/answers.jsonl").read_text().splitlines()]
    assert {answer["status"] for answer in answers} == {200}
    assert {answer["model"] for answer in answers} == {"production", "spin@1", "spin@2"}
    lineage = shell.run("lineage", "spin", "2").stdout
    assert "train" in lineage
