"""Settle what people disagree about, and say how."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from components.curate.preferences import dawid_skene
from components.curate.preferences.signal import Actor

Item = TypeVar("Item", bound=Hashable)
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
class Settled(Generic[Item]):
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


def settle(votes: Iterable[Vote[Item]], *, symmetric: bool) -> list[Settled[Item]]:
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
    return dawid_skene.posteriors(
        (
            dawid_skene.Vote(vote.item, vote.actor, vote.side > 0, vote.weight)
            for given in shared
            for vote in given
            if vote.side
        ),
        symmetric=symmetric,
    )


def _settle(item: Item, votes: Sequence[Vote[Item]], probability: float | None) -> Settled[Item]:
    up = sum(vote.weight for vote in votes if vote.side > 0)
    down = sum(vote.weight for vote in votes if vote.side < 0)
    ties = sum(vote.weight for vote in votes if vote.side == 0)
    contested = up > 0 and down > 0
    if ties > up + down:
        return Settled(item, 0, 0.0, 0.0, "ties", up + down > 0, tuple(votes))
    method: Method = "agreed"
    lead = 1.0 if up > 0 else -1.0
    if contested and probability is not None:
        method, lead = "dawid_skene", 2 * probability - 1
    elif contested:
        method, lead = "majority", (up - down) / (up + down)
    confidence = abs(lead)
    if confidence < DECIDED:
        return Settled(item, 0, 0.0, confidence, method, contested, tuple(votes))
    side: Literal[-1, 1] = 1 if lead > 0 else -1
    winning = up if side > 0 else down
    weight = min(1.0, winning) * confidence * (up + down) / (up + down + ties)
    return Settled(item, side, weight, confidence, method, contested or ties > 0, tuple(votes))
