"""EVA: begin with the directions in which the rows to train on vary most (arXiv:2410.07170).

Each layer's ``A`` is the principal components of what the layer is given, and ranks go to the
layers whose components explain most.
Imported late, since it loads torch.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch  # noqa: TID253 - this module is itself imported late
from peft import EvaConfig, LoraConfig, initialize_lora_eva_weights  # noqa: TID253 - as above

from components.train.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel

    from components.train.lessons import Tokens

Batch: TypeAlias = dict[str, torch.Tensor]

IGNORED = -100
"""The label of what is no answer: its inputs are not looked at."""

FEWEST, ENOUGH = 4, 16
"""How many answer tokens there have to be for each component that is looked for, and as many as
are looked at."""

LARGEST = 16_384
"""Tokens that are computed for it at a time, padding included."""


def start(adapted: "PeftModel", rows: "Sequence[Tokens]", recipe: Recipe) -> None:
    """Set the first weights and the ranks from the answers of some rows.

    PEFT adds batch upon batch until the components settle, which noisy ones may never do. Here it
    is given one batch, drawn from all rows, which settles at its second look.

    Raises:
        ValueError: There are too few to find so many components in.
    """
    components = int(recipe.r * EvaConfig().rho)
    sample = _sample(rows, components * ENOUGH, recipe.seed)
    answers = sum(map(_learned, sample))
    if answers < components * FEWEST:
        raise ValueError(
            f"init_lora_weights eva looks for {components} components and wants "
            f"{components * FEWEST} tokens of answers to find them in, found {answers}: lower r, "
            "or take another"
        )
    initialize_lora_eva_weights(
        adapted, dataloader=[_batch(sample)], forward_fn=_forward, show_progress_bar=False
    )


def config_of(checkpoint: Path) -> LoraConfig:
    """Read which ranks a training that goes on has found."""
    config = LoraConfig.from_pretrained(str(checkpoint))
    assert isinstance(config, LoraConfig)
    config.inference_mode = False
    return config


def _forward(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> None:
    """Compute all layers, as in training, and few logits, which nobody reads."""
    with torch.autocast(batch["input_ids"].device.type, dtype=torch.bfloat16):
        model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=1,
            use_cache=False,
        )


def _sample(rows: "Sequence[Tokens]", wanted: int, seed: int) -> "list[Tokens]":
    """Draw rows until they have enough answer tokens, or more would be too much at a time."""
    drawn: list[Tokens] = []
    longest = answers = 0
    for row in random.Random(seed).sample(rows, len(rows)):
        longest = max(longest, len(row.input_ids))
        if answers >= wanted or longest * (len(drawn) + 1) > LARGEST:
            break
        drawn.append(row)
        answers += _learned(row)
    return drawn


def _learned(row: "Tokens") -> int:
    return sum(last - first for first, last in row.learned)


def _batch(rows: "Sequence[Tokens]") -> Batch:
    """Pad the rows on the right."""
    shape = len(rows), max(len(row.input_ids) for row in rows)
    ids, seen = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for number, row in enumerate(rows):
        end = len(row.input_ids)
        ids[number, :end] = torch.tensor(row.input_ids)
        seen[number, :end] = 1
        for first, last in row.learned:
            labels[number, first:last] = ids[number, first:last]
    return {"input_ids": ids, "attention_mask": seen, "labels": labels}
