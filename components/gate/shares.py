"""The interval of one model's score by itself."""

from scipy import stats

from components.scorecard import Scorecard


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
        test = stats.binomtest(round(sum(values)), len(values))
        ends = test.proportion_ci(method="wilson")
        return float(ends.low), float(ends.high)
    if score.stderr is None:
        return None
    return score.value - 1.96 * score.stderr, score.value + 1.96 * score.stderr
