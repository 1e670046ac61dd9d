"""Sort rows of token ids so that each shares a prefix with the row before it."""

from collections.abc import Sequence
from itertools import pairwise

Row = Sequence[int]

MIN_SHARED = 1 / 3
"""The least share of a row that it must have in common with another to be grouped with it. Less
saves less than it costs, and all rows share the beginning of an application's prompts anyway."""


def common_prefix(row: Row, other: Row) -> int:
    """Return the length of the common prefix, in tokens."""
    ends = (index for index, (a, b) in enumerate(zip(row, other, strict=False)) if a != b)
    return next(ends, min(len(row), len(other)))


def ordered(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Sort rows; return their indices, and how many tokens each shares with the row before it.

    Less than ``MIN_SHARED`` of the row counts as 0.
    """
    order = sorted(range(len(rows)), key=lambda index: tuple(rows[index]))
    shared = [0] * len(order)
    for place, (previous, index) in enumerate(pairwise(order), 1):
        common = common_prefix(rows[previous], rows[index])
        shared[place] = common if common >= MIN_SHARED * len(rows[index]) else 0
    return order, shared


def families(rows: Sequence[Row]) -> list[list[int]]:
    """Group the indices of rows that share a prefix; each row is in one group."""
    groups: list[list[int]] = []
    for index, shared in zip(*ordered(rows), strict=True):
        if shared:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def scored_row(context: Row, continuation: Row, window: int) -> list[int]:
    """Return what a model reads to score a continuation: at most ``window`` tokens, the last ones.

    Raises:
        ValueError: The context or continuation is empty, or the continuation exceeds the window.
    """
    # The model reads all but the last token, which only has to be predicted.
    if not context or not 0 < len(continuation) <= window:
        raise ValueError(
            f"scoring a continuation of {len(continuation)} tokens after {len(context)}: expected "
            f"at least one token before it, and 1 to {window} tokens of its own"
        )
    return [*context, *continuation][-(window + 1) : -1]
