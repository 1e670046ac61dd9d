"""Log an adapter as an MLflow model, and the record of its release beside its signature."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from components.chat import chat_templates
from components.models import model_signature
from components.models.base import Precision
from components.models.model_signature import ModelSignatureError
from components.schema import Json
from components.store.manifest import folder_digest

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


RECORD_FILE = "decision.jsonl"
"""The record's file in a released version's folder, and in an export."""

RELEASE_KIND: Literal["released"] = "released"
"""The kind of a release's link."""


class UndecidedError(ModelSignatureError):
    """Nobody has approved what is in a folder, so that it may only be looked at."""


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """A link of the chain: which version may be served, and the digest of all its files."""

    sequence: int
    workload: str
    evidence: str
    version: str
    files: str


def release_body(version: str, files: str) -> str:
    """Write what a release's link commits to."""
    return json.dumps({"files": files, "version": version}, sort_keys=True, separators=(",", ":"))


def files_digest(folder: Path) -> str:
    """Digest all files of a version's folder but what was put beside them: record and signature."""
    return folder_digest(folder, leaving_out={RECORD_FILE, *model_signature.IGNORED})


def runs_older_code(folder: Path) -> bool:
    """Return whether a version's folder holds the code of another release, which may not load."""
    code = folder / MODEL_CODE.name
    return not code.is_file() or code.read_bytes() != MODEL_CODE.read_bytes()


def record_line(sequence: int, digest: str, content: str) -> str:
    """Write one link of the record; ``digest`` is the SHA-256 of ``content``."""
    return json.dumps({"sequence": sequence, "digest": digest, "content": content}) + "\n"


def release_of(content: Mapping[str, object]) -> ReleaseRecord | None:
    """Read a release from a link's content; ``None`` where the link is another."""
    if content["kind"] != RELEASE_KIND:
        return None
    told = json.loads(str(content["body"]))
    return ReleaseRecord(
        int(str(content["sequence"])),
        str(content["workload_id"]),
        str(content["evidence_digest"]),
        str(told["version"]),
        str(told["files"]),
    )


def read_release(folder: Path) -> ReleaseRecord:
    """Read the record in a folder whose signature holds.

    Raises:
        UndecidedError: There is none.
        SignatureError: It is not a chain's, or is of other files.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise UndecidedError(
            f"reading {folder}: there is no {RECORD_FILE}, so nobody has approved what is in it"
        )
    told = [json.loads(one) for one in path.read_text().splitlines()]
    for one in told:
        if hashlib.sha256(one["content"].encode()).hexdigest() != one["digest"]:
            raise ModelSignatureError(f"reading {path}: decision {one['sequence']} was changed")
    found = release_of(json.loads(told[-1]["content"])) if told else None
    if found is None:
        raise ModelSignatureError(f"reading {path}: its last line is no release")
    return found


def require_decided(folder: Path) -> ReleaseRecord:
    """Return the release of a registered version's folder whose signature holds.

    Raises:
        UndecidedError: Nobody has approved it.
        SignatureError: The record is of other files.
    """
    found = read_release(folder)
    if (files := files_digest(folder)) != found.files:
        raise ModelSignatureError(
            f"reading {folder}: its files have the digest {files}, but decision {found.sequence} "
            f"released {found.files}"
        )
    return found


EVIDENCE_OF_MODEL = "flywheel.evidence"
"""On a logged model: what it was logged for, so that a crash does not log it twice."""

MODEL_CODE = Path(__file__).with_name("chat_model.py")
"""What a version of this release runs; each version holds a copy."""

PACKAGES = ("lora-flywheel", "torch", "transformers", "peft", "bitsandbytes", "accelerate")


@dataclass(frozen=True, slots=True)
class ServingParameters:
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


def log_model(
    run_id: str,
    adapter: Path,
    served: ServingParameters,
    evidence: str,
    sign: Callable[[Path], None],
) -> str:
    """Log the adapter under its training run, or find it logged; give the model's id.

    ``sign`` is called with the folder of all files before they are logged.

    What a crash left half logged is gone on with: MLflow keeps the files of models it deletes.
    """
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    condition = f"source_run_id = '{run_id}' and tags.`{EVIDENCE_OF_MODEL}` = '{evidence}'"
    found = client.search_logged_models([experiment], filter_string=condition)
    for one in found:
        if one.status == LoggedModelStatus.READY:
            return one.model_id
    made = (
        found[0]
        if found
        else client.create_logged_model(
            experiment, name="adapter", source_run_id=run_id, tags={EVIDENCE_OF_MODEL: evidence}
        )
    )
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        folder = Path(scratch) / "model"
        save_model_files(folder, adapter, served, run_id, made.model_id)
        sign(folder)
        client.log_model_artifacts(made.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    return made.model_id


def save_model_files(
    folder: Path, adapter: Path, served: ServingParameters, run_id: str, model_id: str
) -> None:
    """Write all files of a version, as MLflow loads them."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    save_model(
        folder,
        python_model=str(MODEL_CODE),
        artifacts={"adapter": str(adapter)},
        model_config={**asdict(served), "undecided": False},
        pip_requirements=[f"{name}=={installed(name)}" for name in PACKAGES],
        signature=model_schema(),
        input_example=example_request(adapter),
        mlflow_model=Model(run_id=run_id, model_id=model_id),
    )


def model_schema() -> "ModelSignature":
    """Say what goes in and what comes out: a chat request and a chat completion of OpenAI's."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, Schema

    return ModelSignature(
        inputs=Schema(
            [ColSpec(Array(AnyType()), "messages"), ColSpec(AnyType(), "tools", required=False)]
        ),
        outputs=Schema(
            [
                ColSpec("string", "id"),
                ColSpec("string", "object"),
                ColSpec(Array(AnyType()), "choices"),
            ]
        ),
    )


def example_request(adapter: Path) -> dict[str, Json]:
    """Give the request that shows how an adapter's prompts are written; nobody ever asked it."""
    path = adapter / chat_templates.EXAMPLE
    told: dict[str, Json] = json.loads(path.read_text()) if path.exists() else DEFAULT_REQUEST
    return {name: told[name] for name in ("messages", "tools")}


DEFAULT_REQUEST: dict[str, Json] = {"messages": [{"role": "user", "content": "Hello"}], "tools": []}
"""For an adapter that was made before they came with an example."""
