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
    """Put the lessons of an epoch into steps, in training order."""
    first = [lesson.rows[0].input_ids for lesson in lessons]
    size = recipe.step_size
    found = [lessons[number] for number in order.in_order(first, size, recipe.seed)]
    return [found[start : start + size] for start in range(0, len(found), size)]


def computed(step: Sequence[Lesson]) -> int:
    """Count the tokens of a step, those that its rows begin with in common once."""
    return packing.size([row.input_ids for lesson in step for row in lesson.rows])


def measure(epoch: Sequence[Sequence[Lesson]], epochs: float) -> Work:
    """Count what all epochs compute; a part of one is rounded up to a whole step.

    As in ``transformers.Trainer``.
    """
    counted = [computed(step) for step in epoch]
    tokens = [sum(len(row.input_ids) for lesson in step for row in lesson.rows) for step in epoch]
    places = [number % len(epoch) for number in range(ceil(epochs * len(epoch)))]
    return Work(sum(tokens[place] for place in places), tuple(counted[place] for place in places))


def expected_seconds(work: Work, done: int, seconds: float) -> float:
    """Tell from the pace of some steps how long all of them will take.

    Args:
        work: What there is to compute.
        done: How many steps were made, of which the first was a warm-up; at least 2.
        seconds: What those after the first took.
    """
    return work.computed * seconds / sum(work.steps[1:done])
