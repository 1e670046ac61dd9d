"""The exact McNemar test: is the challenger right on more of the requests where only one is?"""

from scipy import stats


def p_value(wins: int, losses: int) -> float:
    """Give the chance that a fair coin gives at least ``wins`` of ``wins + losses``.

    One-sided; twice this is the two-sided p-value. Source: McNemar (1947, Psychometrika 12:153) in
    its exact form: a binomial test with p = 1/2 on the requests where only one of two was right.
    """
    if wins + losses == 0:
        return 1.0
    return float(stats.binom.sf(wins - 1, wins + losses, 0.5))
