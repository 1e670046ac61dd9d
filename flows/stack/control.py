"""Start and stop the stack, and report its status."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Literal

import httpx
import psutil

from components.store import file_locks, warehouse
from components.store.lock import WarehouseBusyError
from flows import access
from flows.settings import MLFLOW, PREFECT, RAY, STORE, WAREHOUSE, Settings, code_version
from flows.stack import health, processes
from flows.stack.processes import Phase, ServiceState, StackState
from flows.stack.service_process import open_log
from flows.stack.stack_services import MARK, service_environment, stack_mark

STOP_LIMIT = 17.0  # seconds for the supervisor to end all other processes before it is killed
MIB = 2**20
FULL = 64 * MIB  # free bytes below which a start may have failed for want of more
WAREHOUSE_SECONDS = 3.0  # that a start waits for the warehouse, to see whether it can be opened
WORKING = ("up", "elsewhere")  # the phases in which the servers should answer

DEPLOYER = "flows.deploy"  # the module that deploys the flows once Prefect answers


class StackError(RuntimeError):
    """The stack did not start, or another one is in the way."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the stack now.

    ``lost``: its supervisor was killed or stopped (SIGSTOP), so nothing restarts its services.
    ``elsewhere``: others run its servers.
    """

    phase: Phase | Literal["down", "lost", "elsewhere"]
    step: str
    services: tuple[ServiceState, ...]

    @property
    def is_up(self) -> bool:
        """Whether every service works."""
        return self.phase in WORKING and all(service.condition == "up" for service in self.services)


def up(
    settings: Settings, on_progress: Callable[[str], None], deployer: str = DEPLOYER
) -> StackState:
    """Start the stack and return when all of it works; do nothing if it already does.

    An interruption stops what was started.

    Raises:
        StackError: It did not start (nothing is left running), runs on other ports or with other
            data, or its servers are somebody else's.
        StoreError: The home's object store can't be shared with other machines.
        WarehouseVersionError: A newer release wrote the warehouse, or a version 0.x; nothing was
            started.
        WarehouseError: A shared one can't be opened, or has the tables of the home's file.
    """
    if settings.elsewhere:
        raise StackError(
            f"{PREFECT} is {settings.prefect_api_url}: those servers are started by who runs them; "
            f"unset {PREFECT} and {MLFLOW} for a stack of {settings.home} on this machine"
        )
    if settings.store:
        settings.store.check()
    access.secure_home(settings)
    # A second `up` waits for the first, and then joins it.
    with file_locks.held(settings.home / "up.lock"):
        _require_here(settings, processes.read_state(settings), "up")
        running = _await_end_of_stop(settings)
        if running is not None:
            return _join_start(settings, running, on_progress)
        _require_warehouse(settings)
        access.ensure_logins(settings)
        with _start_supervisor(settings, deployer) as launched:
            try:
                return _follow_start(settings, launched, on_progress)
            except BaseException:
                launched.process.terminate()
                down(settings)
                raise


def down(settings: Settings) -> bool:
    """End every process of the stack within 20 s; return whether there was any.

    Also removes temporary files of killed processes.

    Raises:
        StackError: It runs on another machine that shares the home; nothing was done.
    """
    state = processes.read_state(settings)
    _require_here(settings, state, "down")
    supervised = state is not None and processes.is_supervised(state)
    if state is not None and supervised:
        with suppress(psutil.NoSuchProcess):
            processes.end_processes([psutil.Process(state.supervisor.pid)], STOP_LIMIT)
    leftovers = processes.marked_processes(MARK, stack_mark(settings))
    processes.end_processes(leftovers, grace=1.0)
    file_locks.clear(settings.scratch)
    if state is not None and state.phase != "failed":
        processes.state_path(settings).unlink(missing_ok=True)
    return supervised or bool(leftovers)


def stack_status(settings: Settings) -> Status:
    """Return the state that the supervisor wrote, checked against the living processes."""
    if settings.elsewhere:
        return _elsewhere(settings)
    state = processes.read_state(settings)
    if state is None:
        return Status("down", "not started", ())
    if processes.runs_elsewhere(settings, state):
        return Status(state.phase, f"{state.step}, on {state.host}", state.services)
    services = tuple(
        service
        if service.process is None or processes.is_alive(service.process)
        else replace(service, condition="gone")
        for service in state.services
    )
    if processes.is_alive(state.supervisor) and processes.is_stopped(state.supervisor):
        step = f"the supervisor was stopped; `kill -CONT {state.supervisor.pid}` or `flywheel down`"
        return Status("lost", step, services)
    if processes.is_supervised(state):
        return Status(state.phase, state.step, services)
    if state.phase == "failed":
        return Status("failed", state.step, ())
    return Status("lost", "the supervisor was killed; `flywheel up` or `down` clears up", services)


def probe_services(status: Status) -> Status:
    """Check now whether each server answers, and whether a worker was stopped."""
    with health.http_client() as http, ThreadPoolExecutor(len(status.services) or 1) as threads:
        services = threads.map(partial(_server_answers, http), status.services)
        return replace(status, services=tuple(services))


def _server_answers(http: httpx.Client, service: ServiceState) -> ServiceState:
    if service.condition != "up" or service.process is None:
        return service
    url = service.health_url
    if processes.is_stopped(service.process) or (url and not health.is_answering(http, url)):
        return replace(service, condition="hanging")
    return service


def _elsewhere(settings: Settings) -> Status:
    prefect, mlflow = settings.prefect_url, settings.mlflow_url
    with health.http_client(trust_env=True) as http:
        services = (
            _remote_service(http, "prefect", prefect, f"{prefect}/api/health"),
            _remote_service(http, "mlflow", mlflow, f"{mlflow}/health"),
        )
    return Status("elsewhere", f"{PREFECT} and {MLFLOW} name its servers", services)


def _remote_service(http: httpx.Client, name: str, url: str, health_url: str) -> ServiceState:
    condition = "up" if health.is_answering(http, health_url) else "gone"
    return ServiceState(name, condition, process=None, url=url, log="", restarts=0)


def _require_here(settings: Settings, state: StackState | None, command: str) -> None:
    if state is not None and processes.runs_elsewhere(settings, state):
        raise StackError(
            f"the stack of {settings.home} runs on {state.host}, which shares this home; type "
            f"`flywheel {command}` there (this is {processes.machine_name()})"
        )


def _require_warehouse(settings: Settings) -> None:
    # Servers of another release may change their databases, and the workers could only fail.
    if settings.has_warehouse:
        with (
            suppress(WarehouseBusyError),  # others work with it
            warehouse.reading(settings.tables, WAREHOUSE_SECONDS),
        ):
            pass


def _await_end_of_stop(settings: Settings) -> StackState | None:
    while (state := processes.read_state(settings)) and processes.is_supervised(state):
        if state.phase != "stopping":
            return state
        time.sleep(0.1)
    return None


@dataclass(frozen=True, slots=True)
class _Launched:
    """A supervisor that this process has started, and the pipe on which it says why it ends.

    Neither its log nor the state can be written on a full disk.
    """

    process: "subprocess.Popen[bytes]"
    pipe: IO[bytes]

    def last_words(self) -> str:
        """Return why it ended; empty if it said nothing."""
        os.set_blocking(self.pipe.fileno(), False)  # it may still be ending
        return (self.pipe.read() or b"").decode(errors="replace").strip()


@contextmanager
def _start_supervisor(settings: Settings, deployer: str) -> Generator[_Launched]:
    settings.logs.mkdir(parents=True, exist_ok=True)
    open_log(settings.logs / "supervisor.log").doRollover()
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor has no path
        try:
            with (settings.logs / "supervisor.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "flows.stack.supervisor", deployer, str(writing)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[writing],
                    env=service_environment(settings, os.environ),
                    cwd=settings.home,
                    start_new_session=True,
                )
        finally:
            os.close(writing)
        yield _Launched(process, pipe)


def _join_start(
    settings: Settings, state: StackState, on_progress: Callable[[str], None]
) -> StackState:
    ports = (state.prefect_port, state.mlflow_port)
    if ports != (settings.prefect_port, settings.mlflow_port):
        raise StackError(
            f"the stack of {settings.home} already runs, on ports {ports[0]} (Prefect) and "
            f"{ports[1]} (MLflow); set FLYWHEEL_PREFECT_PORT and FLYWHEEL_MLFLOW_PORT to these, "
            "or take it down first"
        )
    if changed := _changed_variables(state):
        raise StackError(
            f"the stack of {settings.home} already runs, with other values of "
            f"{' and '.join(changed)} than this shell has; set them as they were, or `flywheel "
            "down` first, so that its workers get these"
        )
    on_progress("the stack is already up" if state.phase == "up" else "joining a start under way")
    if state.code != (code := code_version()):
        on_progress(
            f"it was started by code {state.code}, and this is code {code}; `flywheel down`, then "
            "`flywheel up`, so that its servers and workers run this one"
        )
    return _follow_start(settings, None, on_progress)


def _changed_variables(state: StackState) -> list[str]:
    """Return the variables that say where data is, and said something else when it started."""
    try:
        started = psutil.Process(state.supervisor.pid).environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended, or is another user's
        return []
    return [
        name
        for name in (STORE, WAREHOUSE, RAY)
        if (started.get(name) or "") != os.environ.get(name, "")
    ]


def _follow_start(
    settings: Settings,
    launched: _Launched | None,
    on_progress: Callable[[str], None],
) -> StackState:
    printed: set[str] = set()
    while True:
        over = launched is not None and launched.process.poll() is not None
        state = processes.read_state(settings)
        if state is not None and processes.is_supervised(state):
            if state.phase == "up":
                return state
            ready = [service.name for service in state.services if service.condition == "up"]
            for line in (*(f"{name} is up" for name in ready), state.step):
                if line not in printed:
                    printed.add(line)
                    on_progress(line)
        elif over or launched is None:
            raise StackError(_failure_text(settings, state, launched))
        time.sleep(0.1)


def _failure_text(settings: Settings, state: StackState | None, launched: _Launched | None) -> str:
    free = shutil.disk_usage(settings.home).free
    full = f"\n{free / MIB:.1f} MiB are free under {settings.home}: make room"
    return _ending(settings, state, launched) + full * (free < FULL)


def _ending(settings: Settings, state: StackState | None, launched: _Launched | None) -> str:
    if launched is not None and (words := launched.last_words()):
        return words
    if state is not None and state.phase == "failed":
        return state.step
    code = "" if launched is None else f" with exit code {launched.process.returncode}"
    log = settings.logs / "supervisor.log"
    end = log.read_text(errors="replace")[-2000:].strip() if log.exists() else ""
    return f"the supervisor ended{code}; the end of {log}:\n{end or '(it is empty)'}"
