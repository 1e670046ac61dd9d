"""Log an adapter as an MLflow model; read and verify the record of its release."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version as installed
from importlib.util import cache_from_source
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from components.chat import chat_templates
from components.models import model_signature
from components.models.model_signature import ModelSignatureError
from components.register import mlflow_api
from components.schema import Json, Precision
from components.store.manifest import folder_digest

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


RECORD_FILE = "decision.jsonl"
"""The release record in a released version's folder, and in an export."""

RELEASE_KIND: Literal["released"] = "released"  # the kind of a release's link

EVIDENCE_OF_MODEL = "flywheel.evidence"
"""Tag of a logged model: its evidence, so that it is not logged twice after a crash."""

MODEL_CODE = Path(__file__).with_name("chat_model.py")  # each version holds a copy, and runs it

PACKAGES = (
    *("lora-flywheel", "torch", "transformers", "peft", "bitsandbytes", "accelerate"),
    "llguidance",
)

DEFAULT_REQUEST: dict[str, Json] = {"messages": [{"role": "user", "content": "Hello"}], "tools": []}
"""The example of older adapters, which have none of their own."""


class UndecidedError(ModelSignatureError):
    """Nobody has approved the contents of a folder; it may only be inspected."""


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """A release link of the chain: the version that may be served, and the digest of its files."""

    sequence: int
    workload: str
    evidence: str
    version: str
    files: str


def release_body(version: str, files: str) -> str:
    """Return the body that a release's link commits to."""
    return json.dumps({"files": files, "version": version}, sort_keys=True, separators=(",", ":"))


def files_digest(folder: Path) -> str:
    """Digest all files of a version's folder except record, signature and bytecode of its code."""
    unsigned = {RECORD_FILE, *model_signature.IGNORED, *bytecode(folder)}
    return folder_digest(folder, leaving_out=unsigned)


def bytecode(folder: Path) -> list[str]:
    """List the file, below a version's folder, in which this Python keeps its compiled code.

    Python writes it when MLflow imports the code, before anything of ours runs. What it holds has
    run by then, so only who verifies a version without loading it can object to it.
    """
    cached = Path(cache_from_source(str(folder / MODEL_CODE.name)))
    return [str(cached.relative_to(folder))] if cached.is_relative_to(folder) else []


def delete_bytecode(folder: Path) -> None:
    """Delete that file, which nobody has signed, where the folder can be written to."""
    for name in bytecode(folder):
        with suppress(OSError):
            (folder / name).unlink()
            (folder / name).parent.rmdir()


def record_line(sequence: int, digest: str, content: str) -> str:
    """Write one link of the record; ``digest`` is the SHA-256 of ``content``."""
    return json.dumps({"sequence": sequence, "digest": digest, "content": content}) + "\n"


def release_of(content: Mapping[str, object]) -> ReleaseRecord | None:
    """Read a release from a link's content; ``None`` for links of other kinds."""
    if content["kind"] != RELEASE_KIND:
        return None
    body = json.loads(str(content["body"]))
    return ReleaseRecord(
        int(str(content["sequence"])),
        str(content["workload_id"]),
        str(content["evidence_digest"]),
        str(body["version"]),
        str(body["files"]),
    )


def read_release(folder: Path) -> ReleaseRecord:
    """Read the release record in a folder whose signature is verified.

    Raises:
        UndecidedError: There is no record.
        ModelSignatureError: A link was changed, or the last one is not a release.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise UndecidedError(
            f"reading {folder}: there is no {RECORD_FILE}, so nobody has approved what is in it"
        )
    links = [json.loads(line) for line in path.read_text().splitlines()]
    for link in links:
        if hashlib.sha256(link["content"].encode()).hexdigest() != link["digest"]:
            raise ModelSignatureError(f"reading {path}: decision {link['sequence']} was changed")
    release = release_of(json.loads(links[-1]["content"])) if links else None
    if release is None:
        raise ModelSignatureError(f"reading {path}: its last line is not a release")
    return release


def require_decided(folder: Path) -> ReleaseRecord:
    """Return the release of a registered version's folder whose signature is verified.

    Raises:
        UndecidedError: Nobody has approved it.
        ModelSignatureError: The record is invalid, or is of other files.
    """
    release = read_release(folder)
    if (files := files_digest(folder)) != release.files:
        raise ModelSignatureError(
            f"reading {folder}: its files have the digest {files}, but decision {release.sequence} "
            f"released {release.files}"
        )
    return release


@dataclass(frozen=True, slots=True)
class ServingParameters:
    """How a version's adapter is served: as it was trained and evaluated.

    ``base`` is the base's folder and ``base_hash`` its content hash; ``prompt_template`` the hash
    of the prompt template; ``precision`` that of the loaded base. ``constrained`` is whether its
    answers were kept within the tools that their requests offer, or within the ``labels``, and so
    have to be.
    """

    base: str
    base_hash: str
    prompt_template: str
    precision: Precision
    max_new_tokens: int
    constrained: bool = False
    labels: list[str] = field(default_factory=list)


def log_model(
    run_id: str,
    adapter: Path,
    served: ServingParameters,
    evidence: str,
    sign: Callable[[Path], None],
) -> str:
    """Log the adapter under its training run unless it is logged; return the model's id.

    ``sign`` is called with the folder of all files before they are logged. A model that a crash
    left half logged is completed, since MLflow keeps the files of deleted models.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = mlflow_api.full_client()
    experiment = client.get_run(run_id).info.experiment_id
    condition = f"source_run_id = '{run_id}' and tags.`{EVIDENCE_OF_MODEL}` = '{evidence}'"
    models = client.search_logged_models([experiment], filter_string=condition)
    for model in models:
        if model.status == LoggedModelStatus.READY:
            return model.model_id
    unfinished = (
        models[0]
        if models
        else client.create_logged_model(
            experiment, name="adapter", source_run_id=run_id, tags={EVIDENCE_OF_MODEL: evidence}
        )
    )
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        folder = Path(scratch) / "model"
        save_model_files(folder, adapter, served, run_id, unfinished.model_id)
        sign(folder)
        client.log_model_artifacts(unfinished.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(unfinished.model_id, 0)])
    client.finalize_logged_model(unfinished.model_id, LoggedModelStatus.READY)
    return unfinished.model_id


def save_model_files(
    folder: Path, adapter: Path, served: ServingParameters, run_id: str, model_id: str
) -> None:
    """Write all files of a version in MLflow's layout."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    save_model(
        folder,
        python_model=str(MODEL_CODE),
        artifacts={"adapter": str(adapter)},
        model_config={**asdict(served), "undecided": False},
        pip_requirements=[f"{name}=={installed(name)}" for name in PACKAGES],
        signature=_schema(),
        input_example=_example_request(adapter),
        mlflow_model=Model(run_id=run_id, model_id=model_id),
    )


def _schema() -> "ModelSignature":
    # OpenAI's chat request in, chat completion out
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, Schema

    messages, choices = (ColSpec(Array(AnyType()), name) for name in ("messages", "choices"))
    tools = ColSpec(AnyType(), "tools", required=False)
    texts = [ColSpec("string", name) for name in ("id", "object")]
    return ModelSignature(Schema([messages, tools]), Schema([*texts, choices]))


def _example_request(adapter: Path) -> dict[str, Json]:
    path = adapter / chat_templates.EXAMPLE
    example: dict[str, Json] = json.loads(path.read_text()) if path.exists() else DEFAULT_REQUEST
    return {name: example[name] for name in ("messages", "tools")}
