"""What a holdout of this size can see, and how large one would have to be to decide.

Superiority of independent right and wrong answers is the exact McNemar test's own power, summed
over how many requests decide. Everything else is a normal approximation with the variance of the
hypothesis in the bound and that of the truth in the spread (Nam 1997, Biometrics 53:1422).
"""

import bisect
import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from scipy import optimize, stats

from components.gate import intervals
from components.gate.intervals import Counts
from components.gate.pairs import Pairs

CHANCE = 0.8
"""The chance of passing that ``detectable`` and ``needed`` are about."""

LONGEST_WAIT = 100_000
"""With more requests than this in need, we say that no number is in sight."""

WIDE = 9.0
"""Numbers of deciding requests so many standard deviations from their mean don't occur."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What the models do in the long run, as this holdout suggests it.

    Attributes:
        difference: The challenger's mean lead.
        differing: The mean square of the lead on a request; of right and wrong answers it is the
            share on which only one of the two is right.
        is_binary: Whether answers are right or wrong.
        effect: How many requests stand for one independent one.
        clumping: The mean size of a request's cluster; ``None`` without clusters.
    """

    difference: float
    differing: float
    is_binary: bool
    effect: float = 1.0
    clumping: float | None = None


def rates(pairs: Pairs) -> Rates:
    """Read the rates off a holdout; the mean square is at least that of half a request."""
    square = max(float((pairs.differences**2).mean()), 0.5 / pairs.n)
    found = Rates(pairs.difference, square, pairs.is_binary)
    if not pairs.is_clustered:
        return found
    clumping = float((pairs.sizes**2).sum()) / pairs.n
    return replace(found, effect=intervals.design_effect(pairs), clumping=clumping)


def chance(at: Rates, n: int, alpha: float, margin: float = 0.0) -> float:
    """Give the chance that ``n`` requests show a lead above ``-margin`` at level ``alpha``."""
    independent = n / at.effect
    if alpha <= 0 or independent < 1:
        return 0.0
    if at.is_binary and margin == 0 and at.clumping is None:
        return exact(int(independent), at.differing, at.difference, alpha)
    variance = max(at.differing - at.difference**2, 0.0)
    bound = _bound(at, variance, margin)
    gap = (at.difference + margin) * math.sqrt(independent)
    spare = gap - float(stats.norm.isf(alpha)) * math.sqrt(bound)
    return float(stats.norm.cdf(spare / math.sqrt(variance))) if variance > 0 else float(spare > 0)


def exact(n: int, differing: float, difference: float, alpha: float) -> float:
    """Give the power of the exact one-sided McNemar test on ``n`` independent requests.

    The sum over the number of deciding requests, which is binomial, of the chance that the wins
    among them reach their critical number (Connor 1987, Biometrics 43:207, without its normal).
    """
    differing = max(differing, abs(difference))
    if differing == 0:
        return 0.0
    mean, spread = n * differing, math.sqrt(n * differing * (1 - differing)) + 1
    low, high = max(0, int(mean - WIDE * spread)), min(n, int(mean + WIDE * spread))
    deciding = np.arange(low, high + 1)
    critical = stats.binom.isf(alpha, deciding, 0.5) + 1  # the fewest wins that reach alpha
    wins = stats.binom.sf(critical - 1, deciding, (1 + difference / differing) / 2)
    return float((stats.binom.pmf(deciding, n, differing) * wins).sum())


def detectable(at: Rates, n: int, alpha: float, margin: float = 0.0) -> float | None:
    """Give the smallest true lead that ``n`` requests show with a chance of ``CHANCE``.

    With a margin it may be negative: a loss that is still shown to be within the margin. ``None``
    when even a lead of 1 would not be shown.
    """

    def short(lead: float) -> float:
        square = max(at.differing, abs(lead) if at.is_binary else lead**2)
        assumed = replace(at, difference=lead, differing=square)
        return chance(assumed, n, alpha, margin) - CHANCE

    if short(1.0) < 0:
        return None
    return cast("float", optimize.brentq(short, -margin, 1.0, xtol=1e-4))


def needed(at: Rates, n: int, alpha: float, margin: float = 0.0) -> int | None:
    """Say how many requests beyond ``n`` would decide with a chance of ``CHANCE``.

    If both models keep their rates. ``None`` when no number is in sight: the lead is not above
    ``-margin``, or so little that none we would wait for is enough.
    """
    if at.difference <= -margin or alpha <= 0:
        return None

    def enough(total: int) -> bool:
        return chance(at, total, alpha, margin) >= CHANCE

    most = n
    while not enough(most):
        most *= 2
        if most > LONGEST_WAIT:
            return None
    total = bisect.bisect_left(range(most), True, lo=min(n, most // 2), key=enough)
    return max(1, total - n)


def _bound(at: Rates, variance: float, margin: float) -> float:
    """Give the variance that the test itself reckons with, of which its bound is a multiple.

    Sign flips take the clusters' leads as they are, their mean included.
    """
    if margin == 0:
        return variance + at.difference**2 * (at.clumping or 1.0) / at.effect
    if not at.is_binary:
        return variance
    wins, losses = (at.differing + at.difference) / 2, (at.differing - at.difference) / 2
    found = Counts(max(wins, 0.0), max(losses, 0.0), 1.0)
    return intervals.variance(found, -margin)
