"""The score interval for a paired difference of shares, on independent requests.

Tango's (1998, Statistics in Medicine 17:891): it keeps its coverage where few requests decide, or
none, in which Wald's interval claims certainty.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from scipy import optimize, stats

EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests only one of two models got right, of how many."""

    wins: int
    losses: int
    n: int

    @property
    def difference(self) -> float:
        """The challenger's lead as a share of the requests."""
        return (self.wins - self.losses) / self.n


def statistic(found: Counts, difference: float) -> float:
    """Give Tango's score statistic of the hypothesis that the true lead is ``difference``.

    Positive where more was found. Source: Tango (1998), eq. 7.
    """
    excess = found.wins - found.losses - found.n * difference
    spread = variance(found, difference)
    if spread <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(found.n * spread)


def variance(found: Counts, difference: float) -> float:
    """Estimate the variance of one request's lead, given that the true lead is ``difference``.

    From the constrained maximum likelihood estimate of the share of losses (Tango 1998, eq. 8).
    """
    n, wins, losses = found.n, found.wins, found.losses
    b = (2 * n - wins + losses) * difference - wins - losses
    c = -losses * difference * (1 - difference)
    lost = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    return max(0.0, 2 * lost + difference * (1 - difference))


def interval(found: Counts, tail: float) -> tuple[float, float]:
    """Give the leads that are not refuted, with a chance of ``tail`` of an error on either side."""
    bound = float(stats.norm.isf(tail))
    lead = min(max(found.difference, EDGE - 1), 1 - EDGE)
    low, high = EDGE - 1, 1 - EDGE
    return (
        _crossing(lambda tried: statistic(found, tried) - bound, low, lead, otherwise=-1.0),
        _crossing(lambda tried: statistic(found, tried) + bound, lead, high, otherwise=1.0),
    )


def _crossing(
    function: Callable[[float], float], low: float, high: float, *, otherwise: float
) -> float:
    """Find where a falling function is 0, if it is anywhere."""
    if function(low) <= 0 or function(high) >= 0:
        return otherwise
    return cast("float", optimize.brentq(function, low, high, xtol=1e-10))
