"""What the supervisor last said about the stack: ``stack.json`` under the home."""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from components.manifest import write_atomically
from components.store import file_locks
from flows.settings import Settings
from flows.stack.processes import Identity, boot_id, is_alive

Phase: TypeAlias = Literal["starting", "up", "stopping", "failed"]
Condition: TypeAlias = Literal["starting", "up", "hanging", "restarting", "gone"]


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service: its process (none while it waits to be restarted), and where to look."""

    name: str
    condition: Condition
    process: Identity | None
    url: str | None
    log: str
    restarts: int
    health_url: str | None = None
    """Answers 200 while a server works."""


@dataclass(frozen=True, slots=True)
class State:
    """The whole stack; ``step`` says what is being done, or why it failed."""

    phase: Phase
    step: str
    prefect_port: int
    mlflow_port: int
    supervisor: Identity
    services: tuple[ServiceState, ...]
    host: str = ""
    """The name of the machine that it runs on; empty where an older version wrote it."""


def path(settings: Settings) -> Path:
    """Say where the state is kept."""
    return settings.home / "stack.json"


def write(settings: Settings, state: State) -> None:
    """Replace the state in one rename."""
    write_atomically(path(settings), json.dumps(asdict(state), indent=2) + "\n")


def read(settings: Settings) -> State | None:
    """Read the state; ``None`` when there is none."""
    try:
        raw: dict[str, Any] = json.loads(path(settings).read_text())
    except FileNotFoundError:
        return None
    raw["supervisor"] = Identity(**raw["supervisor"])
    raw["services"] = tuple(_service(each) for each in raw["services"])
    return State(**raw)


def is_supervised(state: State | None) -> bool:
    """Tell whether the supervisor that wrote ``state`` still runs."""
    return state is not None and is_alive(state.supervisor)


def runs_elsewhere(settings: Settings, state: State) -> bool:
    """Return whether a supervisor on another machine, or in another container, runs this stack.

    It holds the lock as long as it lives; where it does not, it was killed, or its machine is off.
    """
    is_ours = (state.host, state.supervisor.boot) in (("", ""), (here(), boot_id()))
    return not is_ours and not is_supervised(state) and is_locked(settings)


def is_locked(settings: Settings) -> bool:
    """Return whether some supervisor, wherever it is, holds this home."""
    with lock_path(settings).open("a") as lock:
        return not file_locks.lock(lock.fileno(), wait=False, shared=True)


def lock_path(settings: Settings) -> Path:
    """Return the file that a supervisor has locked while it lives."""
    return settings.home / "stack.lock"


def here() -> str:
    """Return this machine's name, a container's in a container."""
    return socket.gethostname()


def _service(raw: dict[str, Any]) -> ServiceState:
    raw["process"] = raw["process"] and Identity(**raw["process"])
    return ServiceState(**raw)
