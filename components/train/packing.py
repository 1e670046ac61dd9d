"""Order rows and pack them into sequences, so that shared prefixes are computed once."""

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
    """Rows as one sequence.

    ``tokens`` are ids and ``positions`` those in their rows, both ``[tokens]``; ``seen`` says what
    each token sees, ``[tokens, tokens]``; ``places`` says where each row's tokens stand, row by
    row; ``blocks`` are the places, first and one past the last, between which all that is seen
    lies: rows that begin alike are in one of them.
    """

    tokens: Ints
    positions: Ints
    seen: NDArray[np.bool_]
    places: list[Ints]
    blocks: list[tuple[int, int]]


def share_out(rows: Sequence[Row], count: int) -> list[list[int]]:
    """Share rows out, those that begin alike together, so that each share is about as much work.

    The largest families go first, each to the share that has least (longest processing time first:
    Graham, SIAM J. Appl. Math. 17, 1969), and then trade places. A family that is more than a share
    is cut.

    Args:
        rows: Token ids.
        count: How many shares at most; none is empty.

    Returns:
        The numbers of the rows in each share.
    """
    even = packed_size(rows) / count
    units = [unit for family in families(rows) for unit in _cut_family(family, rows, even)]
    costs = [packed_size([rows[row] for row in unit]) for unit in units]
    shares: list[list[int]] = [[] for _ in range(count)]
    for unit in sorted(range(len(units)), key=lambda one: (-costs[one], units[one])):
        min(shares, key=lambda share: sum(costs[one] for one in share)).append(unit)
    traded = _balance_shares([share for share in shares if share], costs)
    return [sorted(row for unit in share for row in units[unit]) for share in traded]


def _balance_shares(shares: list[list[int]], costs: Sequence[int]) -> list[list[int]]:
    """Let the share with most work give a unit, for one or none, while that leaves less to do."""
    while True:
        work = [sum(costs[unit] for unit in share) for share in shares]
        most = work.index(max(work))
        trades = [
            (max(work[most] - saved, work[other] + saved), other, given, taken)
            for other in range(len(shares))
            if other != most
            for given in shares[most]
            for taken in (*shares[other], None)
            for saved in [costs[given] - (0 if taken is None else costs[taken])]
        ]
        best = min(trades, key=lambda trade: trade[0], default=None)
        if best is None or best[0] >= work[most]:
            return shares
        _, other, given, taken = best
        shares = [[unit for unit in share if unit not in (given, taken)] for share in shares]
        shares[other].append(given)
        if taken is not None:
            shares[most].append(taken)


def _cut_family(family: list[int], rows: Sequence[Row], most: float) -> list[list[int]]:
    """Cut a family in parts that are no more work than ``most``, or are single rows."""
    parts: list[list[int]] = [[]]
    for row in family:
        if parts[-1] and packed_size([rows[one] for one in (*parts[-1], row)]) > most:
            parts.append([])
        parts[-1].append(row)
    return parts


def packed_size(rows: Sequence[Row]) -> int:
    """Count the tokens of the sequence that the rows would make."""
    _, shared = ordered(rows)
    return sum(map(len, rows)) - sum(shared)


def pack_rows(rows: Sequence[Row]) -> Packed:
    """Put rows into one sequence.

    Args:
        rows: Token ids, none of the rows empty.
    """
    order, shared = ordered(rows)
    total = sum(map(len, rows)) - sum(shared)
    tokens, positions, first, last = np.zeros((4, total), np.int64)
    places: list[Ints] = [np.empty(0, np.int64)] * len(rows)
    before, start = places[0], 0
    starts: list[int] = []
    for rank, (row, known) in enumerate(zip(order, shared, strict=True)):
        end = start + len(rows[row]) - known
        if not known:
            starts.append(start)
        before = places[row] = np.concatenate([before[:known], np.arange(start, end)])
        tokens[before], positions[before] = rows[row], np.arange(len(before))
        first[start:end], last[before] = rank, rank
        start = end
    return Packed(
        tokens, positions, _visible_range(first, last), places, _block_ends(starts, total)
    )


def _block_ends(starts: Sequence[int], total: int) -> list[tuple[int, int]]:
    return [*pairwise([*starts, total])]


def _visible_range(first: Ints, last: Ints) -> NDArray[np.bool_]:
    """Let a token see those up to it that belong to all the rows that it belongs to.

    Args:
        first: The first of the sorted rows that each token belongs to.
        last: The last of them.
    """
    holds = (first[None] <= first[:, None]) & (last[None] >= last[:, None])
    return holds & np.tri(len(first), dtype=np.bool_)


FULL_ATTENTION, BOUNDED_ATTENTION = {"full_attention"}, {"sliding_attention", "chunked_attention"}
"""What transformers calls layers that see all that a mask shows, and such as see so many tokens."""


def can_pack_rows(model: "torch.nn.Module", longest: int) -> bool:
    """Tell whether a model can have rows of up to ``longest`` tokens in one sequence.

    It has to know where a token stands from ``position_ids`` alone, as rotary embeddings do (ALiBi
    counts the places in between), and each of its layers has to see all that the mask shows, and
    nothing else: not so convolutions, states that are carried along, or windows shorter than a row.
    """
    config: Any = getattr(getattr(model, "module", model), "config", None)
    is_rotary = getattr(config, "rope_parameters", None) and not getattr(config, "alibi", False)
    if not is_rotary or getattr(model, "_is_stateful", False):
        return False
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    window: int = next(filter(None, windows), 0)
    kinds = set(
        getattr(config, "layer_types", None) or (BOUNDED_ATTENTION if window else FULL_ATTENTION)
    )
    return kinds <= FULL_ATTENTION or (
        kinds <= FULL_ATTENTION | BOUNDED_ATTENTION and longest <= window
    )


PROMPTS = 4
"""Different prompts in a batch: rows that begin alike save work together, but are much alike."""


def order_rows(rows: Sequence[Row], batch_size: int, seed: int, epoch: int = 0) -> list[int]:
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


def order_examples(
    lessons: Sequence[TrainingExample], recipe: Recipe, epoch: int = 0
) -> list[TrainingExample]:
    """Return lessons in the order in which an epoch has them."""
    return [lessons[number] for number in Epochs(lessons, recipe).order(epoch)]


class Epochs:
    """The numbers of lessons in the order of one epoch after the other.

    A data loader's sampler: the trainer sets the epoch before it draws, also where a run goes on in
    the middle of one.
    """

    def __init__(self, lessons: Sequence[TrainingExample], recipe: Recipe) -> None:
        self._ids = [lesson.rows[0].input_ids for lesson in lessons]
        self._recipe, self._epoch = recipe, 0

    def order(self, epoch: int) -> list[int]:
        """Return the numbers in an epoch's order."""
        return order_rows(self._ids, self._recipe.step_size, self._recipe.seed, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch from now on."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Return the numbers in the order of the epoch that was set."""
        return iter(self.order(self._epoch))

    def __len__(self) -> int:
        """Count the lessons."""
        return len(self._ids)
