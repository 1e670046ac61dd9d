"""Measure a training on rows that it never learns: on its way, at its end, and to compare it.

Imported late, since it loads torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from components.train import answers, examples
from components.train.completion import CompletionTrainer
from components.train.early import LOSS
from components.train.lessons import Lesson
from components.train.objectives.settings import Sft
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def held_out(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, *, is_compared: bool
) -> list[Lesson]:
    """Read what the loss is measured on; trainings are compared on answers, whatever they learn.

    Raises:
        ValueError: There is nothing, and it is wanted.
    """
    if is_compared:
        recipe = recipe.model_copy(update={"objective": Sft()})
    held = examples.read_validation(snapshot, tokenizer, recipe)
    if not held and (is_compared or recipe.eval_steps is not None):
        raise ValueError(
            f"training on {snapshot}: eval_steps and a search want rows to measure the loss on, "
            "and it has none that fit into max_length; raise validation_share"
        )
    return held


def measure(trainer: CompletionTrainer, held: list[Lesson], recipe: Recipe) -> dict[str, float]:
    """Measure on what it never saw, and let it train on."""
    figures = trainer.measure(held, recipe.per_device_train_batch_size)
    cast("PeftModel", trainer.model).train()
    return figures


def validate(
    trainer: CompletionTrainer,
    held: list[Lesson],
    snapshot: Path,
    recipe: Recipe,
    *,
    is_compared: bool,
) -> tuple[dict[str, float], dict[int, float]]:
    """Give figures of the adapter on what it never saw, and each row's loss if it is compared."""
    if not held:
        return {}, {}
    size = recipe.per_device_train_batch_size
    if not is_compared:
        return trainer.measure(held, size), {}
    with trainer.accelerator.autocast():  # as in a step, also where there was no step to do
        nats = answers.nats(cast("PeftModel", trainer.model), held, size)
    numbers = examples.validation_numbers(snapshot)
    by_number = {numbers[row_id]: loss for row_id, loss in nats.items()}
    return {LOSS: answers.mean(nats, held)}, by_number
