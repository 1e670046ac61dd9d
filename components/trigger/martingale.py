"""Test, after each new observation, whether a series still comes from where it came from.

A conformal test martingale (Vovk, Gammerman and Shafer 2005, *Algorithmic Learning in a Random
World*, ch. 7), the Simple Jumper of Vovk et al. 2021 ("Retrain or not retrain: conformal test
martingales for change-point detection", COPA, algorithm 1). It is capital that bets against
"nothing has changed". If that is true, the chance that the capital ever reaches 1 / alpha is at
most alpha (Ville 1939), so one may look every hour and loses nothing by it.
"""

import bisect
import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

JUMP = 0.01
"""Share of the capital that changes its bet at each step, as in the paper's experiments."""

Direction: TypeAlias = Literal["up", "either"]
BETS: dict[Direction, tuple[float, ...]] = {"up": (-1.0, 0.0), "either": (-1.0, 0.0, 1.0)}
"""Slopes of the bets 1 + e (p - 1/2): small p-values are won on by a negative one."""


def p_values(
    before: Iterable[float], scores: Sequence[float], ties: Sequence[float]
) -> list[float]:
    """Rank each score among all that came before it and itself; uniform while nothing changes.

    Args:
        before: Scores of the time that the series is compared with.
        scores: The series, in order of time. A high score is a strange observation.
        ties: A number in [0, 1) for each, drawn without a look at the scores, that breaks ties.

    Returns:
        (number higher + tie * number equal, itself included) / number of all, for each score.
    """
    seen = sorted(before)
    found: list[float] = []
    for score, tie in zip(scores, ties, strict=True):
        bisect.insort(seen, score)
        low, high = bisect.bisect_left(seen, score), bisect.bisect_right(seen, score)
        found.append((len(seen) - high + tie * (high - low)) / len(seen))
    return found


def capital(p_values: Iterable[float], direction: Direction) -> list[float]:
    """Bet one unit against uniform p-values and give what it has grown to after each.

    Args:
        p_values: Each in [0, 1].
        direction: ``up`` wins where scores rise, ``either`` where they rise or fall.
    """
    bets = BETS[direction]
    held = [1 / len(bets)] * len(bets)
    grown: list[float] = []
    for p in p_values:
        share = JUMP * sum(held) / len(bets)
        held = [
            ((1 - JUMP) * one + share) * (1 + slope * (p - 0.5))
            for one, slope in zip(held, bets, strict=True)
        ]
        grown.append(sum(held))
    return grown


def tie(name: str) -> float:
    """Draw a number in [0, 1) from an observation's id: the same in every look."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48
