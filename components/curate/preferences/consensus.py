"""Resolve disagreement: by majority, or by Dawid-Skene where there is enough data."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from components.curate.preferences.feedback_signals import Actor

Item = TypeVar("Item", bound=Hashable)

RIGHT, WRONG = 4.0, 1.0
"""Pseudo-counts of each judge: right four times of five until seen otherwise."""

ROUNDS, CLOSE = 200, 1e-6
"""EM ends after so many rounds, or when no probability moves by more than this."""


@dataclass(frozen=True, slots=True)
class JudgeVote(Generic[Item]):
    """What one judge said of one item: class 1 (``True``) or class 0, with a weight up to 1."""

    item: Item
    judge: tuple[str, ...]
    is_one: bool
    weight: float


def posteriors(votes: Iterable[JudgeVote[Item]], *, symmetric: bool) -> dict[Item, float]:
    """Give the probability that each item is of class 1.

    Args:
        votes: In any order; a vote of weight w counts as w votes.
        symmetric: The classes are names only (which of two answers stands first), so that a judge
            has one rate of error and neither class is commoner.
    """
    ordered = sorted(votes, key=lambda vote: (repr(vote.item), vote.judge, vote.is_one))
    by_item: dict[Item, list[JudgeVote[Item]]] = defaultdict(list)
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


def _majority(votes: Sequence[JudgeVote[Item]]) -> float:
    ones = sum(vote.weight for vote in votes if vote.is_one)
    return ones / sum(vote.weight for vote in votes)


def _rates(
    votes: Sequence[JudgeVote[Item]], truth: dict[Item, float], *, symmetric: bool
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
    votes: Sequence[JudgeVote[Item]], rates: dict[tuple[str, ...], _Rates], prior: float
) -> float:
    odds = math.log(prior / (1 - prior))
    for vote in votes:
        rate = rates[vote.judge]
        one, zero = rate.of_one, rate.of_zero
        ratio = one / zero if vote.is_one else (1 - one) / (1 - zero)
        odds += vote.weight * math.log(ratio)
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, odds))))


Method = Literal["agreed", "dawid_skene", "majority", "ties"]

ENOUGH = 20
"""Items that two or more people judged, from which judges can be told apart; else most win."""

DECIDED = 0.2
"""What is nearer to even odds than this (0.6 to 0.4) stays undecided."""


@dataclass(frozen=True, slots=True)
class Vote(Generic[Item]):
    """One person's word on an item: for it (1), against it (-1), or neither (0, a tie)."""

    item: Item
    feedback_id: str
    actor: Actor
    side: Literal[-1, 0, 1]
    weight: float


@dataclass(frozen=True, slots=True)
class Resolution(Generic[Item]):
    """What became of an item's votes.

    ``side`` is 0 where it stays undecided; ``weight`` is at most 1 and at most what its side's
    votes weigh, less where others said otherwise. ``was_contested``: votes stood against each
    other.
    """

    item: Item
    side: Literal[-1, 0, 1]
    weight: float
    confidence: float
    method: Method
    was_contested: bool
    votes: tuple[Vote[Item], ...]

    def ids(self, *sides: int) -> list[str]:
        """Give the feedback of those sides."""
        return sorted({vote.feedback_id for vote in self.votes if vote.side in sides})

    def weight_of(self, side: int) -> float:
        """Give what the votes of a side weigh."""
        return sum(vote.weight for vote in self.votes if vote.side == side)


def resolve(votes: Iterable[Vote[Item]], *, symmetric: bool) -> list[Resolution[Item]]:
    """Settle every item that was voted on, in the order of the items.

    Votes that agree need no model. Where they don't, Dawid-Skene decides if enough items were
    judged by several people, else the heavier side; more ties than votes leave it undecided.
    """
    by_item: dict[Item, list[Vote[Item]]] = defaultdict(list)
    for vote in sorted(votes, key=lambda vote: (repr(vote.item), vote.feedback_id)):
        by_item[vote.item].append(vote)
    model = _model(by_item, symmetric=symmetric)
    return [_settle(item, given, model.get(item)) for item, given in by_item.items()]


def _model(by_item: dict[Item, list[Vote[Item]]], *, symmetric: bool) -> dict[Item, float]:
    """Give the probability of side 1 for each item, empty if there is too little to learn from."""
    shared = [
        given for given in by_item.values() if len({vote.actor for vote in given if vote.side}) > 1
    ]
    if len(shared) < ENOUGH:
        return {}
    return posteriors(
        (
            JudgeVote(vote.item, vote.actor, vote.side > 0, vote.weight)
            for given in shared
            for vote in given
            if vote.side
        ),
        symmetric=symmetric,
    )


def _settle(item: Item, votes: Sequence[Vote[Item]], probability: float | None) -> Resolution[Item]:
    up = sum(vote.weight for vote in votes if vote.side > 0)
    down = sum(vote.weight for vote in votes if vote.side < 0)
    ties = sum(vote.weight for vote in votes if vote.side == 0)
    contested = up > 0 and down > 0
    if ties > up + down:
        return Resolution(item, 0, 0.0, 0.0, "ties", up + down > 0, tuple(votes))
    method: Method = "agreed"
    lead = 1.0 if up > 0 else -1.0
    if contested and probability is not None:
        method, lead = "dawid_skene", 2 * probability - 1
    elif contested:
        method, lead = "majority", (up - down) / (up + down)
    confidence = abs(lead)
    if confidence < DECIDED:
        return Resolution(item, 0, 0.0, confidence, method, contested, tuple(votes))
    side: Literal[-1, 1] = 1 if lead > 0 else -1
    winning = up if side > 0 else down
    weight = min(1.0, winning) * confidence * (up + down) / (up + down + ties)
    return Resolution(item, side, weight, confidence, method, contested or ties > 0, tuple(votes))
