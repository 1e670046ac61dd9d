"""Log an adapter as an MLflow model: with its signature and an example, without loading the base.

MLflow's own ``log_model`` answers the example once to see whether it can be served, which loads the
base on a machine that only registers; so the model is saved to a folder and logged from there.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from components import rendering
from components.base import Precision
from components.schema import Json

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

OF_EVIDENCE = "flywheel.evidence"
"""On a logged model: what it was logged for, so that a crash does not log it twice."""

PACKAGES = ("lora-flywheel", "torch", "transformers", "peft", "bitsandbytes", "accelerate")


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


def log(
    run_id: str, adapter: Path, served: Served, evidence: str, sign: Callable[[Path], None]
) -> str:
    """Log the adapter under its training run, or find it logged; give the model's id.

    ``sign`` is called with the folder of all files before they are logged.

    What a crash left half logged is gone on with: MLflow keeps the files of models it deletes.
    """
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    condition = f"source_run_id = '{run_id}' and tags.`{OF_EVIDENCE}` = '{evidence}'"
    found = client.search_logged_models([experiment], filter_string=condition)
    for one in found:
        if one.status == LoggedModelStatus.READY:
            return one.model_id
    made = (
        found[0]
        if found
        else client.create_logged_model(
            experiment, name="adapter", source_run_id=run_id, tags={OF_EVIDENCE: evidence}
        )
    )
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        folder = Path(scratch) / "model"
        save(folder, adapter, served, run_id, made.model_id)
        sign(folder)
        client.log_model_artifacts(made.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    return made.model_id


def save(folder: Path, adapter: Path, served: Served, run_id: str, model_id: str) -> None:
    """Write all files of a version, as MLflow loads them."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    save_model(
        folder,
        python_model=str(Path(sys.modules[__package__ or ""].__path__[0]) / "chat_model.py"),
        artifacts={"adapter": str(adapter)},
        model_config={**asdict(served), "undecided": False},
        pip_requirements=[f"{name}=={installed(name)}" for name in PACKAGES],
        signature=signature(),
        input_example=example(adapter),
        mlflow_model=Model(run_id=run_id, model_id=model_id),
    )


def signature() -> "ModelSignature":
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


def example(adapter: Path) -> dict[str, Json]:
    """Give the request that shows how an adapter's prompts are written; nobody ever asked it."""
    path = adapter / rendering.EXAMPLE
    told: dict[str, Json] = json.loads(path.read_text()) if path.exists() else ASKED
    return {name: told[name] for name in ("messages", "tools")}


ASKED: dict[str, Json] = {"messages": [{"role": "user", "content": "Hello"}], "tools": []}
"""For an adapter that was made before they came with an example."""
