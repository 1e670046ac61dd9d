"""Cap each actor's weight; hold back floods, brigades and what exceeds a cap, with evidence."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from components.curate.preferences import abuse
from components.curate.preferences.abuse import Burst, VoteEvent, coordinated_votes
from components.curate.preferences.feedback_signals import Actor, SignalReading
from components.curate.settings import Preferences

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


RANKS = ("correction", "choice", "rating", "thumb", "outcome", "regenerate")
"""What is kept first of an actor who is over the cap: what tells most."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one actor gave and what of it counts; ``cap`` is 1 for whom we trust.

    Where so little was given that a single signal is more than the cap, that is the cap.
    """

    actor: Actor
    signals: int
    kept: int
    weight_before: float
    weight_after: float
    share_before: float
    share_after: float
    cap: float


@dataclass(frozen=True, slots=True)
class Defence:
    """The signals held back, each with the reason; the bursts that were found; everyone's share."""

    held_back: dict[str, str]
    bursts: tuple[Burst, ...]
    shares: tuple[Share, ...]


def defend(readings: Sequence[SignalReading], config: Preferences) -> Defence:
    """Hold back bursts first, then what is over the cap of what remains."""
    trusted = {one.signal.actor for one in readings if one.signal.actor_id in config.trusted}
    window = timedelta(minutes=config.burst_minutes)
    events = [_event(one) for one in readings if one.signal.actor not in trusted]
    brigaded = tuple(coordinated_votes(events, window))
    held = {feedback_id: "brigade" for one in brigaded for feedback_id in one.held_back}
    rest = [event for event in events if event.feedback_id not in held]
    flooded = tuple(abuse.find_floods(rest, window))
    held |= {feedback_id: "flood" for one in flooded for feedback_id in one.held_back}
    weights = [_weight(one) for one in readings if one.signal.feedback_id not in held]
    cap = share(config.actor_cap, len({one.actor for one in weights}))
    held |= dict.fromkeys(sorted(over(weights, cap, trusted)), "over_cap")
    shares = _shares(readings, held, dict.fromkeys(trusted, 1.0), cap)
    return Defence(held, brigaded + flooded, tuple(shares))


def _event(reading: SignalReading) -> VoteEvent:
    signal = reading.signal
    if reading.comparisons and not reading.opinions:
        said = reading.comparisons[0]
        example, better, worse = said.better[0], said.better[1], said.worse[1]
        way = "tie" if said.is_tie else f"{signal.kind} {example} {better} over {worse}"
        target = " ".join([example, *sorted([better, worse])])
    else:
        good = any(one.position > 0 for one in reading.opinions)
        way = "good" if good else "bad" if reading.opinions else signal.kind
        target = " ".join(reading.opinions[0].completion if reading.opinions else reading.replaces)
    return VoteEvent(signal.feedback_id, signal.actor, signal.given_at, way, target)


def _weight(reading: SignalReading) -> Weight[Actor]:
    signal = reading.signal
    rank = RANKS.index(signal.kind)
    return Weight(signal.feedback_id, signal.actor, reading.weight, rank)


def _shares(
    readings: Sequence[SignalReading], held: dict[str, str], caps_of: dict[Actor, float], cap: float
) -> Iterable[Share]:
    given: dict[Actor, list[SignalReading]] = defaultdict(list)
    for one in readings:
        given[one.signal.actor].append(one)
    kept = {
        actor: [one for one in said if one.signal.feedback_id not in held]
        for actor, said in given.items()
    }
    before, after = _total(readings), sum(_total(said) for said in kept.values())
    cap = min(1.0, max(cap, ONE / after)) if after else cap
    for actor, said in sorted(given.items()):
        weight_before, weight_after = _total(said), _total(kept[actor])
        yield Share(
            actor=actor,
            signals=len(said),
            kept=len(kept[actor]),
            weight_before=weight_before,
            weight_after=weight_after,
            share_before=weight_before / before,
            share_after=weight_after / after if after else 0.0,
            cap=caps_of.get(actor, cap),
        )


def _total(readings: Iterable[SignalReading]) -> float:
    return sum(one.weight for one in readings)
