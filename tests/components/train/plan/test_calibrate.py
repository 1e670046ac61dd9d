"""A calibration trains some steps of the planned training, and saves nothing."""

import tempfile
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from components.schema import Progress
from components.train import training_examples
from components.train.plan import estimate, planner
from components.train.recipe import Recipe
from tests.support import tiny, training_rows


def test_it_trains_at_least_three_steps_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    model = tiny.build(tmp_path / "base")
    snapshot = training_rows.snapshot(tmp_path, [(f"Number {n}?", "Yes.") for n in range(10)])
    recipe = Recipe(
        num_train_epochs=1.5, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    reports: list[Progress] = []
    planner.calibrate(snapshot, model, recipe, 0, report=reports.append)
    assert [progress.done for progress in reports] == [1, 2, 3]
    figures = reports[-1].figures
    assert figures["peak_bytes"] >= figures["loaded_bytes"] > 0
    assert figures["seconds"] > 0
    assert not list((tmp_path / "temporary").iterdir())
    examples = training_examples.select_examples(
        snapshot, AutoTokenizer.from_pretrained(model), recipe
    ).examples
    planned = estimate.measure_work(estimate.training_steps(examples, recipe))
    assert reports[-1].total == len(planned.steps), "as many steps as were planned"
