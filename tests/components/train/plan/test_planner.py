"""A plan has the batch that fits."""

from pathlib import Path

import pytest

from components.train import fit
from components.train.plan import estimate, planner
from components.train.plan.estimate import PLAN_JSON, TrainingPlan
from components.train.recipe import Recipe, Worker
from tests.support import training_rows

RECIPE = Recipe(per_device_train_batch_size=4)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [(f"{letter} what? " * 20, "Yes.") for letter in "abcdefgh"]
    return training_rows.snapshot(tmp_path_factory.mktemp("snapshot"), pairs)


def plan(model: Path, snapshot: Path, free: float, **knobs: object) -> TrainingPlan:
    """Plan for a GPU with so many free bytes."""
    worker = Worker(gpu_memory_gb=(free + estimate.CUDA_CONTEXT) / 1e9)
    recipe = RECIPE.model_copy(update=knobs)
    return planner.make_plan(snapshot, model, recipe, worker, report=lambda _: None)


def test_the_plan_has_the_largest_batch_that_fits_and_its_accumulation(model: Path, snapshot: Path):
    roomy = plan(model, snapshot, 1e9)
    assert roomy.fits
    assert roomy.advised == roomy.largest == roomy.asked
    assert roomy.is_elsewhere
    tight = plan(model, snapshot, roomy.asked.memory.peak * 0.99)
    assert not tight.fits
    assert tight.largest
    assert tight.largest.knobs == {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": False,
    }
    assert tight.advised == tight.largest
    assert tight.largest.memory.activations < tight.asked.memory.activations


def test_the_tokens_of_each_step_are_counted_in_every_epochs_own_order(model: Path, tmp_path: Path):
    pairs = [(f"{number} what? " * (1 + number % 7), "Yes.") for number in range(18)]
    snapshot = training_rows.snapshot(tmp_path, pairs)
    recipe = RECIPE.model_copy(update={"num_train_epochs": 1.6, "save_steps": 99})
    counted = planner.tokens_by_step(snapshot, model, recipe)
    assert sum(counted[0]) == sum(counted[1])
    seen = fit.fit(snapshot, model, tmp_path / "a", recipe, report=lambda _: None)
    assert (seen.steps, seen.tokens) == (8, sum([*counted[0], *counted[1]][:8]))
    assert seen.tokens != sum((counted[0] * 2)[:8]), "the first epoch has another order"


def test_a_training_without_a_row_that_fits_has_no_step_to_count(model: Path, snapshot: Path):
    assert (
        planner.tokens_by_step(snapshot, model, RECIPE.model_copy(update={"max_length": 16})) == []
    )


@pytest.mark.slow
def test_gradient_checkpointing_is_planned_if_nothing_else_fits(model: Path, snapshot: Path):
    singly = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    one_row = plan(model, snapshot, 1e9, **singly).asked.memory.peak
    anew = plan(model, snapshot, 1e9, **singly, gradient_checkpointing=True).asked.memory.peak
    assert anew < one_row
    tight = plan(model, snapshot, (anew + one_row) / 2)
    assert tight.largest
    assert tight.largest.knobs == {**singly, "gradient_checkpointing": True}


@pytest.mark.slow
def test_the_plan_advises_nothing_if_nothing_fits(model: Path, snapshot: Path):
    hopeless = plan(model, snapshot, 1)
    assert not hopeless.fits
    assert hopeless.largest is None
    assert hopeless.advised is None


def test_a_plan_round_trips_through_json(model: Path, snapshot: Path):
    made = plan(model, snapshot, 1e9)
    assert PLAN_JSON.validate_json(PLAN_JSON.dump_json(made)) == made
