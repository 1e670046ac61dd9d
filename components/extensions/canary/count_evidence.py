"""Evidence about the ratio of two arms' risks, exact however often it is looked at.

If the canary's risk of a bad event is ``r`` times the champion's, a bad event of a conversation
that was drawn with the share ``p`` is the canary's with the probability q(r) = p r / (p r + 1 - p):
the risk itself cancels out, so it may change by the hour and from user to user, and so may ``p``
(Lindon and Malek 2022, "Anytime-valid inference for multinomial count data", NeurIPS,
arXiv:2011.03567, for constant ``p``). Likelihood ratios of q(r g) to q(r) multiply to a test
martingale, so does their weighted mean over several ``g``; for ratios up to ``r`` it is a
supermartingale, since the factors rise with the canary's events. So the chance that it ever
reaches 1 / alpha is at most alpha (Ville 1939).

It needs that an arm's draw is independent of all that is counted before its event. If the two
versions are alike (r = 1), that holds whatever the events and their delays depend on: the arms are
independent draws even if all else is known. For r other than 1, how late an event is counted must
not depend on the arm, which a kind's window ensures (``rollout_tally``).

The evidence depends on the counts by share alone, not on the events' order.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from components.serve.rollout_settings import BadKind


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Counts of both arms under one share."""

    canary: int = 0
    champion: int = 0

    def __add__(self, other: "ArmCounts") -> "ArmCounts":
        return ArmCounts(self.canary + other.canary, self.champion + other.champion)


ShareCounts: TypeAlias = Mapping[float, ArmCounts]
"""Counts by the canary's share."""


@dataclass(frozen=True, slots=True)
class RolloutCounts:
    """What a verdict is made of."""

    conversations: ShareCounts
    """Conversations that began, by the arm that answered first."""

    bad: Mapping[BadKind, ShareCounts]
    """Conversations with an event of the kind; kinds without any are missing."""

    late: Mapping[BadKind, ArmCounts] = field(default_factory=dict["BadKind", ArmCounts])
    """Conversations of which an event of the kind came after its window, and does not count."""

    left_out: int = 0
    """Conversations that count only up to a change of arm, or of share."""


def total(counts: ShareCounts) -> ArmCounts:
    """Return the sum over all shares."""
    return sum(counts.values(), ArmCounts())


RATIOS = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
WEIGHTS = (0.03, 0.04, 0.08, 0.25, 0.4, 0.15, 0.05)
"""How many times as high a risk the evidence bets on, and with how much of its capital. Most is on
2 to 5: a smaller ratio takes hundreds of events in any case, a larger one only a few. Less than
some 1.05 times the risk is never shown."""

UNEVEN = (0.1, 0.5, 1 / 1.2, 1 / 1.1, 1 / 1.05, 1.05, 1.1, 1.2, 2.0, 10.0)
"""By how much the odds of the canary's draws may be wrong, with equal capital on each."""

WIDEST = 1e4  # ratios beyond it, and below its inverse, are not told apart
EXACT = 1e-4  # the relative error of an end of an interval


def log_evidence_above(counts: ShareCounts, ratio: float) -> float:
    """Return the log evidence that the canary's risk is more than ``ratio`` times the champion's.

    Under the shares 0 and 1 there is nothing to compare.
    """
    return _log_evidence(counts, ratio, RATIOS, WEIGHTS)


def log_evidence_below(counts: ShareCounts, ratio: float) -> float:
    """Return the log evidence that its risk is less than ``ratio`` times the champion's."""
    return _log_evidence(counts, ratio, [1 / bet for bet in RATIOS], WEIGHTS)


def log_evidence_uneven(counts: ShareCounts) -> float:
    """Return the log evidence that conversations were not drawn with their shares.

    The same martingale on the conversations that began: the test for a mismatch of the sample
    ratio. It is infinite if an arm answers under a share that leaves it none.
    """
    if any(
        (share <= 0 and each.canary > 0) or (share >= 1 and each.champion > 0)
        for share, each in counts.items()
    ):
        return math.inf
    return _log_evidence(counts, 1.0, UNEVEN, [1 / len(UNEVEN)] * len(UNEVEN))


def ratio_interval(
    counts: ShareCounts, low_level: float, high_level: float
) -> tuple[float, float | None]:
    """Return the ratios of risks that the evidence has not ruled out.

    Each end is wrong at any look with a chance of at most its level. The upper one is ``None`` if
    no ratio is ruled out, as without events.
    """

    def above(log_ratio: float) -> float:
        return log_evidence_above(counts, math.exp(log_ratio)) + math.log(low_level)

    def below(log_ratio: float) -> float:
        return log_evidence_below(counts, math.exp(log_ratio)) + math.log(high_level)

    least, most = -math.log(WIDEST), math.log(WIDEST)
    if above(least) < 0:
        low = 0.0
    else:
        low = math.exp(_crossing(above, least, most) if above(most) < 0 else most)
    if below(most) < 0:
        return low, None
    return low, math.exp(_crossing(below, least, most) if below(least) < 0 else least)


def _crossing(function: Callable[[float], float], least: float, most: float) -> float:
    is_positive_first = function(least) >= 0
    while most - least > EXACT:
        middle = (least + most) / 2
        if (function(middle) >= 0) == is_positive_first:
            least = middle
        else:
            most = middle
    return (least + most) / 2


def _log_evidence(
    counts: ShareCounts, ratio: float, bets: Sequence[float], weights: Sequence[float]
) -> float:
    drawn = [(share, each) for share, each in counts.items() if 0 < share < 1]
    canary = sum(each.canary for _, each in drawn)
    logs = list[float]()
    for bet, weight in zip(bets, weights, strict=True):
        total = math.log(weight) + math.log(bet) * canary
        for share, each in drawn:
            odds, number = share * ratio, each.canary + each.champion
            total += number * math.log((1 - share + odds) / (1 - share + odds * bet))
        logs.append(total)
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(each - largest) for each in logs))
