"""Steps and tokens are those that the training will compute."""

import pytest

from components.train.lessons import Lesson, Tokens
from components.train.plan import work
from components.train.recipe import Recipe


def lesson(*ids: int) -> Lesson:
    return Lesson([Tokens(list(ids), 1, 1.0)], str(ids))


def test_what_rows_begin_with_in_common_is_computed_once():
    alike = [lesson(1, 2, 3, 4, 5, 6), lesson(1, 2, 3, 4, 7, 8)]
    (step,) = work.steps(alike, Recipe(per_device_train_batch_size=8))
    found = work.measure([step])
    assert (found.tokens, found.computed) == (12, 8)


def test_a_part_of_an_epoch_is_a_whole_step_and_its_batches_are_one():
    lessons = [lesson(number, 9, 9) for number in range(10)]
    recipe = Recipe(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=1.5
    )
    steps = work.steps(lessons, recipe)
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4]
    found = work.measure(steps)
    assert found.steps == (12, 12, 6, 12, 12)
    assert found.tokens == 54


def test_the_time_of_all_steps_follows_from_some():
    found = work.Work(tokens=0, steps=(100, 50, 50, 200))
    assert work.expected_seconds(found, done=3, seconds=2.0) == pytest.approx(8.0)
