"""Tell MLflow what an adapter was trained and is measured on, so that its pages show it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from components import manifest
from components.schema import Json

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXTS = {"train": "training", "validation": "validation", "holdout": "testing"}
"""What each side is for, in MLflow's words."""


def log(run_id: str, snapshot: Path) -> None:
    """Add the sides of a snapshot that have rows to a run's inputs; repeating it changes nothing.

    A side's digest is the snapshot's key, that of the holdout its version.

    Raises:
        FileNotFoundError: The snapshot is unfinished.
    """
    from mlflow import MlflowClient

    body = manifest.read(snapshot)
    counts = body["rows"]
    assert isinstance(counts, dict)
    inputs = [_input(snapshot, body, side, counts[side]) for side in CONTEXTS if counts.get(side)]
    MlflowClient().log_inputs(run_id, datasets=inputs)


def _input(snapshot: Path, body: dict[str, Json], side: str, rows: Json) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tokens = body.get("tokens")
    profile: dict[str, Json] = {"num_rows": rows}
    if isinstance(tokens, dict):
        profile["tokens"] = tokens[side]
    dataset = Dataset(
        name=f"{body['workload']} {side}",
        digest=str(body["holdout_version" if side == "holdout" else "key"]),
        source_type="local",
        source=json.dumps({"uri": (snapshot / f"{side}.parquet").as_uri()}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", CONTEXTS[side])])
