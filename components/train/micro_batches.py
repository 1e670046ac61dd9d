"""Collate training examples into micro-batches of packed sequences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, TypeAlias

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late

from components.train import packing
from components.train.training_examples import Tokens, TrainingExample

MicroBatch: TypeAlias = Mapping[str, torch.Tensor]
"""Some of a batch's lessons as one sequence; ``collate`` says what is in it."""

Batch: TypeAlias = dict[str, list[MicroBatch]]

LONGEST_SEQUENCE = 2048
"""Tokens in a sequence, beyond which rows are put into several: attention grows with its square."""


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """How lessons are put into sequences, and what their tokens count."""

    lanes: int = 1
    """How many shares are computed at a time."""

    longest: int = LONGEST_SEQUENCE
    """Tokens in a sequence, beyond which lessons are put into several: what is learned stays the
    same, it only takes less memory, and more time."""

    parts: int = 1
    """Sequences of a lane, at least, of all processes together: with twice as many, each takes half
    the memory."""

    first_token_weight: float = 1.0
    """How much more an answer's first token counts than each other one."""

    call_margin: float = 0.0
    """Added to the logit of a call where an answer's first token decides on one."""

    strangers: bool = False
    """Also put each lesson's answer under another lesson's request."""

    process: int = 0
    """Which one this is of the processes that learn from the batch together."""

    processes: int = 1
    """How many learn from it together: each gets about as much of the work, one or the other
    nothing where there are more of them than lessons."""


PLAIN_LAYOUT = BatchLayout()


def collate(lessons: Sequence[dict[str, Any]], shape: BatchLayout = PLAIN_LAYOUT) -> Batch:
    """Make a batch of ``shares``, at least one for each lane where there are lessons enough.

    Args:
        lessons: The batch, each a dictionary of the fields of ``Lesson``.
        shape: How it is made.

    Returns:
        ``shares``, and ``strangers``, which are shares, too, and every process's the same. Of each:
        ``input_ids`` and ``position_ids`` ``[tokens]``, ``seen`` ``[tokens, tokens]``, ``places``
        of each row's tokens, one row's after the other's, and ``sizes`` ``[rows, 2]``, each row's
        count of tokens and of learned ones; ``kept``, the places that predict, ascending;
        ``blocks`` ``[blocks, 4]``, first and one past the last token, outside of which none is
        seen, and the same of ``kept``; of its learned tokens the place ``predicting`` each and
        which of those kept that is, ``asked``, its ``labels``, ``weights``, ``whole`` weights if
        every lesson had the weight 1, the ``row`` it is of, and ``margins`` where there are such,
        all ``[learned tokens]``; of its rows the number of the ``lesson``, ``row_weights`` and
        ``is_good``, ``[rows]``, those of a pair one after the other, the chosen one first.
        ``row_tokens`` counts the rows' tokens, of which those in common are in the sequence once;
        ``counts`` is 1, and 0 where nothing is to be learned from any of it.
    """
    given = [_read_example(one) for one in lessons]
    batch = {"shares": _micro_batches(_own_part(given, shape), shape)}
    if shape.strangers:
        plain = replace(shape, first_token_weight=1.0, call_margin=0.0)
        batch["strangers"] = _micro_batches(_kl_pairs(given), plain)
    return batch


def pad_with_empty(batch: Batch, lessons: Sequence[dict[str, Any]], count: int) -> Batch:
    """Give the batch with so many shares; those it hadn't are its shortest lesson, for nothing.

    Where the base is split over the processes, each has to compute as often as every other one.
    """
    shares = batch["shares"]
    shortest = min(lessons, key=lambda lesson: count_tokens([lesson]))
    (idle,) = _micro_batches([_read_example(shortest)], PLAIN_LAYOUT)
    idle = {**idle, "counts": torch.tensor(0.0)}
    return {**batch, "shares": shares + [idle] * (count - len(shares))}


def count_tokens(lessons: Sequence[dict[str, Any]]) -> int:
    """Count the tokens of lessons' rows; those that rows have in common are in each of them."""
    return sum(len(row["input_ids"]) for lesson in lessons for row in lesson["rows"])


def _own_part(lessons: list[TrainingExample], shape: BatchLayout) -> list[TrainingExample]:
    """Give the lessons that this process learns from: those that begin alike to the same one."""
    if shape.processes == 1:
        return lessons
    parts = packing.share_out([lesson.rows[0].input_ids for lesson in lessons], shape.processes)
    return [lessons[number] for number in [*parts, *[[]] * shape.processes][shape.process]]


def _read_example(fields: dict[str, Any]) -> TrainingExample:
    rows = [Tokens(**row) for row in fields["rows"]]
    return TrainingExample(rows, fields["row_id"], fields["is_good"])


def _kl_pairs(lessons: Sequence[TrainingExample]) -> list[TrainingExample]:
    """Put each answer under the next request that is not its own; the first comes after the last.

    TRL's KTO trainer takes the next lesson, whatever it asks; where people judged several answers
    to one request, that is often the answer's own. Where all lessons ask the same there are none.
    """
    found: list[TrainingExample] = []
    for number, one in enumerate(lessons):
        (said,) = one.rows
        own, answer = _split_row(said)
        for other in (*lessons[number + 1 :], *lessons[:number]):
            asked, _ = _split_row(other.rows[0])
            if asked != own:
                tokens = Tokens([*asked, *answer], len(answer), 1.0)
                found.append(TrainingExample([tokens], other.row_id, one.is_good))
                break
    return found


def _split_row(row: Tokens) -> tuple[list[int], list[int]]:
    """Cut a row into its request and its answer."""
    return row.input_ids[: row.prompt_length], row.input_ids[row.prompt_length :]


def _micro_batches(lessons: Sequence[TrainingExample], shape: BatchLayout) -> list[MicroBatch]:
    """Share lessons out; the rows of each stay together, and begin alike anyway."""
    if not lessons:
        return []
    rows = [row.input_ids for lesson in lessons for row in lesson.rows]
    wanted = ceil(packing.packed_size(rows) / shape.longest / shape.lanes)
    count = shape.lanes * max(ceil(shape.parts / shape.processes), wanted)
    shares = packing.share_out([lesson.rows[0].input_ids for lesson in lessons], count)
    return [_micro_batch(lessons, share, shape) for share in shares]


def _micro_batch(
    given: Sequence[TrainingExample], numbers: Sequence[int], shape: BatchLayout
) -> MicroBatch:
    lessons = [given[number] for number in numbers]
    rows = [row for lesson in lessons for row in lesson.rows]
    packed = packing.pack_rows([row.input_ids for row in rows])
    whole, margins, predicting = _learned_positions(rows, packed, shape)
    weights = [one * row.weight for one, row in zip(whole, rows, strict=True)]
    labels = [
        token for row in rows for start, end in row.learned for token in row.input_ids[start:end]
    ]
    places = np.concatenate(predicting)
    kept, asked = np.unique(places, return_inverse=True)
    blocks = np.array(packed.blocks)
    return {
        "input_ids": torch.from_numpy(packed.tokens),
        "position_ids": torch.from_numpy(packed.positions),
        "seen": torch.from_numpy(packed.seen),
        "places": torch.from_numpy(np.concatenate(packed.places)),
        "sizes": torch.tensor([*map(_row_sizes, packed.places, predicting)]),
        "blocks": torch.from_numpy(np.hstack([blocks, np.searchsorted(kept, blocks)])),
        "kept": torch.from_numpy(kept),
        "predicting": torch.from_numpy(places),
        "asked": torch.from_numpy(asked),
        "labels": torch.tensor(labels),
        "weights": torch.from_numpy(np.concatenate(weights)).float(),
        "whole": torch.from_numpy(np.concatenate(whole)).float(),
        "margins": torch.from_numpy(np.concatenate(margins if shape.call_margin else [[]])).float(),
        "row": torch.tensor([number for number, one in enumerate(whole) for _ in one]),
        "lesson": torch.tensor([number for number in numbers for _ in given[number].rows]),
        "row_weights": torch.tensor([row.weight for row in rows]),
        "is_good": torch.tensor([lesson.is_good for lesson in lessons for _ in lesson.rows]),
        "row_tokens": torch.tensor(sum(len(row.input_ids) for row in rows)),
        "counts": torch.tensor(1.0),
    }


def _row_sizes(*of_row: np.ndarray) -> list[int]:
    return [len(one) for one in of_row]


def _learned_positions(
    rows: Sequence[Tokens], packed: packing.Packed, shape: BatchLayout
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Give of each row's learned tokens their weights, margins and the places before them."""
    whole: list[np.ndarray] = []
    margins: list[np.ndarray] = []
    predicting: list[np.ndarray] = []
    for row, places in zip(rows, packed.places, strict=True):
        spans = row.learned
        first = np.cumsum([0, *(end - start for start, end in spans[:-1])])
        total = sum(end - start for start, end in spans)
        weights, margin = np.ones(total), np.zeros(total)
        weights[first] *= shape.first_token_weight
        margin[first] = shape.call_margin if row.may_call else 0.0
        whole.append(weights)
        margins.append(margin)
        predicting.append(np.concatenate([places[start - 1 : end - 1] for start, end in spans]))
    return whole, margins, predicting
