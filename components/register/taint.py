"""Flag the versions whose adapter was trained on what was erased, and take a champion's alias."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from components.register import registry
from components.register.registry import CHAMPION, PREVIOUS, Version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TAINTED_TAG = "flywheel.tainted"
"""Holds the ids of the certificates of erasure, separated by blanks."""

DEMOTED_TAG = "flywheel.demoted"
"""Holds the id of the certificate for which a champion lost its alias."""

SCORECARDS, EVIDENCE = "scorecards", "evidence"
"""Folders of a training run's artifacts: the scorecards that were measured of its adapter, and the
evidence on it."""


def flag(name: str, adapters: AbstractSet[str], certificate_id: str) -> list[Version]:
    """Flag each version of ``name`` that holds one of the adapters, and return all of them.

    Safe to repeat.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    found = [one for one in _versions(name) if one.tags.get(registry.ADAPTER_TAG) in adapters]
    for one in found:
        said = one.tags.get(TAINTED_TAG, "").split()
        if certificate_id not in said:
            tag = " ".join([*said, certificate_id])
            client.set_model_version_tag(name, str(one.version), TAINTED_TAG, tag)
    return [registry.as_version(one) for one in found]


def is_tainted(version: Version) -> bool:
    """Tell whether a version was flagged by any erasure."""
    return any(
        TAINTED_TAG in one.tags for one in _versions(version.name) if _is(one, version.number)
    )


def demote(name: str, certificate_id: str) -> None:
    """Give a tainted champion's alias to the newest earlier version that is not tainted, if any.

    ``previous`` goes from a tainted version, too. Safe to repeat.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    champion = registry.champion(name)
    if champion is None or not is_tainted(champion):
        return
    client.set_model_version_tag(name, champion.number, DEMOTED_TAG, certificate_id)
    earlier = [
        one
        for one in _versions(name)
        if int(one.version) < int(champion.number) and TAINTED_TAG not in one.tags
    ]
    aliases = client.get_registered_model(name).aliases
    clean = {str(one.version) for one in earlier}
    if PREVIOUS in aliases and str(aliases[PREVIOUS]) not in clean:
        client.delete_registered_model_alias(name, PREVIOUS)
    if earlier:
        heir = max(earlier, key=lambda one: int(one.version))
        client.set_registered_model_alias(name, CHAMPION, str(heir.version))
    else:
        client.delete_registered_model_alias(name, CHAMPION)


def demoted(name: str, certificate_id: str) -> list[Version]:
    """List the versions that lost the champion's alias for an erasure."""
    found = [one for one in _versions(name) if one.tags.get(DEMOTED_TAG) == certificate_id]
    return [registry.as_version(one) for one in found]


def drop_copies(experiment: str, folder: str, keys: Iterable[str]) -> int:
    """Delete copies from an experiment's runs; return how many there were.

    Args:
        experiment: The workload.
        folder: ``SCORECARDS`` or ``EVIDENCE``.
        keys: Those of scorecards, or digests of evidence.
    """
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    wanted = {f"{folder}/{key}" for key in keys}
    if found is None or not wanted:
        return 0
    dropped = 0
    for run in client.search_runs([found.experiment_id]):
        held = {one.path for one in client.list_artifacts(run.info.run_id, folder)}
        artifacts = get_artifact_repository(str(run.info.artifact_uri))
        for path in sorted(held & wanted):
            artifacts.delete_artifacts(path)
            dropped += 1
    return dropped


def _versions(name: str) -> "list[ModelVersion]":
    from mlflow import MlflowClient

    return list(MlflowClient().search_model_versions(f"name = '{name}'"))


def _is(found: "ModelVersion", number: str) -> bool:
    return str(found.version) == number
