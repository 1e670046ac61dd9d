"""Process identities, signals and ports, and the stack's state file `stack.json`."""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import psutil
from pydantic import TypeAdapter, ValidationError

from components.store import file_locks
from components.store.manifest import write_atomically
from flows.settings import HOST, METRICS_PORT, SERVE_PORT, Settings, SettingsError

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, unique over time: the system reuses a pid, but not with its start time."""

    pid: int
    started: int  # after the boot, in the kernel's ticks, independent of the clock
    boot: str  # this boot of this machine


def identify_process(pid: int) -> ProcessIdentity:
    """Return the identity of a live process; raise ``psutil.NoSuchProcess`` without one."""
    return ProcessIdentity(pid, _started(pid), boot_id())


def boot_id() -> str:
    """Return the id of this boot of this machine."""
    return _BOOT_ID.read_text().strip()


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether that very process still runs; a zombie does not."""
    try:
        is_same = identify_process(identity.pid) == identity
        return is_same and is_running(psutil.Process(identity.pid))
    except psutil.NoSuchProcess:
        return False


def _started(pid: int) -> int:
    # The start time is the 22nd field; the 2nd, the name in brackets, may hold anything.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return int(stat.rpartition(")")[2].split()[19])


def is_running(process: psutil.Process) -> bool:
    """Return whether ``process`` still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_stopped(identity: ProcessIdentity) -> bool:
    """Return whether that process was stopped (SIGSTOP)."""
    try:
        return psutil.Process(identity.pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def marked_processes(variable: str, value: str) -> list[psutil.Process]:
    """Find the processes started with ``variable=value``, except this one and its ancestors."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in spared and started_with(process, variable) == value
    ]


def started_with(process: psutil.Process, variable: str) -> str | None:
    """Return an environment variable that ``process`` was started with, if we may read it."""
    try:
        return process.environ().get(variable)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def end_processes(processes: Iterable[psutil.Process], grace: float) -> None:
    """Terminate ``processes``, and kill those that still run after ``grace`` seconds."""
    terminated = list(processes)
    for process in terminated:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    stubborn = _wait(terminated, grace)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(stubborn, 2.0)


def _wait(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    # psutil.wait_procs waits for zombies too, and those of a container may never be reaped.
    deadline = time.monotonic() + seconds
    while (alive := list(filter(is_running, processes))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def adopt_orphans() -> None:
    """Make this process the new parent of each descendant that loses its parent."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def dying_with_parent(command: Sequence[str], signal: str) -> list[str]:
    """Wrap ``command`` so that the kernel sends it ``signal`` when its parent dies."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal, "--", *command] if setpriv else list(command)


class PortTakenError(RuntimeError):
    """Another program listens on a port of the stack."""


def require_free_ports(settings: Settings) -> None:
    """Check all ports; ``PortTakenError`` names the port, its holder and the remedy."""
    ports = (
        ("Prefect", settings.prefect_port, "FLYWHEEL_PREFECT_PORT"),
        ("MLflow", settings.mlflow_port, "FLYWHEEL_MLFLOW_PORT"),
        ("the metrics", settings.metrics_port, METRICS_PORT),
        ("the gateway", settings.serve_port, SERVE_PORT),
    )
    taken = [
        f"port {port} for {name} is taken by {_port_holder(port)}; "
        f"stop that program, or set {variable} to a free port for every flywheel command"
        for name, port, variable in ports
        if port is not None and not is_free(port)
    ]
    if taken:
        raise PortTakenError("; ".join(taken))


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port`` now."""
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
        pass  # the holder's name is not essential
    return "another program"


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """A signal asked this process to stop."""


class Signals:
    """The signals of a supervisor to wait for; one that comes between two waits is not lost."""

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
        """Sleep until a signal, at most ``seconds``; raise ``StopRequested`` after one to stop."""
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
    """One service; ``process`` is ``None`` while it waits for a restart."""

    name: str
    condition: Condition
    process: ProcessIdentity | None
    url: str | None
    log: str
    restarts: int
    health_url: str | None = None  # answers 200 while a server works


@dataclass(frozen=True, slots=True)
class StackState:
    """The whole stack; ``step`` is the current step, or why the start failed."""

    phase: Phase
    step: str
    prefect_port: int
    mlflow_port: int
    supervisor: ProcessIdentity
    services: tuple[ServiceState, ...]
    host: str  # the name of its machine
    code: str  # the version of the code that runs it


_STATE_JSON = TypeAdapter(StackState)


def state_path(settings: Settings) -> Path:
    """Return the path of the state file."""
    return settings.home / "stack.json"


def write_state(settings: Settings, state: StackState) -> None:
    """Replace the state file atomically."""
    write_atomically(state_path(settings), json.dumps(asdict(state), indent=2) + "\n")


def read_state(settings: Settings) -> StackState | None:
    """Read the state; ``None`` without one, or if nothing runs that wrote it in another form.

    Raises:
        SettingsError: A stack runs that another release started.
    """
    path = state_path(settings)
    try:
        return _STATE_JSON.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        if not is_locked(settings):  # it was killed, or its machine was switched off
            return None
        raise SettingsError(
            f"reading {path}: this release can't, and a stack runs in this home; stop it with "
            "`flywheel down` of the release that started it"
        ) from error


def is_supervised(state: StackState | None) -> bool:
    """Return whether the supervisor that wrote ``state`` still runs."""
    return state is not None and is_alive(state.supervisor)


def runs_elsewhere(settings: Settings, state: StackState) -> bool:
    """Return whether a supervisor on another machine, or in another container, runs this stack."""
    # It holds the lock while it lives; without the lock it was killed, or its machine is off.
    is_ours = (state.host, state.supervisor.boot) == (machine_name(), boot_id())
    return not is_ours and not is_supervised(state) and is_locked(settings)


def is_locked(settings: Settings) -> bool:
    """Return whether any supervisor, on any machine, holds this home."""
    with lock_path(settings).open("a") as lock:
        return not file_locks.lock(lock.fileno(), wait=False, shared=True)


def lock_path(settings: Settings) -> Path:
    """Return the file that a supervisor locks while it lives."""
    return settings.home / "stack.lock"


def machine_name() -> str:
    """Return this machine's name, a container's in a container."""
    return socket.gethostname()
