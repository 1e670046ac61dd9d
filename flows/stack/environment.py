"""The environment variables that the stack runs under, and those that its clients need."""

from collections.abc import Mapping

from flows.settings import HOST, Settings

MARK = "FLYWHEEL_STACK"
"""Each process of a stack is started with this variable, so that none is ever lost sight of."""


def for_clients(settings: Settings) -> dict[str, str]:
    """Give the variables under which Prefect and MLflow clients find the servers.

    Credentials for servers elsewhere (``PREFECT_API_AUTH_STRING``, ``MLFLOW_TRACKING_USERNAME`` and
    ``_PASSWORD``) are not among them: the clients read those themselves, and nothing notes them.
    """
    return {
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


def for_services(settings: Settings, base: Mapping[str, str]) -> dict[str, str]:
    """Give the whole environment of the stack: ``base`` without other stacks' settings, and ours.

    A person's own ``PREFECT_*`` and ``MLFLOW_*`` variables are dropped: they point elsewhere.
    """
    kept = {
        name: value for name, value in base.items() if not name.startswith(("PREFECT_", "MLFLOW_"))
    }
    return {
        **kept,
        **for_clients(settings),
        MARK: mark(settings),
        "TMPDIR": str(settings.scratch),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MPLBACKEND": "Agg",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": ",".join(filter(None, (kept.get("NO_PROXY"), HOST, "localhost"))),
    }


def mark(settings: Settings) -> str:
    """Name the stack of this home, however its path was spelled."""
    return str(settings.home.resolve())
