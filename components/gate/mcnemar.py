"""The exact McNemar test: do two models differ on the requests where only one of them is right?"""

import bisect
import math

from scipy import stats

LONGEST_WAIT = 20_000
"""With more decisive requests than this in need, we say that no number is in sight."""


def exact(wins: int, losses: int) -> float:
    """Give the two-sided p-value of a fair coin splitting ``wins + losses`` at least this unevenly.

    Source: McNemar (1947), in its exact form: a binomial test with p = 1/2 on the discordant pairs.
    """
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue)


def more_needed(wins: int, losses: int, n: int, alpha: float) -> int | None:
    """Estimate how many requests beyond ``n`` would decide, if wins and losses keep their rates.

    ``None`` when no number would: the two are level, or too close for any that we would wait for.
    """
    if wins == losses:
        return None
    decisive = wins + losses
    share = min(wins, losses) / decisive
    candidates = range(decisive, LONGEST_WAIT)
    place = bisect.bisect_left(candidates, True, key=lambda d: _projected(d, share) < alpha)
    if place == len(candidates):
        return None
    return max(0, math.ceil(candidates[place] * n / decisive) - n)


def _projected(decisive: int, share: float) -> float:
    fewer = round(decisive * share)
    return exact(decisive - fewer, fewer)
