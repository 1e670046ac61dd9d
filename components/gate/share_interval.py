"""The interval of one model's score by itself, without SciPy, which takes long to import."""

from math import sqrt

from components.scorecard import Scorecard

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


def share_interval(card: Scorecard, metric: str) -> tuple[float, float] | None:
    """Give the 95 % interval of a score; ``None`` where there is none.

    Wilson's (1927) for right and wrong, else the mean with 1.96 standard errors to either side.
    """
    score = card.scores.get(metric)
    found = (one.scores.get(metric) for one in card.samples)
    values = [value for value in found if value is not None]
    if not values or score is None or score.value is None:
        return None
    if {*values} <= {0.0, 1.0}:
        return _wilson(round(sum(values)), len(values))
    if score.stderr is None:
        return None
    return score.value - 1.96 * score.stderr, score.value + 1.96 * score.stderr


def _wilson(right: int, n: int) -> tuple[float, float]:
    """Compute the interval as ``scipy.stats.binomtest`` does, which takes a second to import."""
    share = right / n
    denominator = 2 * (n + Z**2)
    center = (2 * n * share + Z**2) / denominator
    half = Z / denominator * sqrt(4 * n * share * (1 - share) + Z**2)
    return center - half if right else 0.0, center + half if right < n else 1.0
