"""Process identities, signals and ports, and the stack's state file `stack.json`."""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import psutil

from components.store import file_locks
from components.store.manifest import write_atomically
from flows.settings import HOST, METRICS_PORT, Settings

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_CLOCK_STEP = 5.0  # seconds: a start time by the clock follows when that is set
_SAME_START = 0.05  # seconds since the boot, which Linux counts in hundredths
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for all time: the system gives a pid again, but not with its start time."""

    pid: int
    created: float
    """Seconds since 1970, as the clock was when it was looked at."""
    after_boot: float | None = None
    """Seconds since the boot, whatever becomes of the clock; Linux only."""
    boot: str = ""
    """Which boot of which machine; Linux only."""


def identify_process(pid: int) -> ProcessIdentity:
    """Give the identity of a live process; ``psutil.NoSuchProcess`` when there is none."""
    return ProcessIdentity(pid, psutil.Process(pid).create_time(), _after_boot(pid), boot_id())


def boot_id() -> str:
    """Return what names this boot of this machine; empty where the system does not say it."""
    try:
        return _BOOT_ID.read_text().strip()
    except FileNotFoundError:
        return ""


def is_alive(identity: ProcessIdentity) -> bool:
    """Tell whether that very process still runs; a zombie does not."""
    try:
        process = psutil.Process(identity.pid)
        same = _is_same(identity, process)
    except psutil.NoSuchProcess:
        return False
    return same and is_running(process)


def _is_same(identity: ProcessIdentity, process: psutil.Process) -> bool:
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


def is_running(process: psutil.Process) -> bool:
    """Tell whether ``process`` still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_stopped(identity: ProcessIdentity) -> bool:
    """Return whether that process was stopped (SIGSTOP), and so does nothing."""
    try:
        return psutil.Process(identity.pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def marked_processes(variable: str, value: str) -> list[psutil.Process]:
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


def end_processes(processes: Iterable[psutil.Process], grace: float) -> None:
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
    while (
        alive := [each for each in processes if is_running(each)]
    ) and time.monotonic() < deadline:
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


class PortTakenError(RuntimeError):
    """Another program listens on a port that the stack wants."""


def require_free_ports(settings: Settings) -> None:
    """Check all ports; ``PortTakenError`` names the port, its holder and the way out."""
    wanted: tuple[tuple[str, int, str], ...] = (
        ("Prefect", settings.prefect_port, "FLYWHEEL_PREFECT_PORT"),
        ("MLflow", settings.mlflow_port, "FLYWHEEL_MLFLOW_PORT"),
    )
    if settings.metrics_port is not None:
        wanted += (("the metrics", settings.metrics_port, METRICS_PORT),)
    taken = [
        f"port {port} for {name} is taken by {_port_holder(port)}; "
        f"stop that program, or set {variable} to a free port for every flywheel command"
        for name, port, variable in wanted
        if not is_free(port)
    ]
    if taken:
        raise PortTakenError("; ".join(taken))


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _port_holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass  # whose it is would be nice to know, no more
    return "another program"


class StopRequested(Exception):  # noqa: N818  (no error: somebody asked)
    """Somebody asked this process to stop."""


class Signals:
    """The signals of a supervisor, as a thing to wait on: none is lost between two waits."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        self._stopping = False
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._wake)
        for request in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(request, self._stop)

    def wait(self, seconds: float) -> None:
        """Sleep until a signal comes, at most ``seconds``; raise ``Stopped`` if asked to stop."""
        if not self._stopping and select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4096)
        if self._stopping:
            raise StopRequested

    def _wake(self, *_: object) -> None:
        """Do nothing: a signal without a handler would not end the wait."""

    def _stop(self, *_: object) -> None:
        self._stopping = True


Phase: TypeAlias = Literal["starting", "up", "stopping", "failed"]
Condition: TypeAlias = Literal["starting", "up", "hanging", "restarting", "gone"]


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service: its process (none while it waits to be restarted), and where to look."""

    name: str
    condition: Condition
    process: ProcessIdentity | None
    url: str | None
    log: str
    restarts: int
    health_url: str | None = None
    """Answers 200 while a server works."""


@dataclass(frozen=True, slots=True)
class StackState:
    """The whole stack; ``step`` says what is being done, or why it failed."""

    phase: Phase
    step: str
    prefect_port: int
    mlflow_port: int
    supervisor: ProcessIdentity
    services: tuple[ServiceState, ...]
    host: str = ""
    """The name of the machine that it runs on; empty where an older version wrote it."""


def state_path(settings: Settings) -> Path:
    """Say where the state is kept."""
    return settings.home / "stack.json"


def write_state(settings: Settings, state: StackState) -> None:
    """Replace the state in one rename."""
    write_atomically(state_path(settings), json.dumps(asdict(state), indent=2) + "\n")


def read_state(settings: Settings) -> StackState | None:
    """Read the state; ``None`` when there is none."""
    try:
        raw: dict[str, Any] = json.loads(state_path(settings).read_text())
    except FileNotFoundError:
        return None
    raw["supervisor"] = ProcessIdentity(**raw["supervisor"])
    raw["services"] = tuple(_read_service(each) for each in raw["services"])
    return StackState(**raw)


def is_supervised(state: StackState | None) -> bool:
    """Tell whether the supervisor that wrote ``state`` still runs."""
    return state is not None and is_alive(state.supervisor)


def runs_elsewhere(settings: Settings, state: StackState) -> bool:
    """Return whether a supervisor on another machine, or in another container, runs this stack.

    It holds the lock as long as it lives; where it does not, it was killed, or its machine is off.
    """
    is_ours = (state.host, state.supervisor.boot) in (("", ""), (machine_name(), boot_id()))
    return not is_ours and not is_supervised(state) and is_locked(settings)


def is_locked(settings: Settings) -> bool:
    """Return whether some supervisor, wherever it is, holds this home."""
    with lock_path(settings).open("a") as lock:
        return not file_locks.lock(lock.fileno(), wait=False, shared=True)


def lock_path(settings: Settings) -> Path:
    """Return the file that a supervisor has locked while it lives."""
    return settings.home / "stack.lock"


def machine_name() -> str:
    """Return this machine's name, a container's in a container."""
    return socket.gethostname()


def _read_service(raw: dict[str, Any]) -> ServiceState:
    raw["process"] = raw["process"] and ProcessIdentity(**raw["process"])
    return ServiceState(**raw)
