"""Order rows so that those that begin alike are together."""

import random
from collections.abc import Sequence

from components.train import packing
from components.train.lessons import Lesson
from components.train.recipe import Recipe

PROMPTS = 4
"""Different prompts in a batch: rows that begin alike save work together, but are much alike."""


def in_order(rows: Sequence[packing.Row], batch_size: int, seed: int) -> list[int]:
    """Order rows at random, but those that begin alike by up to a quarter of a batch together.

    Args:
        rows: The token ids of each row.
        batch_size: Rows in a batch.
        seed: Draws the order; equal seeds give equal orders, so a resumed run goes on in it.

    Returns:
        The row numbers in training order.
    """
    draw = random.Random(seed)
    together = max(1, batch_size // PROMPTS)
    families = [draw.sample(family, len(family)) for family in packing.families(rows)]
    units = [
        family[start : start + together]
        for family in families
        for start in range(0, len(family), together)
    ]
    draw.shuffle(units)
    return [row for unit in units for row in unit]


def of_lessons(lessons: Sequence[Lesson], recipe: Recipe) -> list[Lesson]:
    """Give lessons in the order in which every epoch has them."""
    ids = [lesson.rows[0].input_ids for lesson in lessons]
    order = in_order(ids, recipe.step_size, recipe.seed)
    return [lessons[number] for number in order]
