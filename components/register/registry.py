"""The registered model of a workload in MLflow: versions, tags and aliases."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx

from components.register import mlflow_api
from components.register.mlflow_api import ModelVersion
from components.register.version_tags import (
    ADAPTER_TAG,
    ALIASES,
    CHAMPION,
    EVIDENCE_TAG,
    ROLLED_BACK_TAG,
    TAINTED_TAG,
    decision_of,
)
from components.schema import WORKLOAD_ID

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

    from components.register.logged_model import ServingParameters


Found = TypeVar("Found")

OWNING = frozenset({"EDIT", "MANAGE"})  # permissions by which an alias or a version can be changed

KINDS = frozenset({"registered_model", "prompt"})  # they share their names

UNKNOWN = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
"""Answers of a server that shows its accounts to admins only, or has none."""

MAX_CHARACTERS = 5000  # the maximum length of a description in MLflow's database


@dataclass(frozen=True, slots=True)
class Aliases:
    """The version number of each alias; ``None`` where it is not set."""

    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None
    canary: str | None = None


def read_aliases(name: str) -> Aliases:
    """Read the aliases of a registered model; all are ``None`` if it does not exist."""
    # A search by its name takes MLflow three times as long, and a name may have a quote.
    model = _found(partial(mlflow_api.client().get_registered_model, name))
    return _aliases(model.aliases) if model is not None else Aliases()


def read_all() -> dict[str, Aliases]:
    """Read the aliases of all registered models, by name."""
    models = mlflow_api.client().search_registered_models()
    return {model.name: _aliases(model.aliases) for model in models}


def _aliases(numbers: Mapping[str, str]) -> Aliases:
    return Aliases(*(str(numbers[alias]) if alias in numbers else None for alias in ALIASES))


def put_alias(name: str, alias: str, number: str | None) -> None:
    """Set an alias to a version, or delete it if ``number`` is ``None``; idempotent."""
    if getattr(read_aliases(name), alias) == number:
        return
    client = mlflow_api.client()
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, number)


def remove_alias(name: str, alias: str, number: str) -> None:
    """Delete an alias, unless it is set to another version by now."""
    if getattr(read_aliases(name), alias) == number:
        put_alias(name, alias, None)


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version.

    ``adapter`` is its adapter's key, ``evidence`` the digest of its evidence, ``decision`` is empty
    until it is decided. ``tainted`` has the certificates of erasures of its training rows,
    ``rolled_back`` the reason of its rollback.
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
        """Whether it was approved and is not tainted."""
        return self.decision == "approve" and not self.tainted


def champion_version(name: str) -> Version | None:
    """Return the champion of ``name``; ``None`` before the first promotion."""
    return aliased_version(name, CHAMPION)


def aliased_version(name: str, alias: str) -> Version | None:
    """Return the version of ``name`` with an alias, if any."""
    version = _found(partial(mlflow_api.client().get_model_version_by_alias, name, alias))
    return as_version(version) if version is not None else None


def _found(ask: Callable[[], Found]) -> Found | None:
    """Return what MLflow answers; ``None`` if it has no such object."""
    try:
        return ask()
    except Exception as error:  # its client's, or the one of the REST interface
        if mlflow_api.is_missing(error):
            return None
        raise


class ModelNameTakenError(RuntimeError):
    """MLflow has something else, a prompt, under the name of a workload."""


def reserve_model(name: str) -> None:
    """Create the registered model of a workload unless it is there: who creates it owns it.

    Raises:
        ModelNameTakenError: A prompt has its name.
    """
    if name in read_all():
        return
    try:
        mlflow_api.client().create_registered_model(name)
    except Exception as error:  # its client's, or the one of the REST interface
        if not mlflow_api.is_taken(error):
            raise
        if name not in read_all():  # else an answer was lost, or another process created it
            raise ModelNameTakenError(
                f"creating the registered model {name}: MLflow has a prompt of that name; delete "
                f"it there, or name the workload otherwise{owners_note(name)}"
            ) from error


def owners(name: str) -> list[str]:
    """Return the accounts, but for admins, that may change a model or a prompt of this name.

    Whoever creates a registered model owns it, also one with the name of a later workload.
    Empty where the server has no accounts, or this one may not list them.
    """
    server = mlflow_api.rest("/api/2.0/mlflow")
    if server is None:
        return []
    try:
        users = server.get("/users/list")["users"]
    except httpx.HTTPStatusError as error:
        if error.response.status_code in UNKNOWN:
            return []
        raise
    return sorted(
        user["username"]
        for user in users
        if not user["is_admin"]
        and any(
            granted["resource_pattern"] == name
            and granted["resource_type"] in KINDS
            and granted["permission"] in OWNING
            for role in user.get("roles", [])
            for granted in role["permissions"]
        )
    )


def owners_note(name: str) -> str:
    """Return a clause for an error about a model that others may have changed; may be empty."""
    accounts = " and ".join(owners(name))
    return (
        f"; {accounts} may change {name} in MLflow: {owners_remedy(accounts)}" if accounts else ""
    )


def owners_remedy(accounts: str) -> str:
    """Return how the operator takes a model from accounts."""
    return (
        f"`flywheel account --remove` takes that from {accounts}, and `account` makes an account "
        "again, without it; then delete in MLflow what they made of this name"
    )


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
    """Register the version of an evidence, or return the registered one.

    ``name`` is the workload, ``run_id`` the MLflow run that trained the ``adapter``, which the
    version holds without its base; ``served`` is checked again when it is loaded. ``tags`` are
    the lineage and must include ``flywheel.evidence`` and ``flywheel.adapter``. ``sign`` signs
    the folder of the version's files before they are uploaded.

    Raises:
        ModelNameTakenError: A prompt has the workload's name.
    """
    from components.register import logged_model  # noqa: PLC0415 - readers need not load its Jinja

    reserve_model(name)
    client = mlflow_api.full_client()
    if registered := version_of_evidence(name, tags[EVIDENCE_TAG]):
        return registered
    model_id = logged_model.log_model(run_id, adapter, served, tags[EVIDENCE_TAG], sign)
    created = client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id=run_id,
        tags=dict(tags),
        model_id=model_id,
        description=_fit_description(description),
    )
    return as_version(created)


def download_version(name: str, number: str, to: Path) -> Path:
    """Download all files of a version from MLflow, without running any; return their folder.

    Raises:
        ValueError: The download failed.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(download_artifacts(f"models:/{name}/{number}", dst_path=str(to)))
    except (MlflowException, OSError) as error:
        raise ValueError(f"fetching version {number} of {name} from MLflow: {error}") from error


def upload_files(name: str, number: str, folder: Path) -> None:
    """Add a folder's files to a version, replacing files with the same name.

    Raises:
        ValueError: The version has no logged model, so Flywheel did not register it.
    """
    client = mlflow_api.full_client()
    client.log_model_artifacts(logged_model_id(name, number), str(folder))


def logged_model_id(name: str, number: str) -> str:
    """Return the id of a version's logged model.

    Raises:
        ValueError: It has none.
    """
    source = str(mlflow_api.client().get_model_version(name, number).source)
    if (match := re.fullmatch(r"models:/(m-[0-9a-f]+)", source)) is None:
        raise ValueError(
            f"looking up version {number} of {name}: it is of {source}, expected a logged model, "
            "so Flywheel did not register it"
        )
    return match[1]


def _fit_description(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    note = "\n\n(cut here; the whole card is the README.md beside the adapter)\n"
    return text[: MAX_CHARACTERS - len(note)].rpartition("\n")[0] + note


def version_of_evidence(name: str, digest: str) -> Version | None:
    """Return the version that was registered with this evidence, if any."""
    versions = mlflow_api.client().search_model_versions(
        f"name = '{name}' and tags.`{EVIDENCE_TAG}` = '{digest}'"
    )
    return as_version(versions[0]) if versions else None


def list_versions(name: str) -> list[Version]:
    """List the versions of a workload, the oldest first."""
    versions = mlflow_api.client().search_model_versions(f"name = '{name}'")
    return sorted(map(as_version, versions), key=lambda version: int(version.number))


def model_names() -> list[str]:
    """List the workloads that have a registered model.

    Anybody may register one under a name that no workload can have, and no filter can quote.
    """
    names = (model.name for model in mlflow_api.client().search_registered_models())
    return [name for name in names if re.fullmatch(WORKLOAD_ID, name)]


def version_tags(name: str) -> dict[str, dict[str, str]]:
    """Return the tags of all versions of a workload by number."""
    versions = mlflow_api.client().search_model_versions(f"name = '{name}'")
    return {str(version.version): dict(version.tags) for version in versions}


def fit_tag(text: str) -> str:
    """Return a person's text as a tag can have it, cut where it is too long: MLflow refuses those.

    The chain of decisions has it whole.
    """
    note = "... (cut here; `flywheel audit` has all of it)"
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - len(note)] + note


def tag_version(name: str, number: str, tags: Mapping[str, str | None]) -> None:
    """Set a version's tags, and delete those that are ``None``; idempotent."""
    if not tags:
        return
    client = mlflow_api.client()
    present = client.get_model_version(name, number).tags
    for key, value in tags.items():
        if value is None:
            if key in present:
                client.delete_model_version_tag(name, number, key)
        elif present.get(key) != value:
            client.set_model_version_tag(name, number, key, value)


def version_numbered(name: str, number: str) -> Version:
    """Read a version by its number.

    Raises:
        LookupError: There is no such version.
    """
    versions = {version.number: version for version in list_versions(name)}
    if number in versions:
        return versions[number]
    known = ", ".join(versions) or "none"
    raise LookupError(f"looking up version {number} of {name}: MLflow has {known}")


def as_version(record: "ModelVersion | MlflowVersion") -> Version:
    """Convert MLflow's record of a version."""
    tags: Mapping[str, str] = record.tags
    return Version(
        name=record.name,
        number=str(record.version),
        adapter=Path(tags.get(ADAPTER_TAG, "")).name,  # whoever wrote it, no path leads elsewhere
        evidence=tags.get(EVIDENCE_TAG, ""),
        run_id=record.run_id or "",
        decision=decision_of(tags),
        tainted=tags.get(TAINTED_TAG, ""),
        rolled_back=tags.get(ROLLED_BACK_TAG, ""),
    )
