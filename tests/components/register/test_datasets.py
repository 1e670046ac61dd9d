"""MLflow shows the data that an adapter was trained and measured on."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.register import tracking
from components.store import manifest
from tests.support import logs


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "s1"
    folder.mkdir()
    body = {
        "workload": "support",
        "rows": {"train": 80, "validation": 0, "holdout": 20, "preferences": 3},
        "tokens": {"train": 8000, "validation": 0, "holdout": 2000},
        "holdout_version": "v2-abc",
    }
    manifest.write(folder, kind="snapshot", now=logs.NOW, body=body)
    return folder


def test_a_run_names_the_sides_that_have_rows_with_their_digests(snapshot: Path) -> None:
    run_id = tracking.open_run("data", "d1", params={}, tags={})
    tracking.log_datasets(run_id, snapshot)
    tracking.log_datasets(run_id, snapshot)
    shown = MlflowClient().get_run(run_id).inputs
    assert shown
    inputs = {
        recorded.dataset.name: (recorded.dataset.digest, recorded.tags[0].value, recorded.dataset)
        for recorded in shown.dataset_inputs
    }
    assert {name: fields[:2] for name, fields in inputs.items()} == {
        "support train": ("s1", "training"),
        "support holdout": ("v2-abc", "testing"),
    }
    trained = inputs["support train"][2]
    assert json.loads(str(trained.profile)) == {"num_rows": 80, "tokens": 8000}
    assert json.loads(trained.source) == {"uri": f"file://{snapshot}/train.parquet"}


def test_an_unfinished_snapshot_is_not_logged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tracking.log_datasets(tracking.open_run("data", "d2", params={}, tags={}), tmp_path)
