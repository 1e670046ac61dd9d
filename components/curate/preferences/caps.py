"""Cap each actor's weight; hold back floods, brigades and what exceeds a cap, with evidence."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from components.curate.preferences import abuse
from components.curate.preferences.abuse import Burst, VoteEvent, coordinated_votes
from components.curate.preferences.feedback_signals import Actor, SignalReading
from components.curate.settings import Preferences

RANKS = ("correction", "choice", "rating", "thumb", "outcome", "regenerate")
"""Kinds in the order in which an actor over the cap keeps them: the most informative first."""

EVEN_SHARES = 2
"""With few actors, one may have this many times an even share: a cap at an even share would reduce
all actors to the least active one."""

ONE = 1.0  # a signal's maximum weight, which an actor may always have, however little others gave
SLACK = 1e-9

WINDOW = timedelta(minutes=10)  # in which unusually many signals or new actors are looked for


def cap_share(actor_cap: float, actors: int) -> float:
    """Return the maximum share of one actor."""
    return min(1.0, max(actor_cap, EVEN_SHARES / max(actors, 1)))


def over_cap(readings: Iterable[SignalReading], cap: float, trusted: Collection[Actor]) -> set[str]:
    """Return the signals to hold back, so that no actor exceeds the cap's share of the kept weight.

    An actor's kept signals depend on their kind and id alone. One signal always stays.

    Args:
        readings: The signals that passed the other defences.
        cap: The maximum share, from ``cap_share``.
        trusted: Actors without a cap; their signals count in the total.
    """
    held: set[str] = set()
    by_actor: dict[Actor, list[SignalReading]] = defaultdict(list)
    ordered = sorted(readings, key=lambda r: (RANKS.index(r.signal.kind), r.signal.feedback_id))
    for reading in ordered:
        by_actor[reading.signal.actor].append(reading)
    kept = {actor: _total(signals) for actor, signals in sorted(by_actor.items())}
    while True:
        limit = max(ONE, cap_weight(kept, cap, trusted))
        above = [a for a, w in kept.items() if a not in trusted and w > limit + SLACK]
        if not above:
            return held
        for actor in above:
            kept[actor], rest = _fill(by_actor[actor], limit)
            held |= rest


def cap_weight(kept: Mapping[Actor, float], cap: float, trusted: Collection[Actor]) -> float:
    """Return an actor's maximum weight L: L = cap * (the sum of min(weight, L) over actors).

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


def _fill(readings: Sequence[SignalReading], limit: float) -> tuple[float, set[str]]:
    """Keep a prefix of the signals up to the limit; return its weight and the other ids."""
    total = 0.0
    for place, reading in enumerate(readings):
        if total + reading.weight > limit + SLACK:
            return total, {rest.signal.feedback_id for rest in readings[place:]}
        total += reading.weight
    return total, set()


@dataclass(frozen=True, slots=True)
class Share:
    """One actor's signals and weight, before and after the caps; ``cap`` is 1 for trusted actors.

    If a single signal exceeds the cap, its share is the cap.
    """

    client_id: str
    actor_id: str
    signals: int
    kept: int
    weight_before: float
    weight_after: float
    share_before: float
    share_after: float
    cap: float


@dataclass(frozen=True, slots=True)
class Defence:
    """The signals held back, with reasons; the bursts found; each actor's share."""

    held_back: dict[str, str]
    bursts: tuple[Burst, ...]
    shares: tuple[Share, ...]


def defend(readings: Sequence[SignalReading], config: Preferences) -> Defence:
    """Hold back bursts first, then the signals over the cap of the remainder."""
    trusted = {
        reading.signal.actor for reading in readings if reading.signal.actor_id in config.trusted
    }
    events = [_event(reading) for reading in readings if reading.signal.actor not in trusted]
    brigaded = tuple(coordinated_votes(events, WINDOW))
    held = {feedback_id: "brigade" for burst in brigaded for feedback_id in burst.held_back}
    rest = [event for event in events if event.feedback_id not in held]
    flooded = tuple(abuse.find_floods(rest, WINDOW))
    held |= {feedback_id: "flood" for burst in flooded for feedback_id in burst.held_back}
    left = [reading for reading in readings if reading.signal.feedback_id not in held]
    cap = cap_share(config.actor_cap, len({reading.signal.actor for reading in left}))
    held |= dict.fromkeys(sorted(over_cap(left, cap, trusted)), "over_cap")
    return Defence(held, brigaded + flooded, tuple(_shares(readings, held, trusted, cap)))


def _event(reading: SignalReading) -> VoteEvent:
    signal = reading.signal
    if reading.comparisons and not reading.opinions:
        comparison = reading.comparisons[0]
        example, better, worse = comparison.better[0], comparison.better[1], comparison.worse[1]
        way = "tie" if comparison.is_tie else f"{signal.kind} {example} {better} over {worse}"
        target = " ".join([example, *sorted([better, worse])])
    else:
        good = any(opinion.position > 0 for opinion in reading.opinions)
        way = "good" if good else "bad" if reading.opinions else signal.kind
        target = " ".join(reading.opinions[0].completion if reading.opinions else reading.replaces)
    return VoteEvent(signal.feedback_id, signal.actor, signal.given_at, way, target)


def _shares(
    readings: Sequence[SignalReading], held: dict[str, str], trusted: set[Actor], cap: float
) -> Iterable[Share]:
    by_actor: dict[Actor, list[SignalReading]] = defaultdict(list)
    for reading in readings:
        by_actor[reading.signal.actor].append(reading)
    kept = {
        actor: [reading for reading in actor_readings if reading.signal.feedback_id not in held]
        for actor, actor_readings in by_actor.items()
    }
    before, after = _total(readings), sum(map(_total, kept.values()))
    cap = min(1.0, max(cap, ONE / after)) if after else cap
    for actor, actor_readings in sorted(by_actor.items()):
        weight_before, weight_after = _total(actor_readings), _total(kept[actor])
        yield Share(
            client_id=actor[0],
            actor_id=actor[1],
            signals=len(actor_readings),
            kept=len(kept[actor]),
            weight_before=weight_before,
            weight_after=weight_after,
            share_before=weight_before / before,
            share_after=weight_after / after if after else 0.0,
            cap=1.0 if actor in trusted else cap,
        )


def _total(readings: Iterable[SignalReading]) -> float:
    return sum(reading.weight for reading in readings)
