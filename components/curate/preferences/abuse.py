"""Find floods (one actor votes far more) and brigades (many new actors of one mind)."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from components.curate.preferences.feedback_signals import Actor

UNLIKELY = 1e-6
"""Counts rarer than this are no chance: one window in a million, and there are thousands."""


def poisson_tail(count: int, expected: float) -> float:
    """Give P(X >= count) of a Poisson count with that mean (exact sum from the count upwards)."""
    if count <= 0:
        return 1.0
    if expected <= 0:
        return 0.0
    if count <= expected:
        return 1.0  # no surprise; the sum upwards would be long
    total, k = 0.0, count
    while (term := _poisson(k, expected)) > total * 1e-12:
        total, k = total + term, k + 1
    return min(1.0, total)


def binomial_tail(count: int, trials: int, rate: float) -> float:
    """Give P(X >= count) of that many trials with that rate of success (exact)."""
    if rate >= 1 or count <= trials * rate:
        return 1.0
    if rate <= 0:
        return 0.0
    terms = (_binomial(k, trials, rate) for k in range(count, trials + 1))
    return min(1.0, math.fsum(terms))


def poisson_limit(expected: float, at_least: int) -> int:
    """Give the largest count that is not unlikely, and never less than ``at_least``."""
    limit = max(at_least, math.ceil(expected))
    while poisson_tail(limit + 1, expected) >= UNLIKELY:
        limit += 1
    return limit


def _poisson(k: int, expected: float) -> float:
    return math.exp(k * math.log(expected) - expected - math.lgamma(k + 1))


def _binomial(k: int, trials: int, rate: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
    return math.exp(ways + k * math.log(rate) + (trials - k) * math.log1p(-rate))


FEWEST_ACTORS = 5
"""Fewer can't say what is usual for an actor."""

FLOOD = 30
"""Signals in a window that nobody is blamed for: a labeller at work gives as many."""


@dataclass(frozen=True, slots=True)
class VoteEvent:
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


def when(event: VoteEvent) -> tuple[datetime, str]:
    """Order events by time, those of one moment by id."""
    return event.at, event.feedback_id


def find_floods(events: Sequence[VoteEvent], window: timedelta) -> Iterator[Burst]:
    """Find actors who in one window give far more than the median actor does in a busy one.

    What is more than the limit is held back; which signals stay is settled by their ids.
    """
    by_actor: dict[Actor, list[VoteEvent]] = defaultdict(list)
    for event in sorted(events, key=when):
        by_actor[event.actor].append(event)
    if len(by_actor) < FEWEST_ACTORS:
        return
    usual = median(_mean_per_window(given, window) for given in by_actor.values())
    limit = poisson_limit(usual, FLOOD)
    for actor, given in sorted(by_actor.items()):
        for block in _blocks(given, window, limit):
            extra = sorted(event.feedback_id for event in block)[limit:]
            likely = poisson_tail(len(block), usual)
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


def _mean_per_window(given: Sequence[VoteEvent], window: timedelta) -> float:
    return len(given) / len({event.at.timestamp() // window.total_seconds() for event in given})


def _blocks(
    given: Sequence[VoteEvent], window: timedelta, limit: int
) -> Iterator[Sequence[VoteEvent]]:
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


FEWEST = 10
"""New actors in a window that nobody is blamed for."""

NEW = 3
"""An actor's first signals, by which it counts as new: one kept asleep has given some before."""

HISTORY = 10
"""Windows with signals that must lie outside of a crowd, before it can stand out."""

ODDS = 4.0
"""How many times the usual odds those of one mind must have, and make up half of the crowd."""

ONE_MIND = 1e-3
"""How unlikely that must be, given the crowd, which is unlikely already."""


def coordinated_votes(events: Sequence[VoteEvent], window: timedelta) -> Iterator[Burst]:
    """Find crowds of new actors with one aim; all their signals with that aim are held back."""
    history = _History(events, window)
    for crowd in _crowds(_first_signals(events), window, history):
        found = [_one_aim(crowd, aim_of, history) for aim_of in AIMS]
        aimed = [one for one in found if one is not None]
        if aimed:
            aim, likely, given = min(aimed, key=lambda one: one[1])
            yield _burst(given, aim, history.expected(crowd), history.chance(crowd) * likely)


def direction(event: VoteEvent) -> str:
    """Say which way a signal points."""
    return f"direction {event.direction}"


def target(event: VoteEvent) -> str:
    """Say what a signal is about."""
    return f"target {event.target}"


AIMS = (direction, target)
Aim = Callable[[VoteEvent], str]


def _burst(given: Sequence[VoteEvent], aim: str, expected: float, likely: float) -> Burst:
    actors = tuple(sorted({event.actor for event in given}))
    return Burst(
        kind="brigade",
        actors=actors,
        first_at=given[0].at,
        last_at=given[-1].at,
        found=len(actors),
        expected=expected,
        chance=likely,
        aim=aim,
        held_back=tuple(sorted(event.feedback_id for event in given)),
    )


class _History:
    """What the workload shows outside of a crowd."""

    def __init__(self, events: Sequence[VoteEvent], window: timedelta) -> None:
        self._seconds = window.total_seconds()
        self._actors = len({event.actor for event in events})
        self._windows = {self._window(event) for event in events}
        self._signals = len(events)
        self._aims: dict[Aim, Counter[str]] = {
            aim_of: Counter(aim_of(event) for event in events) for aim_of in AIMS
        }

    def expected(self, crowd: Sequence[VoteEvent]) -> float:
        """Give the new actors that a window outside of the crowd brings (one more, to be fair)."""
        inside = {self._window(event) for event in crowd}
        outside = len(self._windows - inside)
        if outside < HISTORY:
            return float("inf")
        actors = len({event.actor for event in crowd})
        return (self._actors - actors + 1) / outside * len(inside)

    def chance(self, crowd: Sequence[VoteEvent]) -> float:
        """Say how likely so many new actors are; 1 where there is no history."""
        expected = self.expected(crowd)
        actors = len({event.actor for event in crowd})
        return 1.0 if expected == float("inf") else poisson_tail(actors, expected)

    def rate(self, aim_of: Aim, aim: str, inside: int, crowd: int) -> float:
        """Give the share of an aim among the signals outside of a crowd, neither 0 nor 1."""
        return (self._aims[aim_of][aim] - inside + 1) / (self._signals - crowd + 2)

    def _window(self, event: VoteEvent) -> float:
        return event.at.timestamp() // self._seconds


def _first_signals(events: Sequence[VoteEvent]) -> list[VoteEvent]:
    seen: Counter[Actor] = Counter()
    first: list[VoteEvent] = []
    for event in sorted(events, key=when):
        seen[event.actor] += 1
        if seen[event.actor] <= NEW:
            first.append(event)
    return first


def _crowds(
    new: Sequence[VoteEvent], window: timedelta, history: _History
) -> Iterator[Sequence[VoteEvent]]:
    """Join the windows with enough new actors where they overlap; give those that are unlikely."""
    inside: Counter[Actor] = Counter()
    end, begun, until = 0, -1, -1
    for start in range(len(new)):
        while end < len(new) and new[end].at < new[start].at + window:
            inside[new[end].actor] += 1
            end += 1
        if len(inside) >= FEWEST:
            if begun >= 0 and start >= until:
                yield from _unlikely(new[begun:until], history)
                begun = -1
            begun, until = (start if begun < 0 else begun), end
        inside[new[start].actor] -= 1
        if not inside[new[start].actor]:
            del inside[new[start].actor]
    if begun >= 0:
        yield from _unlikely(new[begun:until], history)


def _unlikely(crowd: Sequence[VoteEvent], history: _History) -> Iterator[Sequence[VoteEvent]]:
    if history.chance(crowd) < UNLIKELY:
        yield crowd


def _one_aim(
    crowd: Sequence[VoteEvent], aim_of: Aim, history: _History
) -> tuple[str, float, list[VoteEvent]] | None:
    """Find the aim that most of a crowd have, if it is far from what others have."""
    counted = Counter(aim_of(event) for event in crowd)
    aim, count = min(counted.items(), key=lambda one: (-one[1], one[0]))
    given = [event for event in crowd if aim_of(event) == aim]
    usual = history.rate(aim_of, aim, count, len(crowd))
    likely = binomial_tail(count, len(crowd), usual)
    share = count / (len(crowd) + 1)
    stands_out = share / (1 - share) >= ODDS * usual / (1 - usual)
    if len({event.actor for event in given}) < FEWEST or 2 * count < len(crowd):
        return None
    return (aim, likely, given) if stands_out and likely < ONE_MIND else None
