"""The command lines of what the stack runs."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from flows.settings import Settings
from flows.stack.processes import dying_with_parent

CPU_LIMIT = 4
"""Flow runs at a time on the cpu pool: turns wait most of their time, and more than one may."""

GPU_LIMIT = 1
"""Flow runs at a time on the gpu pool: one training or evaluation fills the device."""


@dataclass(frozen=True, slots=True)
class Service:
    """One program of the stack; ``death_signal`` is what it gets if the supervisor is killed."""

    name: str
    command: tuple[str, ...]
    log: Path
    death_signal: str = "TERM"
    url: str | None = None
    """Where a person opens it."""
    health_url: str | None = None
    """Answers 200 once the service works; a worker has none."""
    pool: str | None = None
    """The work pool that a worker serves."""
    is_brief: bool = False
    """It ends by itself, with exit code 0 when its work is done."""


def servers(settings: Settings) -> tuple[Service, Service]:
    """Describe the Prefect server and the MLflow server."""
    return _prefect(settings), _mlflow(settings)


def workers(settings: Settings) -> tuple[Service, Service]:
    """Describe the workers of the two pools."""
    return _worker(settings, "cpu", CPU_LIMIT), _worker(settings, "gpu", GPU_LIMIT)


def deployer(settings: Settings, module: str) -> Service:
    """Describe the short program that tells Prefect which flows there are."""
    command = (sys.executable, "-m", module)
    return Service(name="deploy", command=command, log=settings.logs / "deploy.log", is_brief=True)


def engine_command(python: str) -> str:
    """Give the command of one flow run: it ends with its worker, whatever kills that."""
    return shlex.join(dying_with_parent((python, "-m", "flows.stack.engine"), "TERM"))


def _prefect(settings: Settings) -> Service:
    return Service(
        name="prefect",
        command=(sys.executable, "-m", "flows.stack.server", "prefect"),
        log=settings.logs / "prefect.log",
        url=settings.prefect_url,
        health_url=f"{settings.prefect_api_url}/health",
    )


def _mlflow(settings: Settings) -> Service:
    return Service(
        name="mlflow",
        command=(sys.executable, "-m", "flows.stack.server", "mlflow"),
        log=settings.logs / "mlflow.log",
        url=settings.mlflow_url,
        health_url=f"{settings.mlflow_url}/health",
    )


def _worker(settings: Settings, pool: str, limit: int) -> Service:
    return Service(
        name=f"worker-{pool}",
        command=(sys.executable, "-m", "flows.stack.worker", pool, str(limit)),
        log=settings.logs / f"worker-{pool}.log",
        death_signal="KILL",  # on TERM a worker waits until its flow runs have ended
        pool=pool,
    )
