"""The score interval and test for a paired difference of shares, clusters allowed for.

The statistic is Tango's (1998, Statistics in Medicine 17:891): it keeps its coverage where few
requests decide, or none, in which Wald's interval claims certainty. Where requests hang together
the counts are divided by the design effect (Rao and Scott 1992, Biometrics 48:577), with the
variance between clusters of Obuchowski (1998, Statistics in Medicine 17:1495), and the statistic is
held against Student's t with clusters - 1 degrees of freedom, not against the normal.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from scipy import optimize, stats

from components.gate.pairs import Pairs

EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests only one of two models got right, of how many, as if independent.

    With a design effect they are no whole numbers. ``clusters`` is ``None`` where all requests are
    independent.
    """

    wins: float
    losses: float
    n: float
    clusters: int | None = None

    @property
    def difference(self) -> float:
        """The challenger's lead as a share of the requests."""
        return (self.wins - self.losses) / self.n


def counts(pairs: Pairs) -> Counts:
    """Count right and wrong answers, divided by the design effect where requests hang together."""
    if not pairs.is_clustered:
        return Counts(pairs.wins, pairs.losses, pairs.n)
    effect = design_effect(pairs)
    return Counts(pairs.wins / effect, pairs.losses / effect, pairs.n / effect, len(pairs.sizes))


def design_effect(pairs: Pairs) -> float:
    """Say how many requests stand for one independent request, at least 1.

    The variance of the mean difference as clusters give it, over what it would be without them
    (Rao and Scott 1992, eq. 2). Where all differences are equal a cluster counts as one request.
    """
    n, clusters = pairs.n, len(pairs.sizes)
    if clusters < 2:
        return float(n)
    spread = float(((pairs.differences - pairs.difference) ** 2).sum()) / n
    if spread < EDGE:
        return n / clusters
    between = float(((pairs.sums - pairs.sizes * pairs.difference) ** 2).sum())
    return max(1.0, clusters / (clusters - 1) * between / (n * spread))


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


def above(found: Counts, difference: float) -> float:
    """Give the one-sided p-value against a true lead of at most ``difference``."""
    return _tail(found, statistic(found, difference))


def below(found: Counts, difference: float) -> float:
    """Give the one-sided p-value against a true lead of at least ``difference``."""
    return _tail(found, -statistic(found, difference))


def interval(found: Counts, tail: float) -> tuple[float, float]:
    """Give the leads that are not refuted, with a chance of ``tail`` of an error on either side."""
    bound = _quantile(found, tail)
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


def _tail(found: Counts, value: float) -> float:
    if found.clusters is None:
        return float(stats.norm.sf(value))
    return float(stats.t.sf(value, max(1, found.clusters - 1)))


def _quantile(found: Counts, tail: float) -> float:
    if found.clusters is None:
        return float(stats.norm.isf(tail))
    return float(stats.t.isf(tail, max(1, found.clusters - 1)))
