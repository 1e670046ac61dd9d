"""On a full disk the supervisor continues, and doctor reports it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows import access
from flows.doctor import checks, probes
from flows.settings import HOST, Settings
from flows.stack import control
from tests.support import small_disk
from tests.support.small_disk import fill


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk.mounted(tmp_path / "small", "64k") as folder:
        yield folder


def test_the_supervisor_goes_on_and_notes_its_state_when_there_is_room_again(small: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from flows.settings import Settings
from flows.stack import health, processes
from flows.stack.processes import Signals
from flows.stack.supervisor import Supervisor
settings = Settings(Path({str(small)!r}), 1, 2)
with health.http_client() as http:
    supervisor = Supervisor(settings, http, Signals())
    supervisor.say("starting", "first")
    print("ready", flush=True); sys.stdin.readline()
    supervisor.say("up", "everything runs")
    print(processes.read_state(settings).step, flush=True); sys.stdin.readline()
    supervisor.say("up", "everything runs")
    print(processes.read_state(settings).step, flush=True)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        ballast = fill(small)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "first\n", "what was said before is still whole"
        ballast.unlink()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "everything runs\n"
    assert process.returncode == 0


def test_up_says_why_the_stack_did_not_start_though_nothing_can_be_written(
    settings: Settings, small: Path
) -> None:
    home = replace(settings, home=small)
    access.ensure_logins(home)
    for folder in (home.logs, home.prefect_home, home.mlflow_home):
        folder.mkdir()
    fill(small)
    with socket.socket() as taken:
        taken.bind((HOST, home.mlflow_port))
        taken.listen()
        with pytest.raises(control.StackError, match="for MLflow is taken by") as raised:
            control.up(home, lambda _: None)
    assert f"0.0 MiB are free under {small}" in str(raised.value)


def test_doctor_names_a_disk_that_is_full(small: Path) -> None:
    fill(small)
    finding = checks.check_disk(str(small), probes.free_bytes(small))
    assert (finding.level, finding.state) == ("wrong", f"0.0 GiB free under {small}")
