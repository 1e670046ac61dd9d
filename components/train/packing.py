"""Order rows and pack them into sequences, so that shared prefixes are computed once."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.models.prefix_tree import Row, families, ordered
from components.train.recipe import Recipe
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    import torch


Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows packed into one sequence; those with a common prefix are in one block.

    ``tokens`` are ids, ``positions`` are within the row, both ``[tokens]``; ``visible`` is the
    attention mask ``[tokens, tokens]``. ``row_indices`` are each row's indices in the sequence,
    ``blocks`` the spans (first, one past the last) outside of which their tokens see nothing.
    """

    tokens: Ints
    positions: Ints
    visible: NDArray[np.bool_]
    row_indices: list[Ints]
    blocks: list[tuple[int, int]]


def share_out(rows: Sequence[Row], count: int) -> list[list[int]]:
    """Split rows into at most ``count`` shares of about equal work, families kept together.

    The largest families (rows with a common prefix) go first, each to the share with the least work
    (longest processing time first: Graham, SIAM J. Appl. Math. 17, 1969), then swaps improve the
    balance. A family larger than a share is split. Returns the row numbers of each share; none is
    empty.
    """
    even = packed_size(rows) / count
    units = [unit for family in families(rows) for unit in _cut_family(family, rows, even)]
    costs = [packed_size([rows[row] for row in unit]) for unit in units]
    shares: list[list[int]] = [[] for _ in range(count)]
    for unit in sorted(range(len(units)), key=lambda number: (-costs[number], units[number])):
        min(shares, key=lambda share: sum(costs[other] for other in share)).append(unit)
    balanced = _balance_shares([share for share in shares if share], costs)
    return [sorted(row for unit in share for row in units[unit]) for share in balanced]


def _balance_shares(shares: list[list[int]], costs: Sequence[int]) -> list[list[int]]:
    """Move or swap units out of the largest share while that lowers the maximum."""
    while True:
        work = [sum(costs[unit] for unit in share) for share in shares]
        most = work.index(max(work))
        swaps = [
            (max(work[most] - saved, work[other] + saved), other, outgoing, incoming)
            for other in range(len(shares))
            if other != most
            for outgoing in shares[most]
            for incoming in (*shares[other], None)
            for saved in [costs[outgoing] - (0 if incoming is None else costs[incoming])]
        ]
        best = min(swaps, key=lambda swap: swap[0], default=None)
        if best is None or best[0] >= work[most]:
            return shares
        _, other, outgoing, incoming = best
        shares = [[unit for unit in share if unit not in (outgoing, incoming)] for share in shares]
        shares[other].append(outgoing)
        if incoming is not None:
            shares[most].append(incoming)


def _cut_family(family: list[int], rows: Sequence[Row], max_size: float) -> list[list[int]]:
    """Split a family into parts of at most ``max_size`` tokens, or single rows."""
    parts: list[list[int]] = [[]]
    for row in family:
        if parts[-1] and packed_size([rows[number] for number in (*parts[-1], row)]) > max_size:
            parts.append([])
        parts[-1].append(row)
    return parts


def packed_size(rows: Sequence[Row]) -> int:
    """Return the length of the packed sequence in tokens, without packing it."""
    _, shared = ordered(rows)
    return sum(map(len, rows)) - sum(shared)


def pack_rows(rows: Sequence[Row]) -> Packed:
    """Pack non-empty rows of token ids into one sequence; a common prefix is stored once."""
    order, shared = ordered(rows)
    total = sum(map(len, rows)) - sum(shared)
    tokens, positions, first, last = np.zeros((4, total), np.int64)
    row_indices: list[Ints] = [np.empty(0, np.int64)] * len(rows)
    indices, start = row_indices[0], 0
    starts: list[int] = []
    for rank, (row, known) in enumerate(zip(order, shared, strict=True)):
        end = start + len(rows[row]) - known
        if not known:
            starts.append(start)
        indices = row_indices[row] = np.concatenate([indices[:known], np.arange(start, end)])
        tokens[indices], positions[indices] = rows[row], np.arange(len(indices))
        first[start:end], last[indices] = rank, rank
        start = end
    return Packed(
        tokens, positions, _visible_tokens(first, last), row_indices, [*pairwise([*starts, total])]
    )


def _visible_tokens(first: Ints, last: Ints) -> NDArray[np.bool_]:
    """Mask out later tokens, and tokens not shared by all rows that the query token belongs to.

    ``first`` and ``last`` are the first and the last of the sorted rows that share each token.
    """
    is_shared = (first[None] <= first[:, None]) & (last[None] >= last[:, None])
    return is_shared & np.tri(len(first), dtype=np.bool_)


FULL_ATTENTION, BOUNDED_ATTENTION = {"full_attention"}, {"sliding_attention", "chunked_attention"}
"""Layer types of transformers: those that see all the mask allows, and those with a window."""


def can_pack_rows(model: "torch.nn.Module", longest: int) -> bool:
    """Return whether rows of up to ``longest`` tokens may be packed into one sequence.

    Positions must come from ``position_ids`` alone, as with rotary embeddings (ALiBi uses distances
    in the sequence) and be rotated alike whatever the longest row is, and each layer must see
    exactly what the mask allows: no convolutions, no recurrent state, no window shorter than a row.
    """
    config: Any = getattr(getattr(model, "module", model), "config", None)
    config = config and config.get_text_config()  # that of a model for images has another beside it
    is_rotary = getattr(config, "rope_parameters", None) and not getattr(config, "alibi", False)
    if not is_rotary or getattr(model, "_is_stateful", False):
        return False
    if longest > _rescaled_from(config):
        return False
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    window: int = next(filter(None, windows), 0)
    kinds = set(
        getattr(config, "layer_types", None) or (BOUNDED_ATTENTION if window else FULL_ATTENTION)
    )
    return kinds <= FULL_ATTENTION or (
        kinds <= FULL_ATTENTION | BOUNDED_ATTENTION and longest <= window
    )


RESCALED = ("longrope", "dynamic")
"""Rotary embeddings that turn a whole sequence otherwise if its longest row exceeds a length."""


def _rescaled_from(config: Any) -> float:  # noqa: ANN401 - one of many classes of transformers
    parameters: dict[str, Any] = config.rope_parameters
    by_layer = [each for each in parameters.values() if isinstance(each, dict)] or [parameters]
    default = config.max_position_embeddings
    return min(
        (
            each.get("original_max_position_embeddings") or default
            for each in by_layer
            if each.get("rope_type") in RESCALED
        ),
        default=math.inf,
    )


PROMPTS = 4
"""Minimum distinct prompts in a batch: rows with a common prefix save work, but vary little."""


def order_rows(rows: Sequence[Row], batch_size: int, seed: int, epoch: int = 0) -> list[int]:
    """Return the row numbers shuffled, up to a quarter of a batch with a common prefix adjacent.

    Equal seeds give equal orders, so a resumed run continues in the same one. Each epoch, from 0,
    has its own.
    """
    draw = random.Random(f"{seed}, epoch {epoch}" if epoch else seed)
    group_size = max(1, batch_size // PROMPTS)
    shuffled = [draw.sample(family, len(family)) for family in families(rows)]
    units = [
        family[start : start + group_size]
        for family in shuffled
        for start in range(0, len(family), group_size)
    ]
    draw.shuffle(units)
    return [row for unit in units for row in unit]


def order_examples(
    examples: Sequence[TrainingExample], recipe: Recipe, epoch: int = 0
) -> list[TrainingExample]:
    """Return examples in an epoch's order."""
    return [examples[number] for number in Epochs(examples, recipe).order(epoch)]


class Epochs:
    """A data loader's sampler with a different order in each epoch.

    The trainer calls ``set_epoch`` before it iterates, also when it resumes within an epoch.
    """

    def __init__(self, examples: Sequence[TrainingExample], recipe: Recipe) -> None:
        self._ids = [example.rows[0].input_ids for example in examples]
        self._recipe, self._epoch = recipe, 0

    def order(self, epoch: int) -> list[int]:
        """Return the example numbers in an epoch's order."""
        return order_rows(self._ids, self._recipe.step_size, self._recipe.seed, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Iterate in another epoch's order from now on."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the example numbers in the current epoch's order."""
        return iter(self.order(self._epoch))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._ids)
