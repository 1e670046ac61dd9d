"""Order rows so that those that begin alike are together, in each epoch anew."""

import random
from collections.abc import Iterator, Sequence

from components.models.prefix_tree import Row, families
from components.train.lessons import Lesson
from components.train.recipe import Recipe

PROMPTS = 4
"""Different prompts in a batch: rows that begin alike save work together, but are much alike."""


def in_order(rows: Sequence[Row], batch_size: int, seed: int, epoch: int = 0) -> list[int]:
    """Order rows at random, but those that begin alike by up to a quarter of a batch together.

    Args:
        rows: The token ids of each row.
        batch_size: Rows in a batch.
        seed: Draws the order; equal seeds give equal orders, so a resumed run goes on in it.
        epoch: The number of the epoch, from 0; each has an order of its own.

    Returns:
        The row numbers in training order.
    """
    draw = random.Random(f"{seed}, epoch {epoch}" if epoch else seed)
    together = max(1, batch_size // PROMPTS)
    alike = [draw.sample(family, len(family)) for family in families(rows)]
    units = [
        family[start : start + together]
        for family in alike
        for start in range(0, len(family), together)
    ]
    draw.shuffle(units)
    return [row for unit in units for row in unit]


def of_lessons(lessons: Sequence[Lesson], recipe: Recipe, epoch: int = 0) -> list[Lesson]:
    """Return lessons in the order in which an epoch has them."""
    return [lessons[number] for number in Epochs(lessons, recipe).order(epoch)]


class Epochs:
    """The numbers of lessons in the order of one epoch after the other.

    A data loader's sampler: the trainer sets the epoch before it draws, also where a run goes on in
    the middle of one.
    """

    def __init__(self, lessons: Sequence[Lesson], recipe: Recipe) -> None:
        self._ids = [lesson.rows[0].input_ids for lesson in lessons]
        self._recipe, self._epoch = recipe, 0

    def order(self, epoch: int) -> list[int]:
        """Return the numbers in an epoch's order."""
        return in_order(self._ids, self._recipe.step_size, self._recipe.seed, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch from now on."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Return the numbers in the order of the epoch that was set."""
        return iter(self.order(self._epoch))

    def __len__(self) -> int:
        """Count the lessons."""
        return len(self._ids)
