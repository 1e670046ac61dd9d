"""Where MLflow's server keeps files: in its own folder, whatever a client asks for.

MLflow lets whoever makes an experiment say where its files lie, and then writes there for any
client, as the user who runs the home.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

SCHEME = "mlflow-artifacts:"
"""What the server itself keeps, in its folder."""

RESOLVED = ("mlflow-artifacts", "runs", "models")
"""Schemes that lead to the server itself."""


def confine(root: Path) -> None:
    """Have the MLflow server of this process keep and read files below ``root`` only."""
    from mlflow.server import handlers
    from mlflow.store.artifact.artifact_repository_registry import (
        get_registered_artifact_repositories,
    )
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils.file_utils import local_file_uri_to_path

    class Store(SqlAlchemyStore):
        """MLflow's own store, where an experiment's files can lie only at the server."""

        def create_experiment(
            self, name: str, artifact_location: str | None = None, tags: list[object] | None = None
        ) -> str:
            if artifact_location and not artifact_location.startswith(SCHEME):
                raise _refusal(artifact_location)
            made: str = super().create_experiment(name, artifact_location, tags)
            return made

    def local(
        artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> LocalArtifactRepository:
        folder = Path(local_file_uri_to_path(artifact_uri)).resolve()
        if not folder.is_relative_to(root.resolve()):
            raise _refusal(artifact_uri)
        return LocalArtifactRepository(artifact_uri, tracking_uri, registry_uri)

    def refused(artifact_uri: str, **_: object) -> LocalArtifactRepository:
        raise _refusal(artifact_uri)

    def store(store_uri: str, artifact_uri: str) -> Store:
        return Store(store_uri, artifact_uri)

    # MLflow annotates its builders of repositories as if they were repositories.
    known = cast("dict[str, Callable[..., Any]]", get_registered_artifact_repositories())
    known.update({scheme: refused for scheme in known if scheme not in RESOLVED})
    known.update({"": local, "file": local})
    stores = handlers._tracking_store_registry  # pyright: ignore[reportPrivateUsage] - no other way
    stores.register("sqlite", store)


def _refusal(uri: str) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(
        f"this server keeps files in its own folder only, and not at {uri!r}; leave the artifact "
        "location out"
    )
