"""How likely a count is by chance: the tails that tell a burst from a busy day."""

import math

UNLIKELY = 1e-6
"""Counts rarer than this are no chance: one window in a million, and there are thousands."""


def poisson_tail(count: int, expected: float) -> float:
    """Give P(X >= count) of a Poisson count with that mean (exact sum from the count upwards)."""
    if count <= 0:
        return 1.0
    if expected <= 0:
        return 0.0
    if count <= expected:
        return 1.0  # no surprise; the sum upwards would be long
    total, k = 0.0, count
    while (term := _poisson(k, expected)) > total * 1e-12:
        total, k = total + term, k + 1
    return min(1.0, total)


def binomial_tail(count: int, trials: int, rate: float) -> float:
    """Give P(X >= count) of that many trials with that rate of success (exact)."""
    if rate >= 1 or count <= trials * rate:
        return 1.0
    if rate <= 0:
        return 0.0
    terms = (_binomial(k, trials, rate) for k in range(count, trials + 1))
    return min(1.0, math.fsum(terms))


def poisson_limit(expected: float, at_least: int) -> int:
    """Give the largest count that is not unlikely, and never less than ``at_least``."""
    limit = max(at_least, math.ceil(expected))
    while poisson_tail(limit + 1, expected) >= UNLIKELY:
        limit += 1
    return limit


def _poisson(k: int, expected: float) -> float:
    return math.exp(k * math.log(expected) - expected - math.lgamma(k + 1))


def _binomial(k: int, trials: int, rate: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
    return math.exp(ways + k * math.log(rate) + (trials - k) * math.log1p(-rate))
