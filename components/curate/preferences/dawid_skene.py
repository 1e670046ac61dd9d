"""Weigh judges by how often they agree with the truth that all of them together point to.

Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm",
Applied Statistics 28 (1979), for two classes: the E-step is their (2.5), the M-step (2.3) and (2.4)
with pseudo-counts, since most judges give few judgements. EM starts from the majority and takes
everything in sorted order, so that equal votes give equal numbers.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

RIGHT, WRONG = 4.0, 1.0
"""Pseudo-counts of each judge: right four times of five until seen otherwise."""

ROUNDS, CLOSE = 200, 1e-6
"""EM ends after so many rounds, or when no probability moves by more than this."""


@dataclass(frozen=True, slots=True)
class Vote(Generic[Item]):
    """What one judge said of one item: class 1 (``True``) or class 0, with a weight up to 1."""

    item: Item
    judge: tuple[str, ...]
    is_one: bool
    weight: float


def posteriors(votes: Iterable[Vote[Item]], *, symmetric: bool) -> dict[Item, float]:
    """Give the probability that each item is of class 1.

    Args:
        votes: In any order; a vote of weight w counts as w votes.
        symmetric: The classes are names only (which of two answers stands first), so that a judge
            has one rate of error and neither class is commoner.
    """
    ordered = sorted(votes, key=lambda vote: (repr(vote.item), vote.judge, vote.is_one))
    by_item: dict[Item, list[Vote[Item]]] = defaultdict(list)
    for vote in ordered:
        by_item[vote.item].append(vote)
    found = {item: _majority(given) for item, given in by_item.items()}
    for _ in range(ROUNDS):
        rates = _rates(ordered, found, symmetric=symmetric)
        prior = 0.5 if symmetric else (1 + sum(found.values())) / (2 + len(found))
        before = found
        found = {item: _truth(given, rates, prior) for item, given in by_item.items()}
        if all(abs(found[item] - before[item]) < CLOSE for item in found):
            break
    return found


@dataclass(frozen=True, slots=True)
class _Rates:
    """How likely a judge says 1 of an item of class 1, and of one of class 0."""

    of_one: float
    of_zero: float


def _majority(votes: Sequence[Vote[Item]]) -> float:
    ones = sum(vote.weight for vote in votes if vote.is_one)
    return ones / sum(vote.weight for vote in votes)


def _rates(
    votes: Sequence[Vote[Item]], truth: dict[Item, float], *, symmetric: bool
) -> dict[tuple[str, ...], _Rates]:
    """Count each judge's right and wrong votes, each item being of both classes in part."""
    said: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [RIGHT, WRONG, WRONG, RIGHT])
    for vote in votes:
        one = truth[vote.item]
        counts = said[vote.judge]
        counts[0 if vote.is_one else 1] += vote.weight * one
        counts[2 if vote.is_one else 3] += vote.weight * (1 - one)
    if symmetric:
        return {judge: _one_coin(counts) for judge, counts in said.items()}
    return {
        judge: _Rates(counts[0] / (counts[0] + counts[1]), counts[2] / (counts[2] + counts[3]))
        for judge, counts in said.items()
    }


def _one_coin(counts: Sequence[float]) -> _Rates:
    right = (counts[0] + counts[3]) / sum(counts)
    return _Rates(right, 1 - right)


def _truth(
    votes: Sequence[Vote[Item]], rates: dict[tuple[str, ...], _Rates], prior: float
) -> float:
    odds = math.log(prior / (1 - prior))
    for vote in votes:
        rate = rates[vote.judge]
        one, zero = rate.of_one, rate.of_zero
        ratio = one / zero if vote.is_one else (1 - one) / (1 - zero)
        odds += vote.weight * math.log(ratio)
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, odds))))
