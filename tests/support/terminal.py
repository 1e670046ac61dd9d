"""The ``flywheel`` command as a person types it, in a home and on ports of its own."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows import settings
from flows.stack import processes, stack_services
from tests.support import forking

COMMAND = str(Path(sys.executable).with_name("flywheel"))
QUESTION = "The gate passed; a person decides"
"""What a turn says when it waits for an approval."""


@dataclass(frozen=True)
class Terminal:
    """Where commands are typed: all of them share one environment."""

    env: dict[str, str]
    command: str = COMMAND
    is_forked: bool = False
    """Whether the processes of ``run`` are forked from one that has imported what they need."""

    @property
    def settings(self) -> settings.Settings:
        return settings.load(self.env)

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        command = [self.command, *map(str, arguments)]
        if self.is_forked:
            return forking.run(_call_main, command, self.env)
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def answer(
        self, decision: str, workload: str, *options: str | Path
    ) -> "subprocess.CompletedProcess[str]":
        """Approve or reject what waits for a workload's answer, named by its evidence."""
        evidence = evidence_waiting(self.run("pending").stdout, workload)
        return self.run(decision, workload, "--evidence", evidence, *options)

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start a command; its standard output is piped and its errors go there, too."""
        return subprocess.Popen(
            [self.command, *map(str, arguments)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def processes(self) -> list[psutil.Process]:
        """Find every process of this terminal's stack."""
        return processes.marked_processes(
            stack_services.MARK, stack_services.stack_mark(self.settings)
        )


def evidence_waiting(listing: str, workload: str) -> str:
    """Find in what ``flywheel pending`` prints the evidence that waits; empty if none does."""
    lines = (line.split() for line in listing.splitlines())
    return next((words[2] for words in lines if words[:2] == [workload, "evidence"]), "")


def _call_main() -> None:
    from flows.cli.main import main  # what it imports finds out where it prints to

    main()


def in_home(home: Path, command: str = COMMAND, *, is_forked: bool = False) -> Terminal:
    """Choose free ports for ``home``."""
    with socket.socket() as one, socket.socket() as other:
        one.bind((settings.HOST, 0))
        other.bind((settings.HOST, 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    names = ("FLYWHEEL_PREFECT_PORT", "FLYWHEEL_MLFLOW_PORT")
    chosen = dict(zip(names, map(str, ports), strict=True))
    one_thread = {"OMP_NUM_THREADS": "1"}  # a tiny model loses by a second one
    env = os.environ | chosen | one_thread | {"FLYWHEEL_HOME": str(home)}
    return Terminal(env, command, is_forked)


def said_until_asked(turn: "subprocess.Popen[str]") -> str:
    """Read what a turn says until it asks a person, or ends."""
    said: list[str] = []
    assert turn.stdout is not None
    for line in turn.stdout:
        said.append(line)
        if QUESTION in line:
            break
    return "".join(said)
