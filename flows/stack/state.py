"""What the supervisor last said about the stack: ``stack.json`` under the home."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from components.manifest import write_atomically
from flows.settings import Settings
from flows.stack.processes import Identity, is_alive

Phase: TypeAlias = Literal["starting", "up", "stopping", "failed"]
Condition: TypeAlias = Literal["starting", "up", "restarting", "gone"]


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service: its process (none while it waits to be restarted), and where to look."""

    name: str
    condition: Condition
    process: Identity | None
    url: str | None
    log: str
    restarts: int


@dataclass(frozen=True, slots=True)
class State:
    """The whole stack; ``step`` says what is being done, or why it failed."""

    phase: Phase
    step: str
    prefect_port: int
    mlflow_port: int
    supervisor: Identity
    services: tuple[ServiceState, ...]


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


def _service(raw: dict[str, Any]) -> ServiceState:
    raw["process"] = raw["process"] and Identity(**raw["process"])
    return ServiceState(**raw)
