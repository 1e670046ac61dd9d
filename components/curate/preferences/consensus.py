"""Resolve disagreement by majority, or by Dawid-Skene if there is enough data."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from components.curate.preferences.feedback_signals import Actor

Item = TypeVar("Item", bound=Hashable)

RIGHT, WRONG = 4.0, 1.0  # pseudo-counts of each judge: a prior of four right votes of five

ROUNDS, CLOSE = 200, 1e-6
"""EM ends after ``ROUNDS``, or when no probability moves by more than ``CLOSE``."""


@dataclass(frozen=True, slots=True)
class Vote(Generic[Item]):
    """One person's vote on an item: for it (1), against it (-1), or a tie (0)."""

    item: Item
    feedback_id: str
    actor: Actor
    side: Literal[-1, 0, 1]
    weight: float


Rates: TypeAlias = tuple[float, float]
"""A judge's probability of a vote for an item of side 1, and for one of side -1."""


def posteriors(votes: Iterable[Vote[Item]], *, symmetric: bool) -> dict[Item, float]:
    """Return each item's probability of side 1 from votes without ties, in any order.

    Args:
        votes: A vote of weight w counts as w votes.
        symmetric: The sides are arbitrary (which of two answers is first), so that a judge has
            one error rate and both sides are equally common.
    """
    ordered = sorted(votes, key=lambda vote: (repr(vote.item), vote.actor, vote.side))
    by_item: dict[Item, list[Vote[Item]]] = defaultdict(list)
    for vote in ordered:
        by_item[vote.item].append(vote)
    probabilities = {item: _majority(item_votes) for item, item_votes in by_item.items()}
    for _ in range(ROUNDS):
        rates = _rates(ordered, probabilities, symmetric=symmetric)
        prior = 0.5 if symmetric else (1 + sum(probabilities.values())) / (2 + len(probabilities))
        before = probabilities
        probabilities = {
            item: _truth(item_votes, rates, prior) for item, item_votes in by_item.items()
        }
        if all(abs(probabilities[item] - before[item]) < CLOSE for item in probabilities):
            break
    return probabilities


def _majority(votes: Sequence[Vote[Item]]) -> float:
    return sum(vote.weight for vote in votes if vote.side > 0) / sum(vote.weight for vote in votes)


def _rates(
    votes: Sequence[Vote[Item]], truth: dict[Item, float], *, symmetric: bool
) -> dict[Actor, Rates]:
    """Return each judge's rates, with items weighted by their probabilities."""
    counts_by_judge: dict[Actor, list[float]] = defaultdict(lambda: [RIGHT, WRONG, WRONG, RIGHT])
    for vote in votes:
        probability = truth[vote.item]
        counts = counts_by_judge[vote.actor]
        counts[0 if vote.side > 0 else 1] += vote.weight * probability
        counts[2 if vote.side > 0 else 3] += vote.weight * (1 - probability)
    rates: dict[Actor, Rates] = {}
    for judge, (hits, misses, false_alarms, rejections) in counts_by_judge.items():
        right = (hits + rejections) / sum(counts_by_judge[judge])
        rates[judge] = (
            (right, 1 - right)
            if symmetric
            else (hits / (hits + misses), false_alarms / (false_alarms + rejections))
        )
    return rates


def _truth(votes: Sequence[Vote[Item]], rates: dict[Actor, Rates], prior: float) -> float:
    odds = math.log(prior / (1 - prior))
    for vote in votes:
        of_one, of_other = rates[vote.actor]
        ratio = of_one / of_other if vote.side > 0 else (1 - of_one) / (1 - of_other)
        odds += vote.weight * math.log(ratio)
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, odds))))


Method = Literal["agreed", "dawid_skene", "majority", "ties"]

ENOUGH = 20
"""Minimum items with two or more judges, to estimate the judges' rates; else the majority wins."""

DECIDED = 0.2  # items nearer to even odds than this (0.6 to 0.4) stay undecided.


@dataclass(frozen=True, slots=True)
class Resolution(Generic[Item]):
    """The outcome of an item's votes.

    ``side`` is 0 for an undecided item; ``weight`` is at most 1 and at most the weight of the
    side's votes, reduced by votes against it. ``was_contested``: votes disagreed.
    """

    item: Item
    side: Literal[-1, 0, 1]
    weight: float
    confidence: float
    method: Method
    was_contested: bool
    votes: tuple[Vote[Item], ...]

    def ids(self, *sides: int) -> list[str]:
        """Return the feedback ids of some sides, sorted."""
        return sorted({vote.feedback_id for vote in self.votes if vote.side in sides})

    def weight_of(self, side: int) -> float:
        """Return the total weight of a side's votes."""
        return sum(vote.weight for vote in self.votes if vote.side == side)


def resolve(votes: Iterable[Vote[Item]], *, symmetric: bool) -> list[Resolution[Item]]:
    """Resolve every item with votes, in item order.

    Votes that agree need no model. Otherwise Dawid-Skene decides if enough items have several
    judges, else the heavier side; an item with more ties than votes stays undecided.
    """
    by_item: dict[Item, list[Vote[Item]]] = defaultdict(list)
    for vote in sorted(votes, key=lambda vote: (repr(vote.item), vote.feedback_id)):
        by_item[vote.item].append(vote)
    model = _model(by_item, symmetric=symmetric)
    return [_settle(item, item_votes, model.get(item)) for item, item_votes in by_item.items()]


def _model(by_item: dict[Item, list[Vote[Item]]], *, symmetric: bool) -> dict[Item, float]:
    """Return each item's probability of side 1; empty if too few items have several judges."""
    shared = [
        item_votes
        for item_votes in by_item.values()
        if len({vote.actor for vote in item_votes if vote.side}) > 1
    ]
    if len(shared) < ENOUGH:
        return {}
    votes = (vote for item_votes in shared for vote in item_votes if vote.side)
    return posteriors(votes, symmetric=symmetric)


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
