"""After an erasure: flag and demote versions trained on erased rows, blank texts on tags."""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from components.register import registry
from components.register.registry import (
    APPROVER_TAG,
    CHALLENGER,
    CHAMPION,
    COMMENT_TAG,
    PREVIOUS,
    ROLLED_BACK_TAG,
    TAINTED_TAG,
    Version,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


DEMOTED_TAG = "flywheel.demoted"
"""Holds the id of the certificate for which a champion lost its alias."""

SCORECARD_FOLDER, EVIDENCE_FOLDER = "scorecards", "evidence"
"""Folders of a training run's artifacts: the scorecards that were measured of its adapter, and the
evidence on it."""


def flag_tainted(name: str, adapters: AbstractSet[str], certificate_id: str) -> list[Version]:
    """Flag each version of ``name`` that holds one of the adapters, and return all of them.

    A challenger among them is none any more, since nobody may approve it. Safe to repeat.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    found = [
        one for one in _tainted_versions(name) if one.tags.get(registry.ADAPTER_TAG) in adapters
    ]
    for one in found:
        said = one.tags.get(TAINTED_TAG, "").split()
        if certificate_id not in said:
            tag = " ".join([*said, certificate_id])
            client.set_model_version_tag(name, str(one.version), TAINTED_TAG, tag)
        registry.remove_alias(name, CHALLENGER, str(one.version))
    flagged = {str(one.version) for one in found}
    return [one for one in registry.list_versions(name) if one.number in flagged]


def is_tainted(version: Version) -> bool:
    """Tell whether a version was flagged by any erasure since it was read."""
    return bool(registry.version_numbered(version.name, version.number).tainted)


def demote_champion(name: str, certificate_id: str) -> None:
    """Give a tainted champion's alias to the newest earlier version that may serve, if any.

    One that lost it by a rollback is none. ``previous`` goes from a version that may not serve, or
    that is champion now. Safe to repeat.
    """
    champion = registry.champion_version(name)
    if champion is None or not is_tainted(champion):
        return
    registry.tag_version(name, champion.number, {DEMOTED_TAG: certificate_id})
    earlier = [
        one.number
        for one in registry.list_versions(name)
        if int(one.number) < int(champion.number) and one.may_serve and not one.rolled_back
    ]
    now, before = (*reversed(earlier), None, None)[:2]
    if registry.read_aliases(name).previous not in earlier[:-1]:
        registry.put_alias(name, PREVIOUS, before)
    registry.put_alias(name, CHAMPION, now)


def demoted_versions(name: str, certificate_id: str) -> list[Version]:
    """List the versions that lost the champion's alias for an erasure."""
    found = [one for one in _tainted_versions(name) if one.tags.get(DEMOTED_TAG) == certificate_id]
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


def _tainted_versions(name: str) -> "list[ModelVersion]":
    from mlflow import MlflowClient

    return list(MlflowClient().search_model_versions(f"name = '{name}'"))


ERASED_TEXT = "(erased)"
"""Stands where a text was: that a version was rolled back must still be seen."""

TEXT_TAGS = (COMMENT_TAG, ROLLED_BACK_TAG)


def blank_tags(
    is_about: Callable[[str], bool], *, workload: str | None = None, names: bool = False
) -> int:
    """Blank the tags of versions that are about the subject; return how many. Safe to repeat.

    Args:
        is_about: Tells whether a text is.
        workload: Whose versions; those of all when left out.
        names: Whether an approver of that name is meant, too.
    """
    wanted = (*TEXT_TAGS, APPROVER_TAG) if names else TEXT_TAGS
    blanked = 0
    for name in registry.model_names() if workload is None else [workload]:
        for number, tags in registry.version_tags(name).items():
            about = [key for key in wanted if key in tags and is_about(tags[key])]
            registry.tag_version(name, number, dict.fromkeys(about, ERASED_TEXT))
            blanked += len(about)
    return blanked
