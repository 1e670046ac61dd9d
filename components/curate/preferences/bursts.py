"""What a search for bursts sees and finds; floods, in which one actor gives far more than others.

A burst is found in a sliding window by how unlikely its count is next to what the workload shows
else, and comes with that evidence. What has nothing to compare with is left to the cap.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from components.curate.preferences import chance
from components.curate.preferences.signal import Actor

FEWEST_ACTORS = 5
"""Fewer can't say what is usual for an actor."""

FLOOD = 30
"""Signals in a window that nobody is blamed for: a labeller at work gives as many."""


@dataclass(frozen=True, slots=True)
class Event:
    """One signal as the search sees it: who, when, which way and about what."""

    feedback_id: str
    actor: Actor
    at: datetime
    direction: str
    target: str


@dataclass(frozen=True, slots=True)
class Burst:
    """What was found, and the signals held back for it.

    ``found`` and ``expected`` count signals of a flood, new actors of a brigade, in one window;
    ``chance`` is the probability of so many (and, of a brigade, so much of one mind).
    """

    kind: Literal["flood", "brigade"]
    actors: tuple[Actor, ...]
    first_at: datetime
    last_at: datetime
    found: int
    expected: float
    chance: float
    aim: str
    held_back: tuple[str, ...]


def when(event: Event) -> tuple[datetime, str]:
    """Order events by time, those of one moment by id."""
    return event.at, event.feedback_id


def floods(events: Sequence[Event], window: timedelta) -> Iterator[Burst]:
    """Find actors who in one window give far more than the median actor does in a busy one.

    What is more than the limit is held back; which signals stay is settled by their ids.
    """
    by_actor: dict[Actor, list[Event]] = defaultdict(list)
    for event in sorted(events, key=when):
        by_actor[event.actor].append(event)
    if len(by_actor) < FEWEST_ACTORS:
        return
    usual = median(_mean_per_window(given, window) for given in by_actor.values())
    limit = chance.poisson_limit(usual, FLOOD)
    for actor, given in sorted(by_actor.items()):
        for block in _blocks(given, window, limit):
            extra = sorted(event.feedback_id for event in block)[limit:]
            likely = chance.poisson_tail(len(block), usual)
            yield Burst(
                kind="flood",
                actors=(actor,),
                first_at=block[0].at,
                last_at=block[-1].at,
                found=len(block),
                expected=usual,
                chance=likely,
                aim="",
                held_back=tuple(extra),
            )


def _mean_per_window(given: Sequence[Event], window: timedelta) -> float:
    return len(given) / len({event.at.timestamp() // window.total_seconds() for event in given})


def _blocks(given: Sequence[Event], window: timedelta, limit: int) -> Iterator[Sequence[Event]]:
    """Give the windows with more signals than the limit, none overlapping another."""
    start = end = 0
    while start < len(given):
        while end < len(given) and given[end].at < given[start].at + window:
            end += 1
        if end - start > limit:
            yield given[start:end]
            start = end
        else:
            start += 1
