"""The interval of one model's score, without SciPy, which is slow to import."""

from math import sqrt

from components.scorecard import Scorecard

Z = 1.959963984540054  # the 97.5 % point of the normal distribution.


def share_interval(card: Scorecard, metric: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a score; ``None`` if it is not measured or has no error.

    Wilson's (1927) for binary scores, else the mean plus or minus 1.96 standard errors.
    """
    score = card.scores.get(metric)
    sample_scores = (sample.scores.get(metric) for sample in card.samples)
    values = [value for value in sample_scores if value is not None]
    if not values or score is None or score.value is None:
        return None
    if {*values} <= {0.0, 1.0}:
        return _wilson(round(sum(values)), len(values))
    if score.stderr is None:
        return None
    return score.value - 1.96 * score.stderr, score.value + 1.96 * score.stderr


def _wilson(right: int, n: int) -> tuple[float, float]:
    # as scipy.stats.binomtest(...).proportion_ci(method="wilson")
    share = right / n
    denominator = 2 * (n + Z**2)
    center = (2 * n * share + Z**2) / denominator
    half = Z / denominator * sqrt(4 * n * share * (1 - share) + Z**2)
    return center - half if right else 0.0, center + half if right < n else 1.0
