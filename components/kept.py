"""Which share of one model's quality another one keeps, with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

DEGENERATE = 1e-9
"""A narrower interval comes from differences that are all the same, and would claim certainty."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The ratio of two mean scores over the same ``n`` requests, with its interval and its method.

    Without an interval, ``unbounded`` says why there is none.
    """

    ratio: float | None
    low: float | None
    high: float | None
    n: int
    unbounded: str | None = None
    method: str = "Fieller"


def kept(
    scores: Sequence[float],
    reference: Sequence[float],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> Kept:
    """Give mean(scores) / mean(reference) with Fieller's interval for paired means.

    It holds all ratios r for which mean(scores) - r mean(reference) is not significantly other than
    zero (Fieller 1954, "Some problems in interval estimation", J. R. Stat. Soc. B 16, 175-185). The
    variances are those of the means of clusters (Liang and Zeger 1986, Biometrika 73, 13-22), with
    Student's t for one less than there are clusters.

    Where the reference is right on everything, the ratio is a share of right answers: then it is
    Wilson's interval (1927, J. Am. Stat. Assoc. 22, 209-212), which does not claim certainty when
    all are right; each cluster counts as one request.

    Args:
        scores: One for each request.
        reference: The other model's, of the same requests in the same order.
        clusters: What each request belongs to, where some are not independent.
        level: How often such an interval holds the true ratio.

    Raises:
        ValueError: The two are not pairs.
    """
    n = len(scores)
    if len(reference) != n or (clusters is not None and len(clusters) != n):
        raise ValueError(f"comparing {n} scores with {len(reference)}: wants pairs")
    ours, theirs = math.fsum(scores) / max(1, n), math.fsum(reference) / max(1, n)
    if theirs == 0:
        return Kept(None, None, None, n, "the reference was right on nothing")
    groups = sorted({*clusters}) if clusters is not None else [*range(n)]
    if len(groups) < 2:
        return Kept(ours / theirs, None, None, n, "all requests belong together")
    if {*reference} == {1.0} and {*scores} <= {0.0, 1.0}:
        low, high = _wilson(ours, len(groups), level)
        return Kept(ours, low, high, n, method="Wilson")
    place = {group: index for index, group in enumerate(groups)}
    sums = np.zeros((len(groups), 2))
    for one, group in enumerate(clusters if clusters is not None else groups):
        sums[place[group]] += scores[one] - ours, reference[one] - theirs
    (var_ours, both), (_, var_theirs) = sums.T @ sums / n**2 * len(groups) / (len(groups) - 1)
    t_squared = float(stats.t.ppf((1 + level) / 2, len(groups) - 1)) ** 2
    square = theirs**2 - t_squared * float(var_theirs)
    if square <= 0:
        return Kept(ours / theirs, None, None, n, "the reference is not surely above zero")
    half = ours * theirs - t_squared * float(both)
    spread = math.sqrt(max(0.0, half**2 - square * (ours**2 - t_squared * float(var_ours))))
    if spread < DEGENERATE:
        return Kept(ours / theirs, None, None, n, "the two differ on no request")
    low, high = (half - spread) / square, (half + spread) / square
    return Kept(ours / theirs, max(0.0, low), high, n)


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Give the interval of a share of ``n`` (Wilson's eq. 4)."""
    squared = float(stats.norm.ppf((1 + level) / 2)) ** 2
    middle, spread = share + squared / (2 * n), squared * share * (1 - share) / n
    half = math.sqrt(spread + (squared / (2 * n)) ** 2)
    return max(0.0, (middle - half) / (1 + squared / n)), min(
        1.0, (middle + half) / (1 + squared / n)
    )
