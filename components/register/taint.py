"""After an erasure: flag and demote versions trained on erased rows, blank texts in tags."""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from components.register import mlflow_api, registry
from components.register.registry import Version
from components.register.tracking import KEY_TAG
from components.register.version_tags import (
    ADAPTER_TAG,
    APPROVER_TAG,
    CANARY,
    CHALLENGER,
    COMMENT_TAG,
    ROLLED_BACK_TAG,
    TAINTED_TAG,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


DEMOTED_TAG = "flywheel.demoted"
"""The id of the erasure certificate for which a champion was demoted."""

MAX_CERTIFICATES = 100
"""How many erasures a version's tag names, the newest: MLflow limits a tag's length, and an erasure
must not fail by that. The warehouse has all of them."""

SCORECARD_FOLDER, EVIDENCE_FOLDER = "scorecards", "evidence"
"""Folders of a training run's artifacts: its adapter's scorecards and evidence."""


def flag_tainted(name: str, adapters: AbstractSet[str], certificate_id: str) -> list[Version]:
    """Flag the versions of ``name`` that hold one of the adapters, and return them.

    A challenger among them loses its alias, since nobody may approve it, and so does a canary,
    which answers nobody any more. Idempotent.
    """
    client = mlflow_api.full_client()
    tainted = [v for v in _all_versions(name) if v.tags.get(ADAPTER_TAG) in adapters]
    for version in tainted:
        certificates = version.tags.get(TAINTED_TAG, "").split()
        if certificate_id not in certificates:
            newest = [*certificates, certificate_id][-MAX_CERTIFICATES:]
            tag = " ".join(newest)
            client.set_model_version_tag(name, str(version.version), TAINTED_TAG, tag)
        for alias in (CHALLENGER, CANARY):
            registry.remove_alias(name, alias, str(version.version))
    numbers = {str(version.version) for version in tainted}
    return [version for version in registry.list_versions(name) if version.number in numbers]


def demoted_versions(name: str, certificate_id: str) -> list[Version]:
    """List the versions that an erasure demoted."""
    demoted = [v for v in _all_versions(name) if v.tags.get(DEMOTED_TAG) == certificate_id]
    return [registry.as_version(version) for version in demoted]


def drop_copies(folder: str, keys: Iterable[str]) -> int:
    """Delete copies of outputs from the runs of adapters; return how many were deleted.

    ``folder`` is ``SCORECARD_FOLDER`` or ``EVIDENCE_FOLDER``, ``keys`` are of outputs in it. Runs
    of all experiments are looked at, since anybody may rename one.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = mlflow_api.full_client()
    copies = {f"{folder}/{key}" for key in keys}
    if not copies:
        return 0
    dropped = 0
    for run in mlflow_api.find_runs(f"tags.`{KEY_TAG}` != ''", with_deleted=True):
        present = {file.path for file in client.list_artifacts(run.info.run_id, folder)}
        artifacts = get_artifact_repository(str(run.info.artifact_uri))
        for path in sorted(present & copies):
            artifacts.delete_artifacts(path)
            dropped += 1
    return dropped


def _all_versions(name: str) -> "list[ModelVersion]":
    return list(mlflow_api.full_client().search_model_versions(f"name = '{name}'"))


ERASED_TEXT = "(erased)"  # replaces a text: the tag must stay, since it records a rollback

TEXT_TAGS = (COMMENT_TAG, ROLLED_BACK_TAG)


def blank_tags(
    is_about: Callable[[str], bool], *, workload: str | None = None, names: bool = False
) -> int:
    """Blank version tags about the subject; return how many were blanked. Idempotent.

    ``workload`` is ``None`` for all; ``names`` includes the names of approvers.
    """
    keys = (*TEXT_TAGS, APPROVER_TAG) if names else TEXT_TAGS
    blanked = 0
    for name in registry.model_names() if workload is None else [workload]:
        for number, tags in registry.version_tags(name).items():
            about = [key for key in keys if key in tags and is_about(tags[key])]
            registry.tag_version(name, number, dict.fromkeys(about, ERASED_TEXT))
            blanked += len(about)
    return blanked
