"""Cap what one actor may weigh: whole signals are kept up to the cap, the rest are held back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Name = TypeVar("Name", bound="tuple[str, ...]")

EVEN_SHARES = 2
"""With few actors one may have this many times an even share: an even share for each would cut
all down to what the least active gave."""

ONE = 1.0
"""What one signal may weigh, and the least that an actor may have, however little others gave."""

SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Weight(Generic[Name]):
    """What one signal weighs in whose hands; lower ``rank`` is kept first."""

    feedback_id: str
    actor: Name
    weight: float
    rank: int


def share(actor_cap: float, actors: int) -> float:
    """Give the share that one of so many actors may have."""
    return min(1.0, max(actor_cap, EVEN_SHARES / max(actors, 1)))


def over(weights: Sequence[Weight[Name]], cap: float, trusted: Collection[Name]) -> set[str]:
    """Give the signals to hold back, so that no actor has more than the cap of what is kept.

    Which signals of an actor are kept depends on nothing but their rank and their id. One signal
    may always stay.

    Args:
        weights: The signals that the other defences let pass.
        cap: The largest share, from ``share``.
        trusted: Actors without a cap; what they give counts in the whole.
    """
    held: set[str] = set()
    by_actor: dict[Name, list[Weight[Name]]] = {}
    for one in sorted(weights, key=lambda one: (one.rank, one.feedback_id)):
        by_actor.setdefault(one.actor, []).append(one)
    kept = {actor: sum(one.weight for one in given) for actor, given in sorted(by_actor.items())}
    while True:
        limit = max(ONE, highest(kept, cap, trusted))
        above = [a for a, w in kept.items() if a not in trusted and w > limit + SLACK]
        if not above:
            return held
        for actor in above:
            kept[actor], rest = _fill(by_actor[actor], limit)
            held |= rest


def highest(kept: Mapping[Name, float], cap: float, trusted: Collection[Name]) -> float:
    """Give the weight L that an actor may have: L = cap * (the sum of min(weight, L) over actors).

    With the k heaviest at L and the others' weights summing to R: L = cap * R / (1 - cap * k).
    """
    free = sorted((w for actor, w in kept.items() if actor not in trusted), reverse=True)
    rest = sum(kept.values())
    for count, heaviest in enumerate(free):
        if cap * count >= 1:
            return heaviest
        limit = cap * rest / (1 - cap * count)
        if heaviest <= limit + SLACK:
            return limit
        rest -= heaviest
    return cap * rest / (1 - cap * len(free)) if cap * len(free) < 1 else free[-1]


def _fill(given: Sequence[Weight[Name]], limit: float) -> tuple[float, set[str]]:
    """Keep signals in order up to the limit; a lower limit keeps none that a higher one did not."""
    total = 0.0
    for place, one in enumerate(given):
        if total + one.weight > limit + SLACK:
            return total, {rest.feedback_id for rest in given[place:]}
        total += one.weight
    return total, set()
