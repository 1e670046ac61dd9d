"""Hold back what one actor or a crowd of new ones gives too much of, and show the evidence."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from components.curate.preferences import bursts, caps
from components.curate.preferences.brigades import brigades
from components.curate.preferences.bursts import Burst, Event
from components.curate.preferences.caps import Weight
from components.curate.preferences.reading import Reading
from components.curate.preferences.settings import Preferences
from components.curate.preferences.signal import Actor

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


def defend(readings: Sequence[Reading], config: Preferences) -> Defence:
    """Hold back bursts first, then what is over the cap of what remains."""
    trusted = {one.signal.actor for one in readings if one.signal.actor_id in config.trusted}
    window = timedelta(minutes=config.burst_minutes)
    events = [_event(one) for one in readings if one.signal.actor not in trusted]
    brigaded = tuple(brigades(events, window))
    held = {feedback_id: "brigade" for one in brigaded for feedback_id in one.held_back}
    rest = [event for event in events if event.feedback_id not in held]
    flooded = tuple(bursts.floods(rest, window))
    held |= {feedback_id: "flood" for one in flooded for feedback_id in one.held_back}
    weights = [_weight(one) for one in readings if one.signal.feedback_id not in held]
    cap = caps.share(config.actor_cap, len({one.actor for one in weights}))
    held |= dict.fromkeys(sorted(caps.over(weights, cap, trusted)), "over_cap")
    shares = _shares(readings, held, dict.fromkeys(trusted, 1.0), cap)
    return Defence(held, brigaded + flooded, tuple(shares))


def _event(reading: Reading) -> Event:
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
    return Event(signal.feedback_id, signal.actor, signal.given_at, way, target)


def _weight(reading: Reading) -> Weight[Actor]:
    signal = reading.signal
    rank = RANKS.index(signal.kind)
    return Weight(signal.feedback_id, signal.actor, reading.weight, rank)


def _shares(
    readings: Sequence[Reading], held: dict[str, str], caps_of: dict[Actor, float], cap: float
) -> Iterable[Share]:
    given: dict[Actor, list[Reading]] = defaultdict(list)
    for one in readings:
        given[one.signal.actor].append(one)
    kept = {
        actor: [one for one in said if one.signal.feedback_id not in held]
        for actor, said in given.items()
    }
    before, after = _total(readings), sum(_total(said) for said in kept.values())
    cap = min(1.0, max(cap, caps.ONE / after)) if after else cap
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


def _total(readings: Iterable[Reading]) -> float:
    return sum(one.weight for one in readings)
