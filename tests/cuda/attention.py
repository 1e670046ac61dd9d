"""Attention of packed rows, three ways: a dense mask, each row alone (varlen), blocks of a mask."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface

from components.train import peft_model, sft_trainer, training_examples
from components.train.micro_batches import BatchLayout, MicroBatch, collate
from components.train.training_examples import TrainingExample
from tests.cuda import models, race
from tests.cuda.models import Shape
from tests.cuda.race import BATCH, RECIPE, WARM_UP, Pace
from tests.support import tiny

ROWS, BLOCKS = "rows_alone", "blocks_of_a_mask"  # names that transformers knows the two by

DENSE = "dense mask in SDPA (ours)"
VARLEN = "varlen flash attention, no shared prefix"
FLEX = "flex attention on blocks of our mask"


def paces(shape: Shape, snapshot: Path) -> dict[str, Pace]:
    """Compute a training's batches with gradients in each way; the loss is that of the last batch.

    Varlen attention takes rows one after the other, so each computes a prefix that it shares.
    """
    tokenizer = tiny.tokenizer()
    base: Any = models.build_nf4(shape)
    adapted: Any = peft_model.attach_trainable(base, RECIPE).train()
    examples = training_examples.select_examples(snapshot, tokenizer, RECIPE).examples
    batches = [examples[start : start + BATCH] for start in range(0, len(examples), BATCH)]
    ways: dict[str, tuple[str, Callable[[Any, list[TrainingExample]], torch.Tensor]]] = {
        DENSE: (models.attention(), _dense_loss),
        VARLEN: (ROWS, _varlen_loss),
        FLEX: (BLOCKS, _flex_loss),
    }
    paces: dict[str, Pace] = {}
    for name, (implementation, loss_of) in ways.items():
        base.set_attn_implementation(implementation)
        # flex attention has no backward pass on a CPU
        learns = name != FLEX or models.DEVICE == "cuda"
        clock = race.Clock(len(batches))
        race.forget_peak()
        loss = torch.zeros(())
        for number, batch in enumerate(batches, 1):
            with torch.set_grad_enabled(learns), torch.autocast(models.DEVICE, torch.bfloat16):
                loss = loss_of(adapted, batch)
            adapted.zero_grad()
            clock.after(number)
        timed = sum(example.length for batch in batches[WARM_UP:] for example in batch)
        paces[name] = Pace(timed, clock.seconds, race.peak_gb(), loss.item())
    return paces


def _learn(logits: torch.Tensor, labels: torch.Tensor, batch: Sequence[TrainingExample]) -> Any:
    """Add a part's gradients; return its share of the batch's mean loss."""
    learned = sum(len(row.input_ids) - row.prompt_length for e in batch for row in e.rows)
    loss = cross_entropy(logits.float(), labels, reduction="sum") / learned
    if loss.requires_grad:
        loss.backward()
    return loss.detach()


def _parts(batch: Sequence[TrainingExample]) -> list[MicroBatch]:
    collated = collate([asdict(example) for example in batch], BatchLayout())
    return [
        {name: tensor.to(models.DEVICE) for name, tensor in part.items()}
        for part in collated["micro_batches"]
    ]


def _dense_loss(adapted: Any, batch: list[TrainingExample]) -> torch.Tensor:
    losses = [
        _learn(sft_trainer.answer_logits(adapted, part), part["labels"], batch)
        for part in _parts(batch)
    ]
    return torch.stack(losses).sum()


def _flex_loss(adapted: Any, batch: list[TrainingExample]) -> torch.Tensor:
    losses: list[torch.Tensor] = []
    for part in _parts(batch):
        visible, length = part["visible"], len(part["input_ids"])
        mask = create_block_mask(
            lambda _batch, _head, query, key, visible=visible: visible[query, key],
            None,
            None,
            length,
            length,
            device=models.DEVICE,
        )
        logits = adapted(
            input_ids=part["input_ids"][None],
            position_ids=part["position_ids"][None],
            logits_to_keep=part["predicting"],
            block_mask=mask,
            use_cache=False,
        ).logits[0]
        losses.append(_learn(logits, part["labels"], batch))
    return torch.stack(losses).sum()


def _varlen_loss(adapted: Any, batch: list[TrainingExample]) -> torch.Tensor:
    rows = [row for example in batch for row in example.rows]
    lengths = [len(row.input_ids) for row in rows]
    starts = [0, *itertools.accumulate(lengths)]
    predicting = [
        start + place
        for start, row in zip(starts, rows, strict=False)
        for place in range(row.prompt_length - 1, len(row.input_ids) - 1)
    ]
    labels = [token for row in rows for token in row.input_ids[row.prompt_length :]]

    def tensor(numbers: list[int], dtype: torch.dtype = torch.long) -> torch.Tensor:
        return torch.tensor(numbers, device=models.DEVICE, dtype=dtype)

    logits = adapted(
        input_ids=tensor([token for row in rows for token in row.input_ids])[None],
        position_ids=tensor([place for length in lengths for place in range(length)])[None],
        logits_to_keep=tensor(predicting),
        row_starts=tensor(starts, torch.int32),
        longest_row=max(lengths),
        use_cache=False,
    ).logits[0]
    return _learn(logits, tensor(labels), batch)


def _attend_to_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    row_starts: torch.Tensor,
    longest_row: int,
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    if models.DEVICE == "cuda":
        ours, keys, values = (
            states[0].transpose(0, 1).to(torch.bfloat16) for states in (query, key, value)
        )
        ends = (row_starts, row_starts, longest_row, longest_row)
        causal = (-1, 0)
        attended: Any = varlen_attn(
            ours, keys, values, *ends, scale=scaling, window_size=causal, enable_gqa=True
        )
        return attended[None], None
    parts = [
        scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )
        for start, stop in itertools.pairwise(row_starts.tolist())
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


_flex = torch.compile(flex_attention) if models.DEVICE == "cuda" else flex_attention


def _attend_by_blocks(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    block_mask: Any,
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    attended: Any = _flex(query, key, value, block_mask=block_mask, scale=scaling, enable_gqa=True)
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(ROWS, _attend_to_rows)
AttentionInterface.register(BLOCKS, _attend_by_blocks)
