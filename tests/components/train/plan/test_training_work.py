"""Planned steps and tokens are those of the training."""

import pytest

from components.train.plan import estimate
from components.train.recipe import Recipe
from components.train.training_examples import Tokens, TrainingExample


def example(*ids: int) -> TrainingExample:
    return TrainingExample([Tokens(list(ids), 1, 1.0)], str(ids))


def test_a_common_prefix_is_computed_once():
    alike = [example(1, 2, 3, 4, 5, 6), example(1, 2, 3, 4, 7, 8)]
    (step,) = estimate.training_steps(alike, Recipe(per_device_train_batch_size=8))
    work = estimate.measure_work([step])
    assert (work.tokens, work.computed) == (12, 8)


def test_a_partial_epoch_is_rounded_up_to_a_whole_step():
    examples = [example(number, 9, 9) for number in range(10)]
    recipe = Recipe(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=1.5
    )
    steps = estimate.training_steps(examples, recipe)
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4]
    work = estimate.measure_work(steps)
    assert work.steps == (12, 12, 6, 12, 12)
    assert work.tokens == 54


def test_the_time_of_all_steps_is_extrapolated_from_some():
    work = estimate.TrainingWork(tokens=0, steps=(100, 50, 50, 200))
    assert estimate.expected_seconds(work, done=3, seconds=2.0) == pytest.approx(8.0)
