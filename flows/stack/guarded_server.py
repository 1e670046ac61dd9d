"""A server behind its request guard: `python -m flows.stack.guarded_server NAME`."""

import asyncio
import base64
import hmac
import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from components.receive.serve import QuietServer
from flows import access
from flows.access import Credentials
from flows.settings import HOST, Settings, load
from flows.stack import mlflow_database
from flows.stack.stack_services import STEP

SCHEME = "mlflow-artifacts:"  # of files in the server's own folder

RESOLVED = ("mlflow-artifacts", "runs", "models")  # schemes that lead to the server itself

HEALTH_PATHS = frozenset({"/health"})  # the paths that are answered without a login

# Paths of MLflow's assistant, which runs commands as the server's user for whoever logs in from
# this machine, with any model that they name; of jobs; and of calls to other models.
RUNS_COMMANDS = (
    "/ajax-api/3.0/mlflow/assistant",
    "/ajax-api/3.0/jobs",
    "/gateway",
)

TASKS_LOOK_EVERY = timedelta(seconds=3)

# Names in Prefect's module of background tasks, and in what it reads; a test holds their use.
WORKER, MESSAGE = "Worker", "get_message"


def confine_artifacts(root: Path) -> None:
    """Make the MLflow server of this process write and read files below ``root`` only."""
    from mlflow.server import handlers
    from mlflow.store.artifact.artifact_repository_registry import (
        get_registered_artifact_repositories,
    )
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils.file_utils import local_file_uri_to_path

    class Store(SqlAlchemyStore):
        """MLflow's own store; an experiment's files can lie only at the server."""

        def create_experiment(
            self, name: str, artifact_location: str | None = None, tags: list[object] | None = None
        ) -> str:
            if artifact_location and not artifact_location.startswith(SCHEME):
                raise _artifact_refusal(artifact_location)
            experiment: str = super().create_experiment(name, artifact_location, tags)
            return experiment

    def local(
        artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> LocalArtifactRepository:
        folder = Path(local_file_uri_to_path(artifact_uri)).resolve()
        if not folder.is_relative_to(root.resolve()):
            raise _artifact_refusal(artifact_uri)
        return LocalArtifactRepository(artifact_uri, tracking_uri, registry_uri)

    def refused(artifact_uri: str, **_: object) -> LocalArtifactRepository:
        raise _artifact_refusal(artifact_uri)

    def store(store_uri: str, artifact_uri: str) -> Store:
        return Store(store_uri, artifact_uri)

    # MLflow annotates its builders of repositories as if they were repositories.
    known = cast("dict[str, Callable[..., Any]]", get_registered_artifact_repositories())
    known.update({scheme: refused for scheme in known if scheme not in RESOLVED})
    known.update({"": local, "file": local})
    stores = handlers._tracking_store_registry  # pyright: ignore[reportPrivateUsage] - no other way
    stores.register("sqlite", store)


def _artifact_refusal(uri: str) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(
        f"this server keeps files in its own folder only, and not at {uri!r}; leave the artifact "
        "location out"
    )


def own_origins(port: int, exported: str | None) -> tuple[str, ...]:
    """Return the origins of a server's own pages: this machine's, and an operator's.

    Args:
        port: The server's port.
        exported: The operator's, with commas, as Prefect and MLflow take it; ``*`` stands for any.
    """
    others = (origin.strip().rstrip("/") for origin in (exported or "").split(","))
    return (f"http://{HOST}:{port}", f"http://localhost:{port}", *filter(None, others))


def own_hosts(origins: tuple[str, ...]) -> str:
    """Return the hosts of origins, with commas between them."""
    return ",".join(urlsplit(origin).netloc or origin for origin in origins)


class RequestGuard:
    """An ASGI application that passes allowed requests to another one."""

    def __init__(
        self,
        app: ASGIApp,
        origins: tuple[str, ...],
        hosts: str,
        login: str | None = None,
        closed: tuple[str, ...] = (),
    ) -> None:
        """Guard ``app``.

        Args:
            app: The server.
            origins: Those of its own pages; ``*`` stands for any.
            hosts: The names and ports that it answers to, with commas between them.
            login: ``user:password``; ``None`` where the server checks logins itself.
            closed: Prefixes of paths that are refused even with a login.
        """
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = frozenset(host.strip() for host in hosts.split(","))
        self._closed = closed
        self._token = base64.b64encode(login.encode()) if login else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with the reason."""
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif objection := self._objection(scope, headers):
            await _send_refusal(scope, send, 403, objection)
        elif scope["path"].startswith(self._closed):
            await _send_refusal(scope, send, 403, "this server does not offer that")
        elif not self._lets_in(scope, headers):
            await _send_refusal(scope, send, 401, "this server asks for a user and a password")
        else:
            await self._app(scope, receive, send)

    def _objection(self, scope: Scope, headers: Mapping[bytes, str]) -> str | None:
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not _among(host, self._hosts):
            return f"this server does not answer as {host!r}"
        if origin is not None:
            is_own = _among(origin, self._origins)
            return None if is_own else f"this server takes nothing from pages of {origin!r}"
        if headers.get(b"sec-fetch-site") in {"cross-site", "same-site"} and not _is_link(
            scope, headers
        ):
            return "this server gives nothing to pages of other origins"
        return None

    def _lets_in(self, scope: Scope, headers: Mapping[bytes, str]) -> bool:
        if self._token is None or scope["path"] in HEALTH_PATHS:
            return True
        scheme, _, token = headers.get(b"authorization", "").partition(" ")
        is_right = hmac.compare_digest(token.strip().encode("latin-1"), self._token)
        return scheme.lower() == "basic" and is_right


def _among(value: str, known: frozenset[str]) -> bool:
    return value in known or "*" in known


def _is_link(scope: Scope, headers: Mapping[bytes, str]) -> bool:
    """Return whether a person followed a link to here; a link only reads."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and headers.get(b"sec-fetch-mode") == "navigate"
        and headers.get(b"sec-fetch-dest") == "document"
    )


async def _send_refusal(scope: Scope, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="MLflow of Flywheel"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve_prefect(settings: Settings, logins: Credentials) -> None:
    """Serve Prefect, which checks its login and CSRF tokens itself."""
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

    look_less_often()
    server = get_current_settings().server
    config = uvicorn.Config(
        RequestGuard(create_app(final=True), origins, own_hosts(origins)),
        host=HOST,
        port=settings.prefect_port,
        timeout_keep_alive=server.api.keepalive_timeout,
        log_level=server.logging_level.lower(),
    )
    QuietServer(config).run()


def look_less_often() -> None:
    """Let Prefect's background worker look for due tasks every few seconds, not four times in one.

    A task that is not for later is taken at once, as before; one that runs would be cancelled
    within a second, not a tenth, which Prefect never does. There is no setting for either.
    """
    from burner_redis.pubsub import PubSub  # noqa: PLC0415 - as where it is called
    from docket import Worker  # noqa: PLC0415 - as above
    from prefect.server.api import background_workers  # noqa: PLC0415 - as above

    every, read = TASKS_LOOK_EVERY, PubSub.get_message

    async def get_message(channel: PubSub, *, timeout: float = 0.0, **options: bool) -> object:
        # Prefect's own waits in a thread, ten times a second.
        message = await read(channel, timeout=0.0, **options)
        if message is None and timeout:
            await asyncio.sleep(1)
        return message

    patient = partial(Worker, minimum_check_interval=every, scheduling_resolution=every)
    setattr(background_workers, WORKER, patient)
    setattr(PubSub, MESSAGE, get_message)


def serve_mlflow(settings: Settings, logins: Credentials) -> None:
    """Serve MLflow, which checks no logins itself."""
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
    confine_artifacts(artifacts)
    try:
        mlflow_database.prepare(settings.mlflow_home, announce_step)
    except mlflow_database.SchemaError as error:
        sys.exit(str(error))
    database = f"sqlite:///{mlflow_database.database(settings.mlflow_home)}"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(artifacts),
    }
    handlers.initialize_backend_stores(database, database, "mlflow-artifacts:/")
    guard = RequestGuard(app, origins, hosts, logins.mlflow.pair, RUNS_COMMANDS)
    QuietServer(uvicorn.Config(guard, host=HOST, port=settings.mlflow_port)).run()


def announce_step(step: str) -> None:
    """Show a step of this server's start to whoever waits for it."""
    sys.stdout.write(f"{STEP}{step}\n")
    sys.stdout.flush()


SERVERS = {"prefect": serve_prefect, "mlflow": serve_mlflow}


def main(name: str) -> None:
    """Serve until a signal to stop."""
    settings = load()
    logins = access.read_logins(settings)
    if logins is None:
        sys.exit(f"{access.logins_path(settings.home)} is missing; `flywheel up` makes it")
    SERVERS[name](settings, logins)


if __name__ == "__main__":
    main(*sys.argv[1:])
