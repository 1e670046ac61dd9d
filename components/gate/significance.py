"""Tests, their power, and intervals: McNemar, Holm, alpha spending, score intervals.

For McNemar's test the power is exact, summed over the number of discordant requests. For bets it is
a normal approximation: they refute if the lead's sum reaches ``_distance`` standard deviations.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import scipy  # its parts are loaded at their first use: half a second

from components.gate import paired_scores
from components.gate.paired_scores import PairedScores


def mcnemar(wins: int, losses: int) -> float:
    """Return the one-sided p-value of McNemar's exact test; doubled it is the two-sided one.

    A binomial test with p = 1/2 on the requests where only one of two was right (McNemar 1947,
    Psychometrika 12:153).
    """
    if wins + losses == 0:
        return 1.0
    return float(scipy.stats.binom.sf(wins - 1, wins + losses, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values, in the order of the input.

    They control the family-wise error rate under any dependence (Holm 1979, Scand. J. Statist.
    6:65; adjusted as in Wright 1992, Biometrics 48:1005).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


NO_ALPHA = 1e-12  # less is a rounding error


def allowance(alpha: float, look: int, looks: int | None = None) -> float:
    """Return the alpha of look number ``look``, from 1.

    Without a plan look k has alpha / (k (k + 1)); over all looks these sum to alpha, which
    bounds the chance of any false promotion whatever the dependence of the looks (Boole's
    inequality). With ``looks`` planned, each has an equal share, and further ones 0. Sharper
    boundaries for repeated looks at *one* comparison (Pocock; O'Brien and Fleming; Lan and
    DeMets 1983) do not apply to different challengers on the same requests.

    Raises:
        ValueError: ``look`` is below 1.
    """
    if look < 1:
        raise ValueError(f"expected a look from 1, found {look}")
    if looks is None:
        return alpha / (look * (look + 1))
    return alpha / looks if look <= looks else 0.0


def alpha_left(alpha: float, spent: Iterable[float]) -> float:
    """Return what looks left of ``alpha``, at least 0."""
    rest = alpha - math.fsum(spent)
    return rest if rest > NO_ALPHA else 0.0


def alpha_share(left: float, look: int, looks: int | None = None) -> float:
    """Return the alpha of look number ``look`` from what earlier looks left.

    It equals ``allowance`` if all looks before it were under the same policy: then alpha / k is
    left for look k, which takes 1 / (k + 1) of it, or its share if ``looks`` are planned. So
    the sum still holds if alpha or the planned looks change in between.
    """
    if looks is None:
        return left / (look + 1)
    return left / (looks - look + 1) if look <= looks else 0.0


EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class WinLossCounts:
    """Counts of requests that only one of two models got right, of ``n`` requests."""

    wins: int
    losses: int
    n: int

    @property
    def difference(self) -> float:
        """The challenger's lead as a share of the requests."""
        return (self.wins - self.losses) / self.n


def score_statistic(counts: WinLossCounts, difference: float) -> float:
    """Return Tango's score statistic of the hypothesis that the true lead is ``difference``.

    Positive if the observed lead is larger. Source: Tango (1998), eq. 7.
    """
    excess = counts.wins - counts.losses - counts.n * difference
    spread = score_variance(counts, difference)
    if spread <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(counts.n * spread)


def score_variance(counts: WinLossCounts, difference: float) -> float:
    """Return the variance of one request's lead if the true lead is ``difference``.

    From the constrained maximum likelihood estimate of the share of losses (Tango 1998, eq. 8).
    """
    n, wins, losses = counts.n, counts.wins, counts.losses
    b = (2 * n - wins + losses) * difference - wins - losses
    c = -losses * difference * (1 - difference)
    lost = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    return max(0.0, 2 * lost + difference * (1 - difference))


def score_interval(counts: WinLossCounts, tail: float) -> tuple[float, float]:
    """Return Tango's score interval of the lead, with an error of ``tail`` on either side.

    Unlike Wald's it keeps its coverage if few requests or none are discordant. Source: Tango (1998,
    Statistics in Medicine 17:891).
    """
    bound = float(scipy.stats.norm.isf(tail))
    lead = min(max(counts.difference, EDGE - 1), 1 - EDGE)
    low, high = EDGE - 1, 1 - EDGE
    return (
        _crossing(lambda tried: score_statistic(counts, tried) - bound, low, lead, otherwise=-1.0),
        _crossing(lambda tried: score_statistic(counts, tried) + bound, lead, high, otherwise=1.0),
    )


def _crossing(
    function: Callable[[float], float], low: float, high: float, *, otherwise: float
) -> float:
    if function(low) <= 0 or function(high) >= 0:
        return otherwise
    return cast("float", scipy.optimize.brentq(function, low, high, xtol=1e-10))


USUAL = 0.05  # the default level at which p-values of bets are exact


def superiority(pairs: PairedScores, level: float = USUAL) -> tuple[str, float]:
    """Return the test's name and its one-sided p-value for the challenger being ahead."""
    if _is_mcnemars(pairs):
        return "exact McNemar", mcnemar(pairs.wins, pairs.losses)
    return bets(pairs), paired_scores.evidence_above(pairs, 0.0, level)


def inferiority(pairs: PairedScores, level: float = USUAL) -> float:
    """Return the one-sided p-value of the same test for the challenger being behind."""
    if _is_mcnemars(pairs):
        return mcnemar(pairs.losses, pairs.wins)
    return paired_scores.evidence_below(pairs, 0.0, level)


def lead_interval(pairs: PairedScores, tail: float) -> tuple[float, float]:
    """Return the interval of the lead, with an error of ``tail`` on either side."""
    if _is_mcnemars(pairs):
        return score_interval(WinLossCounts(pairs.wins, pairs.losses, pairs.n), tail)
    return paired_scores.betting_interval(pairs, tail)


def bets(pairs: PairedScores) -> str:
    """Return the betting test's name."""
    if pairs.is_clustered:
        weight = f", each counting as at most {pairs.cap}" if pairs.cap < pairs.most else ""
        return f"bets on clusters of up to {pairs.most} requests{weight}"
    return "bets on requests"


def is_by_bets(pairs: PairedScores) -> bool:
    """Return whether a lead is tested by bets, which later looks can continue."""
    return not _is_mcnemars(pairs)


def _is_mcnemars(pairs: PairedScores) -> bool:
    return pairs.is_binary and not pairs.is_clustered


CHANCE = 0.8  # the power that ``detectable`` and ``needed`` refer to

LONGEST_WAIT = 100_000  # if more requests than this are needed, no number is returned

WIDE = 9.0  # ignore discordant counts more than this many standard deviations from the mean

LEARNING = 1.06
"""The factor by which a lead must exceed the normal quantile if bets are not limited, since the
best bet is learned on the way. This and the next are from 3,000 simulated holdouts each, of normal
leads, at levels from 0.0005 to 0.025."""

LIMITED = ((0.25, 2.27), (0.5, 0.75), (0.75, 0.31), (1.0, 0.14), (1.5, 0.03), (2.5, 0.0))
"""What a bet's limit adds to the distance, as a multiple of sqrt(log(1 / level)), by the ratio of
the limit to the best unlimited bet."""

STARVED = 1.12
"""With lower limits the distance is this multiple of that at which constant bets of the limit
refute."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The models' long-run rates, estimated from a holdout.

    ``difference`` is the challenger's mean lead, ``differing`` the mean square of the lead on a
    request: for binary scores the share of requests on which only one of the two is right.
    ``effect`` is the design effect: how many requests are worth one independent request.
    ``size`` is a cluster's mean weight, ``clumping`` the mean weight of a request's cluster,
    ``largest`` the most that a cluster can weigh, ``weight`` a request's mean weight.
    """

    difference: float
    differing: float
    is_binary: bool
    effect: float = 1.0
    size: float = 1.0
    clumping: float = 1.0
    largest: int = 1
    weight: float = 1.0
    is_clustered: bool = False


def rates(pairs: PairedScores) -> Rates:
    """Estimate the rates from a holdout; the mean square is at least that of half a request."""
    weight = float(pairs.sizes.sum())
    return Rates(
        pairs.difference,
        max(float((pairs.weights * pairs.differences**2).sum()), 0.5) / weight,
        pairs.is_binary,
        effect=design_effect(pairs),
        size=float(pairs.sizes.mean()),
        clumping=float((pairs.sizes**2).sum()) / weight,
        largest=pairs.largest,
        weight=weight / pairs.n,
        is_clustered=pairs.is_clustered,
    )


def design_effect(pairs: PairedScores) -> float:
    """Return the design effect: how many requests are worth one independent request.

    The clustered variance of the mean difference (Obuchowski 1998, Statistics in Medicine 17:1495)
    over the unclustered one (Rao and Scott 1992, Biometrics 48:577, eq. 2). If all differences are
    equal a cluster counts as one request. Of a cluster with a capped weight each request weighs
    less, so that independent ones may be worth more than their weight.
    """
    weight, clusters = float(pairs.sizes.sum()), len(pairs.sizes)
    if not pairs.is_clustered or clusters == pairs.n:
        return 1.0
    if clusters < 2:
        return weight
    alone = pairs.weights * (pairs.differences - pairs.difference) ** 2
    spread = float(alone.sum()) / weight
    if spread < EDGE:
        return weight / clusters
    between = float(((pairs.sums - pairs.sizes * pairs.difference) ** 2).sum())
    independent = float((pairs.sizes**2 / pairs.counts).sum()) / weight
    return max(independent, clusters / (clusters - 1) * between / (weight * spread))


def fewest(lead: float, alpha: float) -> int:
    """Return the fewest clusters with which distribution-free bets can show a lead."""
    return math.ceil(math.log(1 / alpha) / lead)


def fewest_equal(margin: float, alpha: float) -> int:
    """Return the fewest independent requests that show a margin if all scores are equal."""
    return math.ceil(math.log(1 / alpha) / -math.log1p(-margin)) if margin < 1 else 1


def power(at: Rates, n: int, alpha: float, margin: float | None = None) -> float:
    """Return the power of ``n`` requests at level ``alpha``.

    Without a margin, the chance of showing that the challenger is ahead; with one, that its lead is
    above ``-margin``.
    """
    total = n * at.weight
    if alpha <= 0 or total < at.size:
        return 0.0
    if margin is None and at.is_binary and not at.is_clustered:
        return mcnemar_power(n, at.differing, at.difference, alpha)
    gap = at.difference + (margin or 0.0)
    variance = total * at.effect * max(at.differing - at.difference**2, 0.0)
    squares = variance + total * gap**2 * at.clumping  # second moment around no lead
    if squares == 0:  # every request loses just the margin
        return 0.0
    scatter = variance + total * gap**2 * max(at.clumping - at.size, 0.0)
    loss = at.largest * max(1 - (margin or 0.0), EDGE)
    spare = total * gap - _distance(loss / math.sqrt(squares), alpha) * math.sqrt(squares)
    return (
        float(scipy.stats.norm.cdf(spare / math.sqrt(scatter))) if scatter > 0 else float(spare > 0)
    )


def mcnemar_power(n: int, differing: float, difference: float, alpha: float) -> float:
    """Return the power of the exact one-sided McNemar test on ``n`` independent requests.

    The sum over the number of discordant requests, which is binomial, of the chance that the wins
    among them reach their critical number (Connor 1987, Biometrics 43:207, without its normal
    approximation).
    """
    differing = max(differing, abs(difference))
    if differing == 0:
        return 0.0
    mean, spread = n * differing, math.sqrt(n * differing * (1 - differing)) + 1
    low, high = max(0, int(mean - WIDE * spread)), min(n, int(mean + WIDE * spread))
    deciding = np.arange(low, high + 1)
    critical = scipy.stats.binom.isf(alpha, deciding, 0.5) + 1  # the fewest wins that reach alpha
    wins = scipy.stats.binom.sf(critical - 1, deciding, (1 + difference / differing) / 2)
    return float((scipy.stats.binom.pmf(deciding, n, differing) * wins).sum())


def detectable(at: Rates, n: int, alpha: float, margin: float | None = None) -> float | None:
    """Return the smallest true lead that ``n`` requests show with a chance of ``CHANCE``.

    With a margin it may be negative: a loss that is still shown to be within the margin. ``None``
    if even a lead of 1 would not be shown.
    """

    def short(lead: float) -> float:
        square = max(at.differing, abs(lead) if at.is_binary else lead**2)
        assumed = replace(at, difference=lead, differing=square)
        return power(assumed, n, alpha, margin) - CHANCE

    if short(1.0) < 0:
        return None
    return cast("float", scipy.optimize.brentq(short, -(margin or 0.0), 1.0, xtol=1e-4))


def needed(at: Rates, n: int, alpha: float, margin: float | None = None) -> int | None:
    """Return how many requests beyond ``n`` would decide with a chance of ``CHANCE``.

    It assumes that both models' rates hold. ``None`` if the lead is not above ``-margin``, or if
    more than ``LONGEST_WAIT`` are needed.
    """
    if at.difference <= -(margin or 0.0) or alpha <= 0:
        return None

    def enough(total: int) -> bool:
        return power(at, total, alpha, margin) >= CHANCE

    most = n
    while not enough(most):
        most *= 2
        if most > LONGEST_WAIT:
            return None
    total = bisect.bisect_left(range(most), True, lo=min(n, most // 2), key=enough)
    return max(1, total - n)


def _distance(loss: float, alpha: float) -> float:
    # in standard deviations of the lead's sum, as is ``loss``, the largest loss of a cluster
    root = math.sqrt(math.log(1 / alpha))
    limit = 1 / (math.sqrt(2) * root * loss)  # over the best unlimited bet
    if limit < LIMITED[0][0]:
        return STARVED * root / math.sqrt(2) * (1 / limit + limit)
    ratios, added = zip(*LIMITED, strict=True)
    return LEARNING * float(scipy.stats.norm.isf(alpha)) + root * float(
        np.interp(limit, ratios, added)
    )
