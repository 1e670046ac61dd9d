"""Rows of token ids that begin alike: sorted, each shares a prefix with the row before it."""

from collections.abc import Sequence
from itertools import pairwise

Row = Sequence[int]

LEAST_SHARED = 1 / 3
"""Share of a row that two have to have in common to be kept together. Less saves less than it
costs, and all rows share what an application's prompts begin with anyway."""


def common_prefix(row: Row, other: Row) -> int:
    """Count the tokens that both begin with."""
    ends = (place for place, (a, b) in enumerate(zip(row, other, strict=False)) if a != b)
    return next(ends, min(len(row), len(other)))


def ordered(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Sort rows; return their numbers, and how many tokens each shares with the row before it.

    That is 0 where it is less than ``LEAST_SHARED`` of the row.
    """
    order = sorted(range(len(rows)), key=lambda number: tuple(rows[number]))
    shared = [0] * len(order)
    for place, (before, number) in enumerate(pairwise(order), 1):
        common = common_prefix(rows[before], rows[number])
        shared[place] = common if common >= LEAST_SHARED * len(rows[number]) else 0
    return order, shared


def families(rows: Sequence[Row]) -> list[list[int]]:
    """List the numbers of the rows that begin alike, each row in one of the lists."""
    found: list[list[int]] = []
    for number, shared in zip(*ordered(rows), strict=True):
        if shared:
            found[-1].append(number)
        else:
            found.append([number])
    return found
