"""What there is to compute: the steps in their order, and the tokens of them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from components.train import order, packing
from components.train.lessons import Lesson
from components.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Work:
    """A training's steps and tokens.

    ``tokens`` counts requests and answers as often as they are learned; ``steps`` says of each
    step how many it computes, which are fewer where rows begin alike.
    """

    tokens: int
    steps: tuple[int, ...]

    @property
    def computed(self) -> int:
        """The tokens of all steps, those in common counted once."""
        return sum(self.steps)


def steps(lessons: Sequence[Lesson], recipe: Recipe) -> list[list[Lesson]]:
    """Put the lessons of all epochs into steps, in training order.

    A part of an epoch is rounded up to a whole step, as in ``transformers.Trainer``.
    """
    size = recipe.step_size
    total = ceil(recipe.num_train_epochs * ceil(len(lessons) / size))
    found: list[list[Lesson]] = []
    for epoch in range(ceil(recipe.num_train_epochs)):
        ordered = order.of_lessons(lessons, recipe, epoch)
        found += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return found[:total]


def computed(step: Sequence[Lesson]) -> int:
    """Count the tokens of a step, those that its rows begin with in common once."""
    return packing.size([row.input_ids for lesson in step for row in lesson.rows])


def measure(steps: Sequence[Sequence[Lesson]]) -> Work:
    """Count what all steps of a training compute."""
    tokens = (len(row.input_ids) for step in steps for lesson in step for row in lesson.rows)
    return Work(sum(tokens), tuple(computed(step) for step in steps))


def expected_seconds(work: Work, done: int, seconds: float) -> float:
    """Tell from the pace of some steps how long all of them will take.

    Args:
        work: What there is to compute.
        done: How many steps were made, of which the first was a warm-up; at least 2.
        seconds: What those after the first took.
    """
    return work.computed * seconds / sum(work.steps[1:done])
