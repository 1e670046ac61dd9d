"""The stack's services: their commands and environment variables."""

import shlex
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from flows import access
from flows.settings import HOST, SERVE_PORT, Settings
from flows.stack.processes import dying_with_parent

CPU_LIMIT = 4  # flow runs at a time on the cpu pool: turns wait most of their time
GPU_LIMIT = 1  # flow runs at a time on the gpu pool: one training or evaluation fills the device

MARK = "FLYWHEEL_STACK"  # set for each process of a stack, so that each can be found

# Settings of a person that lead to other servers, or log in there; not passed to a stack.
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

# What Prefect and MLflow note in the environment of a run's or a server's own process.
OF_A_RUN = ("PREFECT__", "_MLFLOW_")

STEP = "step: "  # begins a line in which a service says what its start is doing

AT_REST = {
    # each look of a worker asks the server, and a run that someone starts waits for it
    "PREFECT_WORKER_QUERY_SECONDS": "10",
    # Prefect's defaults are 5 to 20 seconds, for servers with thousands of runs.
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT60S",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "30",
    **{
        f"PREFECT_SERVER_SERVICES_{service}_LOOP_SECONDS": "60"
        for service in (
            "CANCELLATION_CLEANUP",
            "CLEANUP_RECONCILER",
            "FOREMAN",
            "LATE_RUNS",
            "PAUSE_EXPIRATIONS",
            "REPOSSESSOR",
        )
    },
}
"""How often workers and Prefect's services look for something to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """One program of the stack; it gets ``death_signal`` if the supervisor is killed."""

    name: str
    command: tuple[str, ...]
    log: Path
    death_signal: str = "TERM"
    url: str | None = None  # of its pages
    health_url: str | None = None  # answers 200 once a server works
    pool: str | None = None  # the work pool of a worker
    is_brief: bool = False  # it ends by itself, with exit code 0 when its work is done


def servers(settings: Settings) -> tuple[Service, Service]:
    """Return the Prefect server and the MLflow server."""
    return (
        _server(settings, "prefect", settings.prefect_url, settings.prefect_api_url),
        _server(settings, "mlflow", settings.mlflow_url, settings.mlflow_url),
    )


def workers(settings: Settings) -> tuple[Service, Service]:
    """Return the workers of the two pools."""
    return _worker(settings, "cpu", CPU_LIMIT), _worker(settings, "gpu", GPU_LIMIT)


def gateway(settings: Settings) -> Service | None:
    """Return the gateway that answers applications; ``None`` where the settings name no port."""
    if settings.serve_url is None:
        return None
    return Service(
        name="gateway",
        command=(sys.executable, "-m", "flows.stack.gateway_service"),
        log=settings.logs / "gateway.log",
        url=settings.serve_url,
        health_url=f"{settings.serve_url}/healthz",
    )


def deployer(settings: Settings, module: str) -> Service:
    """Return the short program that deploys the flows to Prefect."""
    command = (sys.executable, "-m", module)
    return Service(name="deploy", command=command, log=settings.logs / "deploy.log", is_brief=True)


def engine_command(python: str) -> str:
    """Return the command of one flow run; it ends with its worker, even a killed one."""
    return shlex.join(dying_with_parent((python, "-m", "flows.stack.engine"), "TERM"))


def _server(settings: Settings, name: str, url: str, api: str) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-m", "flows.stack.guarded_server", name),
        log=settings.logs / f"{name}.log",
        url=url,
        health_url=f"{api}/health",
    )


def _worker(settings: Settings, pool: str, limit: int) -> Service:
    return Service(
        name=f"worker-{pool}",
        command=(sys.executable, "-m", "flows.stack.worker", pool, str(limit)),
        log=settings.logs / f"worker-{pool}.log",
        death_signal="KILL",  # on TERM a worker waits until its flow runs have ended
        pool=pool,
    )


def client_environment(settings: Settings) -> dict[str, str]:
    """Return the variables with which Prefect and MLflow clients find the servers, and log in.

    Excludes credentials for servers elsewhere (``PREFECT_API_AUTH_STRING``,
    ``MLFLOW_TRACKING_USERNAME`` and ``_PASSWORD``): the clients read those themselves.
    """
    logins, login_variables = access.read_logins(settings), dict[str, str]()
    if logins is not None:
        login_variables = {
            "PREFECT_API_AUTH_STRING": logins.prefect.pair,
            "MLFLOW_TRACKING_USERNAME": logins.mlflow.user,
            "MLFLOW_TRACKING_PASSWORD": logins.mlflow.password,
        }
    return login_variables | {
        "FLYWHEEL_HOME": str(settings.home),
        "FLYWHEEL_PREFECT_PORT": str(settings.prefect_port),
        "FLYWHEEL_MLFLOW_PORT": str(settings.mlflow_port),
        **({SERVE_PORT: str(settings.serve_port)} if settings.serve_port else {}),
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_HOME": str(settings.prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "DO_NOT_TRACK": "1",
    }


def point_clients(settings: Settings, env: MutableMapping[str, str]) -> None:
    """Change ``env`` so that clients use the servers of these settings."""
    if not settings.elsewhere:
        for name in ELSEWHERE & env.keys():
            del env[name]
    env.update(client_environment(settings))


def service_environment(settings: Settings, base: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the stack.

    Keeps what an operator exported for Prefect and MLflow, except what leads to other servers.
    """
    kept = {
        name: value
        for name, value in base.items()
        if name not in ELSEWHERE and not name.startswith(OF_A_RUN)
    }
    return {
        **AT_REST,
        "MPLBACKEND": "Agg",
        **kept,
        **_compiled_modules(kept),
        **client_environment(settings),
        MARK: stack_mark(settings),
        "TMPDIR": str(settings.scratch),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": ",".join(filter(None, (kept.get("NO_PROXY"), HOST, "localhost"))),
    }


def _compiled_modules(base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which Python keeps compiled modules apart from the sources.

    Where it may not write beside the sources, as in many container images, each service would
    compile thousands of modules anew: half of what a start computes.
    """
    if not base.get("PYTHONDONTWRITEBYTECODE") or base.get("PYTHONPYCACHEPREFIX"):
        return {}
    cache = Path(base.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(cache / "lora-flywheel" / "compiled"),
    }


def stack_mark(settings: Settings) -> str:
    """Return the name of this home's stack, the same for every spelling of its path."""
    return str(settings.home.resolve())
