"""The stack's services: their commands and environment variables."""

import shlex
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from flows import access
from flows.settings import HOST, Settings
from flows.stack.processes import dying_with_parent

CPU_LIMIT = 4
"""Flow runs at a time on the cpu pool: turns wait most of their time, and more than one may."""

GPU_LIMIT = 1  # flow runs at a time on the gpu pool: one training or evaluation fills the device


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
        command=(sys.executable, "-m", "flows.stack.guarded_server", "prefect"),
        log=settings.logs / "prefect.log",
        url=settings.prefect_url,
        health_url=f"{settings.prefect_api_url}/health",
    )


def _mlflow(settings: Settings) -> Service:
    return Service(
        name="mlflow",
        command=(sys.executable, "-m", "flows.stack.guarded_server", "mlflow"),
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


MARK = "FLYWHEEL_STACK"
"""Each process of a stack is started with this variable, so that none is ever lost sight of."""


ELSEWHERE = frozenset(
    {
        "MLFLOW_EXPERIMENT_ID",
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_REGISTRY_URI",
        "MLFLOW_RUN_ID",
        "MLFLOW_TRACKING_AUTH",
        "MLFLOW_TRACKING_AWS_SIGV4",
        "MLFLOW_TRACKING_TOKEN",
        "PREFECT_API_KEY",
        "PREFECT_PROFILE",
        "PREFECT_PROFILES_PATH",
    }
)
"""Settings of a person that lead to other servers, or log in there; no stack is given these."""

OF_A_RUN = ("PREFECT__", "_MLFLOW_")
"""What Prefect and MLflow note in the environment of a run's or a server's own process."""


def client_environment(settings: Settings) -> dict[str, str]:
    """Give the variables under which Prefect and MLflow clients find the servers, and log in.

    Credentials for servers elsewhere (``PREFECT_API_AUTH_STRING``, ``MLFLOW_TRACKING_USERNAME`` and
    ``_PASSWORD``) are not among them: the clients read those themselves, and nothing notes them.
    """
    return _login_variables(settings) | {
        "FLYWHEEL_HOME": str(settings.home),
        "FLYWHEEL_PREFECT_PORT": str(settings.prefect_port),
        "FLYWHEEL_MLFLOW_PORT": str(settings.mlflow_port),
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_HOME": str(settings.prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def point_clients(settings: Settings, env: MutableMapping[str, str]) -> None:
    """Set ``env`` so that clients use the servers of these settings, whatever it named before."""
    if not settings.elsewhere:
        for name in ELSEWHERE & env.keys():
            del env[name]
    env.update(client_environment(settings))


def service_environment(settings: Settings, base: Mapping[str, str]) -> dict[str, str]:
    """Give the whole environment of the stack: the operator's, and what makes it this stack.

    What an operator exported for Prefect and MLflow holds, but for what leads elsewhere.
    """
    kept = {
        name: value
        for name, value in base.items()
        if name not in ELSEWHERE and not name.startswith(OF_A_RUN)
    }
    return {
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "MPLBACKEND": "Agg",
        **kept,
        **client_environment(settings),
        MARK: stack_mark(settings),
        "TMPDIR": str(settings.scratch),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": ",".join(filter(None, (kept.get("NO_PROXY"), HOST, "localhost"))),
    }


def stack_mark(settings: Settings) -> str:
    """Name the stack of this home, however its path was spelled."""
    return str(settings.home.resolve())


def _login_variables(settings: Settings) -> dict[str, str]:
    kept = access.read_logins(settings)
    if kept is None:
        return {}
    return {
        "PREFECT_API_AUTH_STRING": kept.prefect.pair,
        "MLFLOW_TRACKING_USERNAME": kept.mlflow.user,
        "MLFLOW_TRACKING_PASSWORD": kept.mlflow.password,
    }
