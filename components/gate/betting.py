"""Bets against "the mean is no higher": a test of bounded scores that holds for any distribution.

Start with a wealth of 1 and stake a part of it on each cluster in turn: wealth is multiplied by
``1 + bet * x``, where ``x`` is the cluster's lead beyond what the hypothesis allows. If the
hypothesis is true no way of betting wins on average, as long as each bet is settled before the
cluster is seen and a loss can't exceed the wealth, so that the chance of ever holding ``1 / level``
is at most ``level`` (Ville 1939). Nothing else is asked of the scores: not symmetry, not a
variance, not many of them. The hypothesis is about the mean over *requests*: a cluster of ``n``
with the lead ``s`` counts as ``x = s - n * mean``, whatever ``n`` and ``s`` have to do with
each other. It is at least ``-largest * (1 + mean)``, with ``largest`` the most requests that *any*
cluster can have, drawn or not.

How much is staked decides the power alone. We aim for just ``1 / level`` at the last cluster, given
what is missing and how many clusters are left (STaR: Voracek and Orabona 2025, arXiv 2505.22422;
betting: Waudby-Smith and Ramdas 2024, JRSS-B 86:1; Orabona and Jun 2024, IEEE Trans. Inf. Theory
70:436). Where clusters are alike this comes close to the exact test of as many coins; a bet that is
the same all along, or a mixture of such, would need half as many requests again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.gate.pairs import Floats, Pairs

CAUTIOUS = 0.8
"""No more of the wealth is exposed to the largest loss than this, unless time runs out."""

FINEST = 1e-9
"""Smaller p-values are not told apart."""

COARSEST = 0.5
"""A larger p-value is 1."""

COARSER = 1.05
"""The ratio of one level to the next that a p-value can be."""

STEP = 1e-3
"""The leads that an interval's end can be, a tenth of a point apart."""

ROUNDING = 1e-9
"""Wealth that lacks only this share of the target has reached it."""

LEAST = 1e-200


def reached(
    sums: Floats,
    sizes: Floats,
    largest: Floats | float,
    means: Floats | float,
    levels: Floats | float,
) -> NDArray[np.bool_]:
    """Tell at which of the levels the data refute a mean of at most ``means``.

    Args:
        sums: The lead summed over each cluster; further axes are further samples.
        sizes: How many requests each cluster has.
        largest: The most requests that any cluster can have.
        means: The highest mean lead over requests of each hypothesis.
        levels: The chance that a true hypothesis is refuted.
    """
    target = 1 / np.asarray(levels, dtype=np.float64)
    return wealth(sums, sizes, largest, means, levels) >= target * (1 - ROUNDING)


def wealth(
    sums: Floats,
    sizes: Floats,
    largest: Floats | float,
    means: Floats | float,
    levels: Floats | float,
    start: Floats | float = 1.0,
) -> Floats:
    """Return the wealth after the last cluster of bets that begin with ``start``.

    What is there can be staked on further clusters: over all of them, however often one looks, the
    chance of reaching ``1 / level`` is at most ``level``.
    """
    loss = largest * np.maximum(1 + np.asarray(means, dtype=np.float64), ROUNDING)
    target = 1 / np.asarray(levels, dtype=np.float64)
    shape = np.broadcast_shapes(sums.shape[1:], sizes.shape[1:], loss.shape, target.shape)
    held, total = np.broadcast_to(start, shape).astype(np.float64), np.zeros(shape)
    squares = np.broadcast_to(loss**2, shape).copy()  # as if one such loss had been seen
    for i, (lead, size) in enumerate(zip(sums, sizes, strict=True)):
        left = len(sums) - i
        missing = np.log(np.maximum(target / np.maximum(held, LEAST), 1.0))
        wanted = np.sqrt(2 * missing * (i + 1) / (left * squares))
        gain = np.maximum(total / (i + 1), LEAST)
        needed = np.minimum(np.expm1(np.minimum(missing / left, 1.0)) / gain, 1 / loss)
        x = lead - size * means
        held *= 1 + np.minimum(wanted, np.maximum(CAUTIOUS / loss, needed)) * x
        total += x
        squares += x * x
    return held


def above(pairs: Pairs, mean: float, level: float) -> float:
    """Return the one-sided p-value against a mean lead over requests of at most ``mean``.

    It is the smallest of some levels, ``level`` among them, at which and at all coarser ones the
    bets refute it, so that it is at most ``level`` where they do so at ``level``.
    """
    return _p_value(pairs.sums, pairs, mean, level)


def below(pairs: Pairs, mean: float, level: float) -> float:
    """Return the one-sided p-value against a mean lead over requests of at least ``mean``."""
    return _p_value(-pairs.sums, pairs, -mean, level)


def carried(looks: Sequence[Pairs], mean: float, level: float) -> bool:
    """Tell whether bets that began at a look refute the mean by the last of the looks after it.

    Args:
        looks: The clusters of the look that they began at, then those that each later look added.
        mean: The highest mean lead of the hypothesis.
        level: What the first of these looks was given; nothing is spent on it again.
    """
    held: Floats | float = 1.0
    for one in looks:
        held = wealth(one.sums, one.sizes, one.largest, mean, level, held)
    return bool(held >= (1 - ROUNDING) / level)


def interval(pairs: Pairs, tail: float) -> tuple[float, float]:
    """Return the mean leads that the bets do not refute, each side wrong with at most ``tail``."""
    return _low(pairs.sums, pairs, tail), -_low(-pairs.sums, pairs, tail)


def _p_value(sums: Floats, pairs: Pairs, mean: float, level: float) -> float:
    finest = int(np.log(level / FINEST) / np.log(COARSER))
    coarsest = int(np.log(COARSEST / level) / np.log(COARSER))
    levels = level * COARSER ** -np.arange(-coarsest, finest + 1, dtype=np.float64)
    run = _leading(reached(sums, pairs.sizes, pairs.largest, mean, levels))
    return float(levels[run - 1]) if run else 1.0


def _low(sums: Floats, pairs: Pairs, tail: float) -> float:
    """Return the highest lead of a fixed grid below which all are refuted."""
    steps = int(np.floor((1 + sums.sum() / pairs.n) / STEP))
    means = -1 + STEP * np.arange(1, max(1, steps) + 1, dtype=np.float64)
    run = _leading(reached(sums, pairs.sizes, pairs.largest, means, tail))
    return float(means[run - 1]) if run else -1.0


def _leading(refuted: NDArray[np.bool_]) -> int:
    """Count what is refuted before the first that is not."""
    return len(refuted) if refuted.all() else int(np.argmin(refuted))
