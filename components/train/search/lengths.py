"""Count how many tokens each step of a candidate's training sees, before there is one.

Imported late, since transformers is slow to load.
"""

from pathlib import Path

from transformers import AutoTokenizer  # noqa: TID253 - this module is itself imported late

from components.train import examples, order
from components.train.recipe import Recipe


def tokens_by_step(snapshot: Path, base: Path, recipe: Recipe) -> list[int]:
    """Count the tokens of each step of the first epoch of ``fit``, prompts and answers.

    Args:
        snapshot: A finished snapshot folder.
        base: The base's folder, of which only the tokenizer is loaded.
        recipe: How it is trained.
    """
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    lessons = order.of_lessons(examples.read(snapshot, tokenizer, recipe), recipe)
    counts = [sum(len(row.input_ids) for row in lesson.rows) for lesson in lessons]
    size = recipe.step_size
    return [sum(counts[first : first + size]) for first in range(0, len(counts), size)]
