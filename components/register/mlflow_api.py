"""The part of MLflow's REST API that the registered models need, without MLflow's own client.

That takes two seconds to import, and a person who types ``flywheel status`` waits for it. Methods
and fields have the names that they have there.
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import httpx

from components.rest import Rest

PAGE = 1000
"""Versions or models that one answer holds, at most."""

PATIENCE_SECONDS = 60.0
"""A server that restarts is waited for, as MLflow's own client does."""

MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Error codes of what is not there, or has a name that can't be there."""


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
    """A registered model, and on which version each alias stands."""

    name: str
    aliases: Mapping[str, str]


class MlflowApi:
    """The registered models of one server."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """Read a version."""
        found = self._rest.get("/model-versions/get", name=name, version=version)
        return _version(found["model_version"])

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Read the version that an alias stands on; see ``is_missing`` for its error."""
        found = self._rest.get("/registered-models/alias", name=name, alias=alias)
        return _version(found["model_version"])

    def search_model_versions(self, filter_string: str) -> list[ModelVersion]:
        """Find all versions that meet a condition."""
        pages = self._pages("/model-versions/search", "model_versions", filter_string)
        return [_version(found) for found in pages]

    def search_registered_models(self, filter_string: str | None = None) -> list[RegisteredModel]:
        """Find all registered models that meet a condition, or all that there are."""
        pages = self._pages("/registered-models/search", "registered_models", filter_string)
        return [_model(found) for found in pages]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Tag a version."""
        body = {"name": name, "version": version, "key": key, "value": value}
        self._rest.post("/model-versions/set-tag", body)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Take a tag off a version."""
        body = {"name": name, "version": version, "key": key}
        self._rest.delete("/model-versions/delete-tag", body)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Put an alias on a version."""
        body = {"name": name, "alias": alias, "version": version}
        self._rest.post("/registered-models/alias", body)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Take an alias off whichever version it stands on."""
        self._rest.delete("/registered-models/alias", {"name": name, "alias": alias})

    def _pages(self, path: str, key: str, filter_string: str | None) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            page = self._rest.get(path, filter=filter_string, max_results=PAGE, page_token=token)
            yield from page.get(key, [])
            if not (token := page.get("next_page_token")):
                return


def client() -> MlflowApi:
    """Return a client of the server that the environment names, as it does to MLflow's own.

    Where MLflow's data is not behind a server it is MLflow's own, which has these methods, too.
    """
    names = ("URI", "USERNAME", "PASSWORD", "TOKEN")
    url, user, password, token = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in names)
    if not url.startswith(("http://", "https://")):
        from mlflow import MlflowClient

        return cast("MlflowApi", MlflowClient())
    return _client(url.rstrip("/"), user, password, token)


def is_missing(error: Exception) -> bool:
    """Return whether MLflow refused a request because there is no such thing."""
    if isinstance(error, httpx.HTTPStatusError):
        try:
            code = error.response.json().get("error_code")
        except ValueError:
            return False
    else:
        code = getattr(error, "error_code", None)
    return code in MISSING


@cache
def _client(url: str, user: str, password: str, token: str) -> MlflowApi:
    is_here = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    auth = httpx.BasicAuth(user, password) if user else _Bearer(token) if token else None
    base = f"{url}/api/2.0/mlflow"
    return MlflowApi(Rest(base, auth, trust_env=not is_here, patience_seconds=PATIENCE_SECONDS))


class _Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _version(raw: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=raw["name"],
        version=str(raw["version"]),
        source=raw.get("source", ""),
        run_id=raw.get("run_id", ""),
        tags=_pairs(raw.get("tags", [])),
    )


def _model(raw: Mapping[str, Any]) -> RegisteredModel:
    aliases = {found["alias"]: str(found["version"]) for found in raw.get("aliases", [])}
    return RegisteredModel(raw["name"], aliases)


def _pairs(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in tags}
