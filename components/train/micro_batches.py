"""Collate training examples into micro-batches of packed sequences."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, TypeAlias

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late

from components.train import packing
from components.train.training_examples import Tokens, TrainingExample

MicroBatch: TypeAlias = Mapping[str, torch.Tensor]
"""Some of a batch's examples as one sequence; ``collate`` lists its tensors."""

Batch: TypeAlias = dict[str, list[MicroBatch]]

LONGEST_SEQUENCE = 2048
"""Tokens beyond which a sequence is split: attention grows with the square of its length."""

ONE_BY_ONE = 1  # such tokens: no sequence has two examples


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """How examples are packed into sequences, and how their tokens are weighted."""

    threads: int = 1  # micro-batches computed in parallel

    max_tokens: int = LONGEST_SEQUENCE
    """Tokens beyond which examples are split into several sequences: the gradients stay the same,
    with less memory and more time."""

    min_sequences: int = 1
    """Minimum sequences per thread, over all processes: twice as many halve the memory of each."""

    first_token_weight: float = 1.0
    """Weight of an answer's first token relative to the others."""

    call_margin: float = 0.0
    """Added to the call token's logit where an answer's first token decides between call and text.
    """

    kl_pairs: bool = False
    """Also pair each example's answer with another example's request, for KTO's KL estimate."""

    max_length: int = sys.maxsize
    """Tokens beyond which such a pair is not made: the base may have no positions for more."""

    process: int = 0
    """Index of this process among those that train on the batch together."""

    processes: int = 1
    """Processes that train on the batch together: each gets about the same amount of work, some
    none if there are fewer examples than processes."""


PLAIN_LAYOUT = BatchLayout()


def collate(examples: Sequence[dict[str, Any]], layout: BatchLayout = PLAIN_LAYOUT) -> Batch:
    """Return a batch of ``micro_batches``, at least one per thread if there are enough examples.

    ``examples`` are dictionaries of the fields of ``TrainingExample``.

    Returns:
        ``micro_batches`` and, with ``layout.kl_pairs``, ``kl_pairs``: micro-batches too, the same
        in every process. Each has

        - ``input_ids`` and ``position_ids`` ``[tokens]``, ``visible`` ``[tokens, tokens]``;
        - ``row_indices``: the sequence indices of each row's tokens, row after row, and
          ``row_sizes`` ``[rows, 2]``: each row's number of tokens and of learned tokens;
        - ``query_tokens``: the sorted indices of tokens that predict a learned token;
        - ``blocks`` ``[blocks, 4]``: first and one past the last token of each block, outside of
          which its tokens see nothing, and the same range within ``query_tokens``;
        - per learned token: ``predicting``, the index of the token that predicts it,
          ``query_index``, its position in ``query_tokens``, ``labels``, ``token_weights``,
          ``weights`` (those times the row's weight), ``row``, and ``margins`` (empty without
          ``call_margin``);
        - per row: ``example`` (index), ``row_weights`` and ``is_good``; rows of a pair are
          adjacent, the chosen one first;
        - ``loss_scale``, a scalar: 1, or 0 in padding micro-batches.
    """
    parsed = [_read_example(fields) for fields in examples]
    batch = {"micro_batches": _micro_batches(_own_part(parsed, layout), layout)}
    if layout.kl_pairs:
        plain = replace(layout, first_token_weight=1.0, call_margin=0.0)
        batch["kl_pairs"] = _micro_batches(_kl_pairs(parsed, layout.max_length), plain)
    return batch


def pad_with_empty(batch: Batch, examples: Sequence[dict[str, Any]], count: int) -> Batch:
    """Return the batch padded to ``count`` micro-batches with its shortest example at loss scale 0.

    With a sharded base, all processes have to run equally many forward passes.
    """
    micro_batches = batch["micro_batches"]
    shortest = min(examples, key=lambda example: count_tokens([example]))
    (padding,) = _micro_batches([_read_example(shortest)], PLAIN_LAYOUT)
    padding = {**padding, "loss_scale": torch.tensor(0.0)}
    return {**batch, "micro_batches": micro_batches + [padding] * (count - len(micro_batches))}


def count_tokens(examples: Sequence[dict[str, Any]]) -> int:
    """Count the tokens of all rows; a shared prefix counts in each row that has it."""
    return sum(len(row["input_ids"]) for example in examples for row in example["rows"])


def _own_part(examples: list[TrainingExample], layout: BatchLayout) -> list[TrainingExample]:
    if layout.processes == 1:
        return examples
    parts = packing.share_out([example.rows[0].input_ids for example in examples], layout.processes)
    return [examples[number] for number in [*parts, *[[]] * layout.processes][layout.process]]


def _read_example(fields: dict[str, Any]) -> TrainingExample:
    rows = [Tokens(**row) for row in fields["rows"]]
    return TrainingExample(rows, fields["row_id"], fields["is_good"])


def _kl_pairs(examples: Sequence[TrainingExample], max_length: int) -> list[TrainingExample]:
    """Pair each answer with the next request that differs from its own and fits, cyclically.

    TRL's KTO trainer takes the next example whatever its request; where people judged several
    answers to one request, that is often the answer's own. Empty if all requests are equal.
    """
    pairs: list[TrainingExample] = []
    for number, example in enumerate(examples):
        (row,) = example.rows
        own_request, answer = row.input_ids[: row.prompt_length], row.input_ids[row.prompt_length :]
        for other in (*examples[number + 1 :], *examples[:number]):
            request = other.rows[0].input_ids[: other.rows[0].prompt_length]
            if request != own_request and len(request) + len(answer) <= max_length:
                tokens = Tokens([*request, *answer], len(answer), 1.0)
                pairs.append(TrainingExample([tokens], other.row_id, example.is_good))
                break
    return pairs


def _micro_batches(examples: Sequence[TrainingExample], layout: BatchLayout) -> list[MicroBatch]:
    if not examples:
        return []
    rows = [row.input_ids for example in examples for row in example.rows]
    needed = ceil(packing.packed_size(rows) / layout.max_tokens / layout.threads)
    count = layout.threads * max(ceil(layout.min_sequences / layout.processes), needed)
    # Rows of one example stay together; they have a common prefix anyway.
    parts = packing.share_out([example.rows[0].input_ids for example in examples], count)
    return [_micro_batch(examples, numbers, layout) for numbers in parts]


def _micro_batch(
    batch: Sequence[TrainingExample], numbers: Sequence[int], layout: BatchLayout
) -> MicroBatch:
    examples = [batch[number] for number in numbers]
    rows = [row for example in examples for row in example.rows]
    packed = packing.pack_rows([row.input_ids for row in rows])
    token_weights, margins, predicting = _learned_positions(rows, packed, layout)
    weights = [array * row.weight for array, row in zip(token_weights, rows, strict=True)]
    labels = [
        token for row in rows for start, end in row.learned for token in row.input_ids[start:end]
    ]
    indices = np.concatenate(predicting)
    query_tokens, query_index = np.unique(indices, return_inverse=True)
    blocks = np.array(packed.blocks)
    return {
        "input_ids": torch.from_numpy(packed.tokens),
        "position_ids": torch.from_numpy(packed.positions),
        "visible": torch.from_numpy(packed.visible),
        "row_indices": torch.from_numpy(np.concatenate(packed.row_indices)),
        "row_sizes": torch.tensor(
            [*zip(map(len, packed.row_indices), map(len, predicting), strict=True)]
        ),
        "blocks": torch.from_numpy(np.hstack([blocks, np.searchsorted(query_tokens, blocks)])),
        "query_tokens": torch.from_numpy(query_tokens),
        "predicting": torch.from_numpy(indices),
        "query_index": torch.from_numpy(query_index),
        "labels": torch.tensor(labels),
        "weights": torch.from_numpy(np.concatenate(weights)).float(),
        "token_weights": torch.from_numpy(np.concatenate(token_weights)).float(),
        "margins": torch.from_numpy(
            np.concatenate(margins if layout.call_margin else [[]])
        ).float(),
        "row": torch.tensor([number for number, array in enumerate(token_weights) for _ in array]),
        "example": torch.tensor([number for number in numbers for _ in batch[number].rows]),
        "row_weights": torch.tensor([row.weight for row in rows]),
        "is_good": torch.tensor([example.is_good for example in examples for _ in example.rows]),
        "loss_scale": torch.tensor(1.0),
    }


def _learned_positions(
    rows: Sequence[Tokens], packed: packing.Packed, layout: BatchLayout
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return, per row, its learned tokens' weights, margins and the indices that predict them."""
    token_weights: list[np.ndarray] = []
    margins: list[np.ndarray] = []
    predicting: list[np.ndarray] = []
    for row, indices in zip(rows, packed.row_indices, strict=True):
        spans = row.learned
        first = np.cumsum([0, *(end - start for start, end in spans[:-1])])
        total = sum(end - start for start, end in spans)
        weights, margin = np.ones(total), np.zeros(total)
        weights[first] *= layout.first_token_weight
        margin[first] = layout.call_margin if row.may_call else 0.0
        token_weights.append(weights)
        margins.append(margin)
        predicting.append(np.concatenate([indices[start - 1 : end - 1] for start, end in spans]))
    return token_weights, margins, predicting
