"""``flywheel approve`` at a terminal: what it shows, and what a mere Enter means."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from flows import approvals
from tests.flows.cli.test_turn_watch import waiting
from tests.support.terminal import COMMAND

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def typed(keys: bytes, *arguments: str) -> tuple[int, str]:
    """Type keys into a command that asks; return its exit code and what it shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs) as run:
        os.close(theirs)
        os.write(ours, keys)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the command has ended
            pass
    os.close(ours)
    return run.returncode, shown.decode()


def test_enter_alone_approves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    run = waiting(0.0, "workload:support", "evidence:3f2a")
    code, shown = typed(b"\n", "approve", "support", "--as", "ann")
    assert code == 1
    assert "approve evidence 3f2a of support? [y/N]" in shown
    assert [approval.flow_run_id for approval in approvals.pending_approvals()] == [run]
