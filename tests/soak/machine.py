"""The machine of the soak: a home with its stack, and a receiver that is kept up."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from flows.settings import HOST
from tests.support import terminal
from tests.support.terminal import COMMAND, Terminal

UPS = 10
"""So often is `flywheel up` typed before it counts as broken: a kill may hit each start."""


@dataclass
class Machine:
    """What is started, and what was typed on it."""

    shell: Terminal
    folder: Path
    port: int
    token: str = ""
    start_seconds: float = 0.0
    """How long the first `flywheel up` took."""
    ups: int = 0
    transcript: list[str] = field(default_factory=list[str])
    _healing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def home(self) -> Path:
        return self.shell.settings.home

    @property
    def scratch(self) -> Path:
        """Where all processes put what is temporary."""
        return self.folder / "tmp"

    def type(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end and keep what it said."""
        done = self.shell.run(*arguments)
        self.note(arguments, done.returncode, done.stdout + done.stderr)
        return done

    def note(self, arguments: tuple[str | Path, ...], code: int, said: str) -> None:
        """Keep what a command said."""
        at = time.strftime("%H:%M:%S")
        self.transcript.append(f"[{at}] flywheel {' '.join(map(str, arguments))} -> {code}\n{said}")
        with (self.folder / "transcript.txt").open("a") as file:
            file.write(self.transcript[-1] + "\n")

    def bring_up(self) -> None:
        """Type `flywheel up` as often as it takes."""
        with self._healing:
            for _ in range(UPS):
                self.ups += 1
                if self.type("up").returncode == 0:
                    return
        raise AssertionError(f"the stack did not come up in {UPS} attempts:{self.newest()}")

    def newest(self) -> str:
        """Give the last things that were typed, and what they said."""
        return "\n".join(["", *self.transcript[-6:]])

    def services(self) -> dict[str, int]:
        """Read the pids of the stack's services, and of its supervisor, from its own note."""
        with suppress(FileNotFoundError):
            noted: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
            found = {each["name"]: each["process"] for each in noted["services"]}
            found["supervisor"] = noted["supervisor"]
            return {name: one["pid"] for name, one in found.items() if one}
        return {}

    def processes(self) -> list[psutil.Process]:
        """Find every process that was started for this home, but the test's own."""
        return [
            each
            for each in psutil.process_iter()
            if each.pid != os.getpid() and _variable(each, "FLYWHEEL_HOME") == str(self.home)
        ]


@contextmanager
def running(folder: Path) -> Generator[Machine]:
    """Bring all up, and end all that is left with the block."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port = one.getsockname()[1]
    shell = terminal.in_home(folder / "home")
    machine = Machine(Terminal(shell.env | {"TMPDIR": str(folder / "tmp")}), folder, port)
    machine.scratch.mkdir(parents=True)
    machine.token = machine.type("token", "add", "app").stdout.strip()
    began = time.monotonic()
    machine.bring_up()
    machine.start_seconds = time.monotonic() - began
    try:
        yield machine
    finally:
        shell.run("down")
        for each in machine.processes():
            with suppress(psutil.NoSuchProcess):
                each.kill()


@contextmanager
def receiving(machine: Machine) -> Generator[None]:
    """Keep the receiver up as an init system does; ask it to end with the block."""
    ending = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        command = [COMMAND, "receive", "--port", str(machine.port)]
        with (machine.folder / "receiver.log").open("ab") as log:
            while not ending.is_set():
                process = subprocess.Popen(command, env=machine.shell.env, stdout=log, stderr=log)
                current[:] = [process]
                process.wait()
                ending.wait(0.5)

    keeper = threading.Thread(target=keep, name="receiver", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ending.set()
        while keeper.is_alive():
            for process in current:
                process.terminate()
            keeper.join(1)


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name) if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
