"""Process identities, who is alive, and how processes are ended for good."""

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_CLOCK_STEP = 5.0  # seconds: a start time is derived from the boot time, which follows clock steps


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for all time: the system gives a pid again, but not with its start time."""

    pid: int
    created: float


def identify(pid: int) -> Identity:
    """Give the identity of a live process; ``psutil.NoSuchProcess`` when there is none."""
    return Identity(pid, psutil.Process(pid).create_time())


def is_alive(identity: Identity) -> bool:
    """Tell whether that very process still runs; a zombie does not."""
    try:
        process = psutil.Process(identity.pid)
        same = abs(process.create_time() - identity.created) < _CLOCK_STEP
    except psutil.NoSuchProcess:
        return False
    return same and lives(process)


def lives(process: psutil.Process) -> bool:
    """Tell whether ``process`` still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Find the processes started with ``variable=value``, but this one and its ancestors."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in spared and started_with(process, variable) == value
    ]


def started_with(process: psutil.Process, variable: str) -> str | None:
    """Give an environment variable that ``process`` was started with, if we may read it."""
    try:
        return process.environ().get(variable)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def end(processes: Iterable[psutil.Process], grace: float) -> None:
    """Ask ``processes`` to stop, and kill those that still run after ``grace`` seconds."""
    asked = list(processes)
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    stubborn = _wait(asked, grace)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(stubborn, 2.0)


def _wait(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    # psutil.wait_procs waits for zombies too, and those of a container may never be reaped.
    deadline = time.monotonic() + seconds
    while (alive := [each for each in processes if lives(each)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def adopt_orphans() -> None:
    """Make this process the new parent of each descendant that loses its own (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def dying_with_parent(command: Sequence[str], signal: str) -> list[str]:
    """Wrap ``command`` so that the kernel sends it ``signal`` when its parent dies."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal, "--", *command] if setpriv else list(command)
