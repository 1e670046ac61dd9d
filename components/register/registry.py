"""The registered model of a workload: adapter-only versions, and which one is the champion."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from components.base import Precision

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS = "champion", "previous"
EVIDENCE_TAG = "flywheel.evidence"
ADAPTER_TAG = "flywheel.adapter"


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version; ``adapter`` is its adapter's key, ``evidence`` what was approved."""

    name: str
    number: str
    adapter: str
    evidence: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Served:
    """How a version's adapter is served, as it was trained and evaluated.

    ``base`` is the base's folder and ``base_hash`` its content hash; ``prompt_template`` the hash
    of how prompts are written; ``precision`` what the base is loaded in; ``max_new_tokens`` where
    an answer is cut off.
    """

    base: str
    base_hash: str
    prompt_template: str
    precision: Precision
    max_new_tokens: int


def champion(name: str) -> Version | None:
    """Read which version of ``name`` is the champion; ``None`` before the first promotion."""
    return aliased(name, CHAMPION)


def aliased(name: str, alias: str) -> Version | None:
    """Read which version of ``name`` has an alias; ``None`` if none has."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        found = MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise
    return as_version(found)


def register(
    name: str,
    run_id: str,
    adapter: Path,
    *,
    served: Served,
    tags: Mapping[str, str],
) -> Version:
    """Make the version that an approval is about, or find the one that a crash left behind.

    Args:
        name: The registered model, one per workload.
        run_id: The MLflow run that trained the adapter.
        adapter: The PEFT adapter folder; the version holds it, and not the base.
        served: What an answer needs besides; checked again when the version is loaded.
        tags: Lineage; must hold ``flywheel.evidence`` and ``flywheel.adapter``.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    evidence = tags[EVIDENCE_TAG]
    found = client.search_model_versions(
        f"name = '{name}' and tags.`{EVIDENCE_TAG}` = '{evidence}'"
    )
    if found:
        return as_version(found[0])
    model_id = _log_model(run_id, adapter, served)
    made = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
    )
    return as_version(made)


def numbered(name: str, number: str) -> Version:
    """Read a version by its number.

    Raises:
        LookupError: There is none.
    """
    from mlflow import MlflowClient

    found = MlflowClient().search_model_versions(f"name = '{name}'")
    for one in found:
        if str(one.version) == number:
            return as_version(one)
    known = ", ".join(sorted(str(one.version) for one in found)) or "none"
    raise LookupError(f"looking up version {number} of {name}: MLflow has {known}")


def crown(version: Version) -> None:
    """Make ``version`` the champion and keep the one before it as ``previous``."""
    from mlflow import MlflowClient

    client = MlflowClient()
    before = champion(version.name)
    if before and before.number == version.number:
        return
    if before:
        client.set_registered_model_alias(version.name, PREVIOUS, before.number)
    client.set_registered_model_alias(version.name, CHAMPION, version.number)


def _log_model(run_id: str, adapter: Path, served: Served) -> str:
    """Log the adapter as a pyfunc model under its training run, and give its id."""
    import mlflow
    from mlflow.pyfunc import log_model

    packages = ("lora-flywheel", "torch", "transformers", "peft", "bitsandbytes", "accelerate")
    with mlflow.start_run(run_id=run_id):
        logged = log_model(
            name="adapter",
            python_model=str(Path(sys.modules[__package__ or ""].__path__[0]) / "chat_model.py"),
            artifacts={"adapter": str(adapter)},
            model_config=asdict(served),
            pip_requirements=[f"{name}=={installed(name)}" for name in packages],
        )
    return logged.model_id


def as_version(found: "ModelVersion") -> Version:
    """Read MLflow's record of a version."""
    tags: dict[str, str] = found.tags
    return Version(
        name=found.name,
        number=str(found.version),
        adapter=tags.get(ADAPTER_TAG, ""),
        evidence=tags.get(EVIDENCE_TAG, ""),
        run_id=found.run_id or "",
    )
