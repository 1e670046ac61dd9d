"""Paired scores of two models on the same requests, and a test of their mean by betting."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedScores:
    """Two models' scores request by request.

    Attributes:
        ours: The challenger's scores, one a request.
        theirs: The opponent's, on the same requests in the same order.
        clusters: What each request belongs to, as integers; requests of one cluster (such as a
            conversation) are not independent of each other, those of different clusters are. The
            clusters' order must have nothing to do with their sizes or scores (``betting``).
        bound: The most requests that a cluster can have, drawn or not; 0 where only those that were
            drawn are known.
    """

    ours: Floats
    theirs: Floats
    clusters: NDArray[np.int64]
    bound: int = 0

    @property
    def n(self) -> int:
        """How many requests there are."""
        return len(self.ours)

    @cached_property
    def differences(self) -> Floats:
        """By how much the challenger is ahead on each request."""
        return self.ours - self.theirs

    @property
    def difference(self) -> float:
        """By how much the challenger is ahead on average."""
        return float(self.differences.mean())

    @cached_property
    def is_binary(self) -> bool:
        """Whether every request was either right or wrong."""
        return bool(np.isin(self.ours, (0, 1)).all() and np.isin(self.theirs, (0, 1)).all())

    @property
    def wins(self) -> int:
        """How many requests the challenger does better on."""
        return int((self.differences > 0).sum())

    @property
    def losses(self) -> int:
        """How many it does worse on."""
        return int((self.differences < 0).sum())

    @cached_property
    def sizes(self) -> Floats:
        """How many requests each cluster has."""
        return np.bincount(self.of_cluster).astype(np.float64)

    @cached_property
    def sums(self) -> Floats:
        """By how much the challenger is ahead in each cluster, summed over its requests."""
        return np.bincount(self.of_cluster, weights=self.differences).astype(np.float64)

    @cached_property
    def largest(self) -> int:
        """The most requests that a cluster can have."""
        return max(self.bound, int(self.sizes.max()))

    def of(self, rows: Sequence[int]) -> "PairedScores":
        """Return some of the requests; their clusters keep their order and their bound."""
        kept = list(rows)
        return PairedScores(self.ours[kept], self.theirs[kept], self.clusters[kept], self.bound)

    @property
    def is_clustered(self) -> bool:
        """Whether requests can hang together, though it be that none of those drawn do."""
        return self.largest > 1

    @cached_property
    def of_cluster(self) -> NDArray[np.int64]:
        """Which of the clusters each request belongs to, numbered as ``sizes`` and ``sums`` are."""
        return np.unique(self.clusters, return_inverse=True)[1].astype(np.int64)


def independent(ours: Floats, theirs: Floats) -> PairedScores:
    """Pair scores of requests that are all independent of each other."""
    return PairedScores(ours, theirs, np.arange(len(ours), dtype=np.int64))


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


def wealth_reached(
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


def evidence_above(pairs: PairedScores, mean: float, level: float) -> float:
    """Return the one-sided p-value against a mean lead over requests of at most ``mean``.

    It is the smallest of some levels, ``level`` among them, at which and at all coarser ones the
    bets refute it, so that it is at most ``level`` where they do so at ``level``.
    """
    return _p_value(pairs.sums, pairs, mean, level)


def evidence_below(pairs: PairedScores, mean: float, level: float) -> float:
    """Return the one-sided p-value against a mean lead over requests of at least ``mean``."""
    return _p_value(-pairs.sums, pairs, -mean, level)


def carried_evidence(looks: Sequence[PairedScores], mean: float, level: float) -> bool:
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


def betting_interval(pairs: PairedScores, tail: float) -> tuple[float, float]:
    """Return the mean leads that the bets do not refute, each side wrong with at most ``tail``."""
    return _low(pairs.sums, pairs, tail), -_low(-pairs.sums, pairs, tail)


def _p_value(sums: Floats, pairs: PairedScores, mean: float, level: float) -> float:
    finest = int(np.log(level / FINEST) / np.log(COARSER))
    coarsest = int(np.log(COARSEST / level) / np.log(COARSER))
    levels = level * COARSER ** -np.arange(-coarsest, finest + 1, dtype=np.float64)
    run = _leading(wealth_reached(sums, pairs.sizes, pairs.largest, mean, levels))
    return float(levels[run - 1]) if run else 1.0


def _low(sums: Floats, pairs: PairedScores, tail: float) -> float:
    """Return the highest lead of a fixed grid below which all are refuted."""
    steps = int(np.floor((1 + sums.sum() / pairs.n) / STEP))
    means = -1 + STEP * np.arange(1, max(1, steps) + 1, dtype=np.float64)
    run = _leading(wealth_reached(sums, pairs.sizes, pairs.largest, means, tail))
    return float(means[run - 1]) if run else -1.0


def _leading(refuted: NDArray[np.bool_]) -> int:
    """Count what is refuted before the first that is not."""
    return len(refuted) if refuted.all() else int(np.argmin(refuted))
