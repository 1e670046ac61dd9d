"""What the paired scores of one metric say: is the challenger ahead, by how much, within what.

Right and wrong answers to independent requests are held to the exact McNemar test and to Tango's
interval. For scores, for whatever can come in clusters and for every margin there are bets, which
ask nothing of the distribution (``betting``).
"""

from components.gate import betting, intervals, mcnemar
from components.gate.intervals import Counts
from components.gate.pairs import Pairs

USUAL = 0.05
"""The level that a p-value is told exactly at where nothing depends on it."""


def superiority(pairs: Pairs, level: float = USUAL) -> tuple[str, float]:
    """Test whether the challenger is ahead: the test's name and its one-sided p-value."""
    if _is_mcnemars(pairs):
        return "exact McNemar", mcnemar.p_value(pairs.wins, pairs.losses)
    return bets(pairs), betting.above(pairs, 0.0, level)


def inferiority(pairs: Pairs, level: float = USUAL) -> float:
    """Test whether the challenger is behind: the one-sided p-value of the same test."""
    if _is_mcnemars(pairs):
        return mcnemar.p_value(pairs.losses, pairs.wins)
    return betting.below(pairs, 0.0, level)


def interval(pairs: Pairs, tail: float) -> tuple[float, float]:
    """Return the leads that are not refuted, with an error of ``tail`` on either side."""
    if _is_mcnemars(pairs):
        return intervals.interval(Counts(pairs.wins, pairs.losses, pairs.n), tail)
    return betting.interval(pairs, tail)


def bets(pairs: Pairs) -> str:
    """Name the betting test by what it bets on."""
    if pairs.is_clustered:
        return f"bets on clusters of up to {pairs.largest} requests"
    return "bets on requests"


def is_by_bets(pairs: Pairs) -> bool:
    """Tell whether a lead is tested by bets, which can be carried on."""
    return not _is_mcnemars(pairs)


def _is_mcnemars(pairs: Pairs) -> bool:
    return pairs.is_binary and not pairs.is_clustered
