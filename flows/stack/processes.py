"""Process identities, who is alive, and how processes are ended for good."""

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_CLOCK_STEP = 5.0  # seconds: a start time by the clock follows when that is set
_SAME_START = 0.05  # seconds since the boot, which Linux counts in hundredths
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for all time: the system gives a pid again, but not with its start time."""

    pid: int
    created: float
    """Seconds since 1970, as the clock was when it was looked at."""
    after_boot: float | None = None
    """Seconds since the boot, whatever becomes of the clock; Linux only."""
    boot: str = ""
    """Which boot of which machine; Linux only."""


def identify(pid: int) -> Identity:
    """Give the identity of a live process; ``psutil.NoSuchProcess`` when there is none."""
    return Identity(pid, psutil.Process(pid).create_time(), _after_boot(pid), boot_id())


def boot_id() -> str:
    """Return what names this boot of this machine; empty where the system does not say it."""
    try:
        return _BOOT_ID.read_text().strip()
    except FileNotFoundError:
        return ""


def is_alive(identity: Identity) -> bool:
    """Tell whether that very process still runs; a zombie does not."""
    try:
        process = psutil.Process(identity.pid)
        same = _is_same(identity, process)
    except psutil.NoSuchProcess:
        return False
    return same and lives(process)


def _is_same(identity: Identity, process: psutil.Process) -> bool:
    after_boot = _after_boot(identity.pid)
    if identity.after_boot is None or after_boot is None:  # noted by an older version, or no Linux
        return abs(process.create_time() - identity.created) < _CLOCK_STEP
    same_start = abs(after_boot - identity.after_boot) < _SAME_START
    return same_start and identity.boot == boot_id()


def _after_boot(pid: int) -> float | None:
    """Read when a process was started from its 22nd field, of which the 2nd may hold anything."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def lives(process: psutil.Process) -> bool:
    """Tell whether ``process`` still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_stopped(identity: Identity) -> bool:
    """Return whether that process was stopped (SIGSTOP), and so does nothing."""
    try:
        return psutil.Process(identity.pid).status() == psutil.STATUS_STOPPED
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
