"""Tests and intervals: McNemar, Holm, alpha spending, score and Fieller intervals."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy

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


DEGENERATE = 1e-9  # a narrower interval comes from equal differences, and would claim certainty


@dataclass(frozen=True, slots=True)
class KeptShare:
    """The ratio of two mean scores over the same ``n`` requests, with its interval and method.

    ``unbounded`` is the reason if there is no interval.
    """

    ratio: float | None
    low: float | None
    high: float | None
    n: int
    unbounded: str | None = None
    method: str = "Fieller"


def kept_share(
    scores: Sequence[float],
    reference: Sequence[float],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> KeptShare:
    """Return mean(scores) / mean(reference) with Fieller's interval for paired means.

    It contains all ratios r for which mean(scores) - r mean(reference) is not significantly
    different from zero (Fieller 1954, "Some problems in interval estimation", J. R. Stat. Soc.
    B 16, 175-185). Variances are clustered (Liang and Zeger 1986, Biometrika 73, 13-22), with
    Student's t for (clusters - 1) degrees of freedom; without ``clusters`` all requests are
    independent.

    If the reference is right on everything, the ratio is a share of right answers: then it is
    Wilson's interval (1927, J. Am. Stat. Assoc. 22, 209-212), which does not claim certainty if
    all are right; each cluster counts as one request.

    Raises:
        ValueError: The two differ in length.
    """
    n = len(scores)
    if len(reference) != n or (clusters is not None and len(clusters) != n):
        raise ValueError(f"comparing {n} scores with {len(reference)}: expected pairs")
    ours, theirs = math.fsum(scores) / max(1, n), math.fsum(reference) / max(1, n)
    if theirs == 0:
        return KeptShare(None, None, None, n, "the reference was right on nothing")
    groups = sorted({*clusters}) if clusters is not None else [*range(n)]
    if len(groups) < 2:
        return KeptShare(ours / theirs, None, None, n, "all requests belong together")
    if {*reference} == {1.0} and {*scores} <= {0.0, 1.0}:
        low, high = _wilson_of_share(ours, len(groups), level)
        return KeptShare(ours, low, high, n, method="Wilson")
    place = {group: index for index, group in enumerate(groups)}
    sums = np.zeros((len(groups), 2))
    for row, group in enumerate(clusters if clusters is not None else groups):
        sums[place[group]] += scores[row] - ours, reference[row] - theirs
    (var_ours, both), (_, var_theirs) = sums.T @ sums / n**2 * len(groups) / (len(groups) - 1)
    t_squared = float(scipy.stats.t.ppf((1 + level) / 2, len(groups) - 1)) ** 2
    square = theirs**2 - t_squared * float(var_theirs)
    if square <= 0:
        return KeptShare(ours / theirs, None, None, n, "the reference is not surely above zero")
    half = ours * theirs - t_squared * float(both)
    spread = math.sqrt(max(0.0, half**2 - square * (ours**2 - t_squared * float(var_ours))))
    if spread < DEGENERATE:
        return KeptShare(ours / theirs, None, None, n, "the two differ on no request")
    low, high = (half - spread) / square, (half + spread) / square
    return KeptShare(ours / theirs, max(0.0, low), high, n)


def _wilson_of_share(share: float, n: int, level: float) -> tuple[float, float]:
    # Wilson 1927, eq. 4
    squared = float(scipy.stats.norm.ppf((1 + level) / 2)) ** 2
    middle, spread = share + squared / (2 * n), squared * share * (1 - share) / n
    half, scale = math.sqrt(spread + (squared / (2 * n)) ** 2), 1 + squared / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


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
