"""Steps and tokens are those that the training will compute."""

import pytest

from components.train.plan import estimate
from components.train.recipe import Recipe
from components.train.training_examples import Tokens, TrainingExample


def example(*ids: int) -> TrainingExample:
    return TrainingExample([Tokens(list(ids), 1, 1.0)], str(ids))


def test_what_rows_begin_with_in_common_is_computed_once():
    alike = [example(1, 2, 3, 4, 5, 6), example(1, 2, 3, 4, 7, 8)]
    (step,) = estimate.training_steps(alike, Recipe(per_device_train_batch_size=8))
    found = estimate.measure_work([step])
    assert (found.tokens, found.computed) == (12, 8)


def test_a_part_of_an_epoch_is_a_whole_step_and_its_batches_are_one():
    examples = [example(number, 9, 9) for number in range(10)]
    recipe = Recipe(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=1.5
    )
    steps = estimate.training_steps(examples, recipe)
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4]
    found = estimate.measure_work(steps)
    assert found.steps == (12, 12, 6, 12, 12)
    assert found.tokens == 54


def test_the_time_of_all_steps_follows_from_some():
    found = estimate.TrainingWork(tokens=0, steps=(100, 50, 50, 200))
    assert estimate.expected_seconds(found, done=3, seconds=2.0) == pytest.approx(8.0)
