"""The part of MLflow's REST API for registered models, without MLflow's own client.

MLflow's client takes two seconds to import, which ``flywheel status`` would wait for.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import httpx

from components.json_http import BUSY, Rest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000  # maximum versions or models per response

PATIENCE_SECONDS = 60.0  # how long to wait for a server that restarts, as MLflow's own client does

MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Error codes for missing objects and for impossible names."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model."""

    name: str
    version: str
    source: str
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model, with the version of each alias."""

    name: str
    aliases: Mapping[str, str]


def is_away(error: BaseException | None) -> bool:
    """Return whether this error, or one that led to it, is that no server answered.

    Nor does one behind a proxy, which answers in its place.
    """
    from requests import exceptions  # noqa: PLC0415 - MLflow's own client has loaded it, if any

    lost = (httpx.TransportError, exceptions.ConnectionError, exceptions.Timeout)
    while error is not None:
        if isinstance(error, lost):
            return True
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in BUSY:
            return True
        error = error.__cause__ or error.__context__
    return False


class _MlflowApi:
    """The registered models of one server, by methods and fields with MLflow's names."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        answer = self._rest.get("/model-versions/get", name=name, version=version)
        return _version(answer["model_version"])

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        answer = self._rest.get("/registered-models/alias", name=name, alias=alias)
        return _version(answer["model_version"])

    def search_model_versions(self, filter_string: str) -> list[ModelVersion]:
        versions = self._pages("/model-versions/search", "model_versions", filter_string)
        return [_version(version) for version in versions]

    def get_registered_model(self, name: str) -> RegisteredModel:
        return _model(self._rest.get("/registered-models/get", name=name)["registered_model"])

    def create_registered_model(self, name: str) -> RegisteredModel:
        answer = self._rest.post("/registered-models/create", {"name": name})
        return _model(answer["registered_model"])

    def search_registered_models(self) -> list[RegisteredModel]:
        models = self._pages("/registered-models/search", "registered_models", None)
        return [_model(model) for model in models]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        body = {"name": name, "version": version, "key": key, "value": value}
        self._rest.post("/model-versions/set-tag", body)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        body = {"name": name, "version": version, "key": key}
        self._rest.delete("/model-versions/delete-tag", body)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        body = {"name": name, "alias": alias, "version": version}
        self._rest.post("/registered-models/alias", body)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._rest.delete("/registered-models/alias", {"name": name, "alias": alias})

    def _pages(self, path: str, key: str, filter_string: str | None) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            page = self._rest.get(path, filter=filter_string, max_results=PAGE, page_token=token)
            yield from page.get(key, [])
            if not (token := page.get("next_page_token")):
                return


def client() -> _MlflowApi:
    """Return a client of the server in MLflow's environment variables.

    Without a server it is MLflow's own client, which has the same methods.
    """
    server = rest("/api/2.0/mlflow")
    return cast("_MlflowApi", full_client()) if server is None else _MlflowApi(server)


def rest(path: str) -> Rest | None:
    """Return the API below a path of the server in MLflow's variables; ``None`` without one."""
    names = ("URI", "USERNAME", "PASSWORD", "TOKEN")
    url, user, password, token = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in names)
    if not url.startswith(("http://", "https://")):
        return None
    return _rest(url.rstrip("/") + path, user, password, token)


def full_client() -> "MlflowClient":
    """Return MLflow's own client, which also has runs, logged models and traces."""
    from mlflow import MlflowClient

    return MlflowClient()


def find_runs(condition: str, *, with_deleted: bool = False) -> "Iterator[Run]":
    """Yield the runs of all experiments that meet a condition, however many.

    MLflow keeps the artifacts of runs and experiments that somebody deleted.
    """
    from mlflow.entities import ViewType

    view = ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY
    client, token = full_client(), ""
    experiments = [record.experiment_id for record in client.search_experiments(view)]
    while True:
        page = client.search_runs(experiments, condition, view, page_token=token or None)
        yield from page
        if not (token := page.token or ""):
            return


def is_missing(error: Exception) -> bool:
    """Return whether MLflow refused a request because the object is missing."""
    return _error_code(error) in MISSING


def is_taken(error: Exception) -> bool:
    """Return whether MLflow refused to create an object because its name is taken."""
    return _error_code(error) == "RESOURCE_ALREADY_EXISTS"


def _error_code(error: Exception) -> str | None:
    if isinstance(error, httpx.HTTPStatusError):
        try:
            return error.response.json().get("error_code")
        except ValueError:
            return None
    return getattr(error, "error_code", None)


@cache
def _rest(url: str, user: str, password: str, token: str) -> Rest:
    is_here = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    auth = httpx.BasicAuth(user, password) if user else _Bearer(token) if token else None
    return Rest(url, auth, trust_env=not is_here, patience_seconds=PATIENCE_SECONDS)


class _Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _version(raw: Mapping[str, Any]) -> ModelVersion:
    tags = {tag["key"]: tag.get("value", "") for tag in raw.get("tags", [])}
    source, run_id = raw.get("source", ""), raw.get("run_id", "")
    return ModelVersion(raw["name"], str(raw["version"]), source, run_id, tags)


def _model(raw: Mapping[str, Any]) -> RegisteredModel:
    aliases = {alias["alias"]: str(alias["version"]) for alias in raw.get("aliases", [])}
    return RegisteredModel(raw["name"], aliases)
