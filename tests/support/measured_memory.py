"""Plan a training and measure what it takes, each in a process of its own."""

import random
from pathlib import Path

from components.train.plan.estimate import TrainingPlan
from components.train.recipe import Recipe
from flows import workload_file as configs
from flows.cli import training_plan
from flows.cli.training_plan import Calibration
from tests.support import training_rows

TOLERANCE = 0.15
"""Relative to the measured memory without the libraries."""

SETTINGS = {
    "8 rows, rank 16": ({"per_device_train_batch_size": 8}, 8, 160),
    "2 x 4 rows, rank 64": (
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "r": 64},
        8,
        160,
    ),
    "2 long rows": ({"per_device_train_batch_size": 2, "max_length": 2048}, 2, 1000),
    "8 rows, computed anew": (
        {"per_device_train_batch_size": 8, "gradient_checkpointing": True},
        8,
        160,
    ),
}
"""A recipe, the rows of its one step, and the letters of each."""


def plan_and_measure(base: Path, folder: Path, setting: str) -> tuple[TrainingPlan, Calibration]:
    """Plan a setting's training, then make three steps of it."""
    knobs, count, letters = SETTINGS[setting]
    folder.mkdir()
    draw = random.Random(0)
    words = ["".join(draw.choice("aeiourstln ") for _ in range(letters)) for _ in range(count)]
    snapshot = training_rows.snapshot(folder, [(text, "It is so. " * 10) for text in words])
    file = folder / "measured.yaml"
    file.write_text(f"workload: measured\nbase: {base}\n")
    workload = configs.read_workload(file)
    recipe = Recipe.model_validate({**knobs, "num_train_epochs": 3})
    workload = workload.model_copy(update={"train": recipe})
    made = training_plan.make_plan(workload, snapshot, lambda _: None)
    timed = training_plan.calibrate_plan(workload, snapshot, made, 0.1, lambda _: None)
    assert timed
    return made, timed


def compare(made: TrainingPlan, timed: Calibration) -> tuple[float, float]:
    """Return the planned and the measured memory in GB, without the libraries."""
    peaks = made.asked.memory.peak, timed.peak_bytes
    planned, measured = ((peak - timed.loaded_bytes) / 1e9 for peak in peaks)
    return planned, measured
