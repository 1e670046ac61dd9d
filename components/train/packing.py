"""Put rows into one sequence, so that what several of them begin with is computed once.

The rows are the branches of a tree: where two begin alike (the same system prompt, the same tools)
they have that part in common, if it is worth it. A token stands at the position that it has in its
row, and sees the tokens before it in its row and no other, so it becomes what it would in a row of
its own. Nothing is padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.models.prefix_tree import Row, families, ordered

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
    even = size(rows) / count
    units = [unit for family in families(rows) for unit in _cut(family, rows, even)]
    costs = [size([rows[row] for row in unit]) for unit in units]
    shares: list[list[int]] = [[] for _ in range(count)]
    for unit in sorted(range(len(units)), key=lambda one: (-costs[one], units[one])):
        min(shares, key=lambda share: sum(costs[one] for one in share)).append(unit)
    traded = _traded([share for share in shares if share], costs)
    return [sorted(row for unit in share for row in units[unit]) for share in traded]


def _traded(shares: list[list[int]], costs: Sequence[int]) -> list[list[int]]:
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


def _cut(family: list[int], rows: Sequence[Row], most: float) -> list[list[int]]:
    """Cut a family in parts that are no more work than ``most``, or are single rows."""
    parts: list[list[int]] = [[]]
    for row in family:
        if parts[-1] and size([rows[one] for one in (*parts[-1], row)]) > most:
            parts.append([])
        parts[-1].append(row)
    return parts


def size(rows: Sequence[Row]) -> int:
    """Count the tokens of the sequence that the rows would make."""
    _, shared = ordered(rows)
    return sum(map(len, rows)) - sum(shared)


def pack(rows: Sequence[Row]) -> Packed:
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
    return Packed(tokens, positions, _seen(first, last), places, _blocks(starts, total))


def _blocks(starts: Sequence[int], total: int) -> list[tuple[int, int]]:
    return [*pairwise([*starts, total])]


def _seen(first: Ints, last: Ints) -> NDArray[np.bool_]:
    """Let a token see those up to it that belong to all the rows that it belongs to.

    Args:
        first: The first of the sorted rows that each token belongs to.
        last: The last of them.
    """
    holds = (first[None] <= first[:, None]) & (last[None] >= last[:, None])
    return holds & np.tri(len(first), dtype=np.bool_)
