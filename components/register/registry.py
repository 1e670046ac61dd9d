"""The registered model of a workload in MLflow: versions, tags and aliases."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.register import mlflow_api
from components.register.mlflow_api import ModelVersion

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

    from components.register.logged_model import ServingParameters


CHAMPION, CHALLENGER, PREVIOUS = ALIASES = ("champion", "challenger", "previous")


@dataclass(frozen=True, slots=True)
class Aliases:
    """The version number that each alias stands on; ``None`` where it stands on none."""

    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None


def read_aliases(name: str) -> Aliases:
    """Read the aliases of a registered model; all are ``None`` before it is there."""
    found = mlflow_api.client().search_registered_models(f"name = '{name}'")
    return _standing(found[0].aliases) if found else Aliases()


def read_all() -> dict[str, Aliases]:
    """Read the aliases of all registered models, by name."""
    found = mlflow_api.client().search_registered_models()
    return {model.name: _standing(model.aliases) for model in found}


def _standing(numbers: Mapping[str, str]) -> Aliases:
    return Aliases(*(str(numbers[alias]) if alias in numbers else None for alias in ALIASES))


def put_alias(name: str, alias: str, number: str | None) -> None:
    """Put an alias on a version, or take it off where ``number`` is ``None``; safe to repeat."""
    if getattr(read_aliases(name), alias) == number:
        return
    client = mlflow_api.client()
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, number)


def remove_alias(name: str, alias: str, number: str) -> None:
    """Take an alias off a version, unless it stands on another one by now."""
    if getattr(read_aliases(name), alias) == number:
        put_alias(name, alias, None)


EVIDENCE_TAG = "flywheel.evidence"
ADAPTER_TAG = "flywheel.adapter"
DECISION_TAG = "flywheel.decision"
APPROVER_TAG = "flywheel.approver"
COMMENT_TAG = "flywheel.comment"
TAINTED_TAG = "flywheel.tainted"
"""Holds the ids of the certificates of erasure, separated by blanks."""

ROLLED_BACK_TAG = "flywheel.rolled_back"
"""On a version that was champion: to which one, by whom and why it was taken back."""

LINK_TAG = "flywheel.link"
"""Where the decision stands in the chain of decisions, and its digest: an anchor of the chain."""

MOST_CHARACTERS = 5000
"""What MLflow's database takes of a description."""


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version.

    ``adapter`` is its adapter's key, ``evidence`` what a person was asked about, ``decision`` what
    the person said: empty while nobody has. ``tainted`` names the erasures that it has learned
    from; ``rolled_back`` says why it is champion no more.
    """

    name: str
    number: str
    adapter: str
    evidence: str
    run_id: str
    decision: str = ""
    tainted: str = ""
    rolled_back: str = ""

    @property
    def may_serve(self) -> bool:
        """Whether a person has approved it and none of what it learned from was erased."""
        return self.decision == "approve" and not self.tainted


def champion_version(name: str) -> Version | None:
    """Read which version of ``name`` is the champion; ``None`` before the first promotion."""
    return aliased_version(name, CHAMPION)


def aliased_version(name: str, alias: str) -> Version | None:
    """Read which version of ``name`` has an alias; ``None`` if none has."""
    try:
        return as_version(mlflow_api.client().get_model_version_by_alias(name, alias))
    except Exception as error:
        if mlflow_api.is_missing(error):
            return None
        raise


def register_version(
    name: str,
    run_id: str,
    adapter: Path,
    *,
    served: "ServingParameters",
    tags: Mapping[str, str],
    sign: Callable[[Path], None],
    description: str = "",
) -> Version:
    """Make the version that a person is asked about, or find the one that is there.

    Args:
        name: The registered model, one per workload.
        run_id: The MLflow run that trained the adapter.
        adapter: The PEFT adapter folder; the version holds it, and not the base.
        served: What an answer needs besides; checked again when the version is loaded.
        tags: Lineage; must hold ``flywheel.evidence`` and ``flywheel.adapter``.
        sign: Signs the folder of the version's files, before they are at MLflow.
        description: Markdown that MLflow's page of the version shows.
    """
    from mlflow import MlflowClient

    from components.register import logged_model  # noqa: PLC0415 - readers need not load its Jinja

    client = MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    found = version_of_evidence(name, tags[EVIDENCE_TAG])
    if found:
        return found
    model_id = logged_model.log_model(run_id, adapter, served, tags[EVIDENCE_TAG], sign)
    made = client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id=run_id,
        tags=dict(tags),
        model_id=model_id,
        description=fit_description(description),
    )
    return as_version(made)


def download_version(name: str, number: str, to: Path) -> Path:
    """Fetch all files of a version from MLflow, without running any; return their folder.

    Raises:
        ValueError: Its files lie at no MLflow.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(download_artifacts(f"models:/{name}/{number}", dst_path=str(to)))
    except (MlflowException, OSError) as error:
        raise ValueError(f"fetching version {number} of {name} from MLflow: {error}") from error


def upload_files(name: str, number: str, folder: Path) -> None:
    """Put files of a folder to those of a version, in the place of what has their names.

    Raises:
        ValueError: The version was not registered by Flywheel: it is of no logged model.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    client.log_model_artifacts(logged_model_id(name, number), str(folder))


def logged_model_id(name: str, number: str) -> str:
    """Return the id of the logged model that a version is of.

    Raises:
        ValueError: It is of none.
    """
    source = str(mlflow_api.client().get_model_version(name, number).source)
    if (found := re.fullmatch(r"models:/(m-[0-9a-f]+)", source)) is None:
        raise ValueError(
            f"looking up version {number} of {name}: it is of {source}, expected a logged model, "
            "so Flywheel did not register it"
        )
    return found[1]


def fit_description(text: str) -> str:
    """Cut Markdown after the last line that MLflow's database has room for, and say so."""
    if len(text) <= MOST_CHARACTERS:
        return text
    said = "\n\n(cut here; the whole card is the README.md beside the adapter)\n"
    return text[: MOST_CHARACTERS - len(said)].rpartition("\n")[0] + said


def version_of_evidence(name: str, digest: str) -> Version | None:
    """Find the version that a person was asked about with this evidence."""
    found = mlflow_api.client().search_model_versions(
        f"name = '{name}' and tags.`{EVIDENCE_TAG}` = '{digest}'"
    )
    return as_version(found[0]) if found else None


def list_versions(name: str) -> list[Version]:
    """List the versions of a workload, the oldest first."""
    found = mlflow_api.client().search_model_versions(f"name = '{name}'")
    return sorted(map(as_version, found), key=lambda one: int(one.number))


def model_names() -> list[str]:
    """List the workloads that have a registered model."""
    return [model.name for model in mlflow_api.client().search_registered_models()]


def version_tags(name: str) -> dict[str, dict[str, str]]:
    """Read the tags of all versions of a workload, by their numbers."""
    found = mlflow_api.client().search_model_versions(f"name = '{name}'")
    return {str(one.version): dict(one.tags) for one in found}


def tag_version(name: str, number: str, tags: Mapping[str, str | None]) -> None:
    """Tag a version; a tag that is to be ``None`` is taken off. Safe to repeat."""
    if not tags:
        return

    client = mlflow_api.client()
    there = client.get_model_version(name, number).tags
    for key, value in tags.items():
        if value is not None:
            client.set_model_version_tag(name, number, key, value)
        elif key in there:
            client.delete_model_version_tag(name, number, key)


def version_numbered(name: str, number: str) -> Version:
    """Read a version by its number.

    Raises:
        LookupError: There is none.
    """
    found = list_versions(name)
    for one in found:
        if one.number == number:
            return one
    known = ", ".join(one.number for one in found) or "none"
    raise LookupError(f"looking up version {number} of {name}: MLflow has {known}")


def as_version(found: "ModelVersion | MlflowVersion") -> Version:
    """Read MLflow's record of a version."""
    tags: Mapping[str, str] = found.tags
    return Version(
        name=found.name,
        number=str(found.version),
        adapter=tags.get(ADAPTER_TAG, ""),
        evidence=tags.get(EVIDENCE_TAG, ""),
        run_id=found.run_id or "",
        # Before challengers were registered, only what had been approved was.
        decision=tags.get(DECISION_TAG) or ("approve" if APPROVER_TAG in tags else ""),
        tainted=tags.get(TAINTED_TAG, ""),
        rolled_back=tags.get(ROLLED_BACK_TAG, ""),
    )
