"""EVA: begin with the directions in which the rows to train on vary most (arXiv:2410.07170).

Each layer's ``A`` is the principal components of what the layer is given, and ranks go to the
layers whose components explain most.
Imported late, since it loads torch.
"""

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

FEW = 4
"""A batch has at least this many answer tokens for each component that is looked for."""


def start(adapted: "PeftModel", rows: "Sequence[Tokens]", recipe: Recipe) -> None:
    """Set the first weights and the ranks from the rows' answers.

    Raises:
        ValueError: There are too few to find so many components in.
    """
    components = int(recipe.r * EvaConfig().rho)
    wanted = FEW * components
    answers = sum(map(_learned, rows))
    if answers < wanted:
        raise ValueError(
            f"init_lora_weights eva looks for {components} components and wants {wanted} tokens of "
            f"answers to find them in, found {answers}: lower r, or take another"
        )
    initialize_lora_eva_weights(
        adapted,
        dataloader=_batches(rows, wanted),
        forward_fn=_forward,
        show_progress_bar=False,
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


def _batches(rows: "Sequence[Tokens]", wanted: int) -> list[Batch]:
    """Put rows together until each batch has enough answer tokens; the last takes what is left."""
    groups: list[list[Tokens]] = [[]]
    for row in rows:
        if sum(map(_learned, groups[-1])) >= wanted:
            groups.append([])
        groups[-1].append(row)
    if len(groups) > 1 and sum(map(_learned, groups[-1])) < wanted:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [_batch(group) for group in groups]


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
