"""One server of the stack behind its guard: ``python -m flows.stack.server prefect|mlflow``.

It runs what ``prefect server start`` and ``mlflow server`` run, in this very process: they have no
place for a guard, and MLflow's imports the library once more before it starts the server.
"""

import os
import sys

import uvicorn

from flows import credentials
from flows.credentials import Credentials
from flows.settings import HOST, Settings, load
from flows.stack import artifact_root
from flows.stack.guard import Guard, own_hosts, own_origins

RUNS_COMMANDS = (
    "/ajax-api/3.0/mlflow/assistant",
    "/ajax-api/3.0/jobs",
    "/gateway",
)
"""Of MLflow: an assistant that runs commands as the server's user for whoever logs in from this
machine, with any model that they name; jobs; and calls to other models."""


def prefect(settings: Settings, logins: Credentials) -> None:
    """Serve Prefect, which asks for its login and for CSRF tokens itself."""
    exported = os.environ.get("PREFECT_SERVER_CORS_ALLOWED_ORIGINS")
    origins = own_origins(settings.prefect_port, exported)
    os.environ |= {
        "PREFECT_SERVER_API_AUTH_STRING": logins.prefect.pair,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(settings.prefect_port),
    }
    os.environ.setdefault("PREFECT_SERVER_CSRF_PROTECTION_ENABLED", "true")
    # Imported now, because importing Prefect reads its settings.
    from prefect.server.api.server import create_app  # noqa: PLC0415
    from prefect.settings import get_current_settings  # noqa: PLC0415

    server = get_current_settings().server
    uvicorn.run(
        Guard(create_app(final=True), origins, own_hosts(origins)),
        host=HOST,
        port=settings.prefect_port,
        timeout_keep_alive=server.api.keepalive_timeout,
        log_level=server.logging_level.lower(),
    )


def mlflow(settings: Settings, logins: Credentials) -> None:
    """Serve MLflow, which would ask nobody for anything."""
    exported = os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")
    origins = own_origins(settings.mlflow_port, exported)
    hosts = ",".join(
        filter(None, (own_hosts(origins), os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS")))
    )
    os.environ |= {
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "MLFLOW_SERVER_ALLOWED_HOSTS": hosts,
    }
    from mlflow.server import constants, handlers
    from mlflow.server.fastapi_app import app

    artifacts = settings.mlflow_home / "artifacts"
    artifact_root.confine(artifacts)
    database = f"sqlite:///{settings.mlflow_home / 'mlflow.db'}"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(artifacts),
    }
    handlers.initialize_backend_stores(database, database, "mlflow-artifacts:/")
    guard = Guard(app, origins, hosts, logins.mlflow.pair, RUNS_COMMANDS)
    uvicorn.run(guard, host=HOST, port=settings.mlflow_port)


SERVERS = {"prefect": prefect, "mlflow": mlflow}


def main(name: str) -> None:
    """Serve until asked to stop."""
    settings = load()
    logins = credentials.read(settings)
    if logins is None:
        sys.exit(f"{credentials.path(settings.home)} is missing; `flywheel up` makes it")
    SERVERS[name](settings, logins)


if __name__ == "__main__":
    main(*sys.argv[1:])
