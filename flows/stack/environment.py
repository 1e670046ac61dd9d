"""The environment variables that the stack runs under, and those that its clients need."""

from collections.abc import Mapping, MutableMapping

from flows import credentials
from flows.settings import HOST, Settings

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


def for_clients(settings: Settings) -> dict[str, str]:
    """Give the variables under which Prefect and MLflow clients find the servers, and log in.

    Credentials for servers elsewhere (``PREFECT_API_AUTH_STRING``, ``MLFLOW_TRACKING_USERNAME`` and
    ``_PASSWORD``) are not among them: the clients read those themselves, and nothing notes them.
    """
    return _logins(settings) | {
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
    env.update(for_clients(settings))


def for_services(settings: Settings, base: Mapping[str, str]) -> dict[str, str]:
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
        **for_clients(settings),
        MARK: mark(settings),
        "TMPDIR": str(settings.scratch),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": ",".join(filter(None, (kept.get("NO_PROXY"), HOST, "localhost"))),
    }


def mark(settings: Settings) -> str:
    """Name the stack of this home, however its path was spelled."""
    return str(settings.home.resolve())


def _logins(settings: Settings) -> dict[str, str]:
    kept = credentials.read(settings)
    if kept is None:
        return {}
    return {
        "PREFECT_API_AUTH_STRING": kept.prefect.pair,
        "MLFLOW_TRACKING_USERNAME": kept.mlflow.user,
        "MLFLOW_TRACKING_PASSWORD": kept.mlflow.password,
    }
