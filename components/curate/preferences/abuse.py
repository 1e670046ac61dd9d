"""Find floods (one actor with far more votes) and brigades (many new actors with one aim)."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from components.curate.preferences.feedback_signals import Actor

UNLIKELY = 1e-6  # rarer counts are not chance: one window in a million, and a log has thousands


def poisson_tail(count: int, expected: float) -> float:
    """Return P(X >= count) of a Poisson count with mean ``expected`` (exact sum upwards)."""
    if count <= 0:
        return 1.0
    if expected <= 0:
        return 0.0
    if count <= expected:
        return 1.0  # not unusual; the sum upwards would be long
    total, k = 0.0, count
    while (term := _poisson(k, expected)) > total * 1e-12:
        total, k = total + term, k + 1
    return min(1.0, total)


def binomial_tail(count: int, trials: int, rate: float) -> float:
    """Return P(X >= count) of a binomial count (exact)."""
    if rate >= 1 or count <= trials * rate:
        return 1.0
    if rate <= 0:
        return 0.0
    terms = (_binomial(k, trials, rate) for k in range(count, trials + 1))
    return min(1.0, math.fsum(terms))


def poisson_limit(expected: float, at_least: int) -> int:
    """Return the largest count that is not unlikely, but at least ``at_least``."""
    limit = max(at_least, math.ceil(expected))
    while poisson_tail(limit + 1, expected) >= UNLIKELY:
        limit += 1
    return limit


def _poisson(k: int, expected: float) -> float:
    return math.exp(k * math.log(expected) - expected - math.lgamma(k + 1))


def _binomial(k: int, trials: int, rate: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
    return math.exp(ways + k * math.log(rate) + (trials - k) * math.log1p(-rate))


FEWEST_ACTORS = 5  # fewer actors don't show what is usual

FLOOD = 30  # signals in a window that are never a flood: a working labeller gives as many


@dataclass(frozen=True, slots=True)
class VoteEvent:
    """One signal for the search: actor, time, direction and target."""

    feedback_id: str
    actor: Actor
    at: datetime
    direction: str
    target: str


@dataclass(frozen=True, slots=True)
class Burst:
    """A flood or brigade, and the signals held back for it.

    ``found`` and ``expected`` count a flood's signals, or a brigade's new actors, in one window;
    ``chance`` is the probability of that count (for a brigade, times that of its common aim).
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


def by_time(event: VoteEvent) -> tuple[datetime, str]:
    """Return the sort key of an event: time, then id."""
    return event.at, event.feedback_id


def find_floods(events: Sequence[VoteEvent], window: timedelta) -> Iterator[Burst]:
    """Yield actors with far more signals in one window than the median actor has in a busy one.

    Signals over the limit are held back, chosen by their ids.
    """
    by_actor: dict[Actor, list[VoteEvent]] = defaultdict(list)
    for event in sorted(events, key=by_time):
        by_actor[event.actor].append(event)
    if len(by_actor) < FEWEST_ACTORS:
        return
    usual = median(_mean_per_window(actor_events, window) for actor_events in by_actor.values())
    limit = poisson_limit(usual, FLOOD)
    for actor, actor_events in sorted(by_actor.items()):
        for block in _blocks(actor_events, window, limit):
            extra = sorted(event.feedback_id for event in block)[limit:]
            yield Burst(
                kind="flood",
                actors=(actor,),
                first_at=block[0].at,
                last_at=block[-1].at,
                found=len(block),
                expected=usual,
                chance=poisson_tail(len(block), usual),
                aim="",
                held_back=tuple(extra),
            )


def _mean_per_window(events: Sequence[VoteEvent], window: timedelta) -> float:
    return len(events) / len({event.at.timestamp() // window.total_seconds() for event in events})


def _blocks(
    events: Sequence[VoteEvent], window: timedelta, limit: int
) -> Iterator[Sequence[VoteEvent]]:
    """Yield the disjoint windows with more signals than the limit."""
    start = end = 0
    while start < len(events):
        while end < len(events) and events[end].at < events[start].at + window:
            end += 1
        if end - start > limit:
            yield events[start:end]
            start = end
        else:
            start += 1


FEWEST = 10  # fewer new actors in a window are never a brigade

NEW = 3
"""An actor is new for its first signals up to this many: a sleeper account has given some
before."""

HISTORY = 10  # minimum windows with signals outside of a crowd, to compare it with

ODDS = 4.0
"""Minimum odds of the common aim relative to the usual odds; it also needs half of the crowd."""

COMMON_AIM = 1e-3
"""Maximum probability of the common aim, given the crowd, which is unlikely itself."""


def coordinated_votes(events: Sequence[VoteEvent], window: timedelta) -> Iterator[Burst]:
    """Yield crowds of new actors with one aim; all their signals with that aim are held back."""
    history = _History(events, window)
    for crowd in _crowds(_first_signals(events), window):
        expected = history.expected(crowd)
        chance = poisson_tail(len({event.actor for event in crowd}), expected)
        candidates = (_common_aim(crowd, aim_of, history) for aim_of in AIMS)
        aimed = [candidate for candidate in candidates if candidate is not None]
        if chance < UNLIKELY and aimed:
            aim, likely, aimed_events = min(aimed, key=lambda candidate: candidate[1])
            actors = tuple(sorted({event.actor for event in aimed_events}))
            yield Burst(
                kind="brigade",
                actors=actors,
                first_at=aimed_events[0].at,
                last_at=aimed_events[-1].at,
                found=len(actors),
                expected=expected,
                chance=chance * likely,
                aim=aim,
                held_back=tuple(sorted(event.feedback_id for event in aimed_events)),
            )


Aim = Callable[[VoteEvent], str]
AIMS: tuple[Aim, ...] = (
    lambda event: f"direction {event.direction}",
    lambda event: f"target {event.target}",
)


class _History:
    # The workload's signals, to compare a crowd with those outside of it.

    def __init__(self, events: Sequence[VoteEvent], window: timedelta) -> None:
        self._seconds = window.total_seconds()
        self._actors = len({event.actor for event in events})
        self._windows = {self._window(event) for event in events}
        self._signals = len(events)
        self._aims: dict[Aim, Counter[str]] = {
            aim_of: Counter(aim_of(event) for event in events) for aim_of in AIMS
        }

    def expected(self, crowd: Sequence[VoteEvent]) -> float:
        """Return the new actors expected in the crowd's windows, infinite for too little history.

        One is added to be conservative.
        """
        inside = {self._window(event) for event in crowd}
        outside = len(self._windows - inside)
        if outside < HISTORY:
            return float("inf")
        actors = len({event.actor for event in crowd})
        return (self._actors - actors + 1) / outside * len(inside)

    def rate(self, aim_of: Aim, aim: str, inside: int, crowd: int) -> float:
        """Return an aim's smoothed share of the signals outside of a crowd, in (0, 1)."""
        return (self._aims[aim_of][aim] - inside + 1) / (self._signals - crowd + 2)

    def _window(self, event: VoteEvent) -> float:
        return event.at.timestamp() // self._seconds


def _first_signals(events: Sequence[VoteEvent]) -> list[VoteEvent]:
    seen: Counter[Actor] = Counter()
    first: list[VoteEvent] = []
    for event in sorted(events, key=by_time):
        seen[event.actor] += 1
        if seen[event.actor] <= NEW:
            first.append(event)
    return first


def _crowds(new: Sequence[VoteEvent], window: timedelta) -> Iterator[Sequence[VoteEvent]]:
    """Yield the windows with enough new actors, overlapping ones merged."""
    inside: Counter[Actor] = Counter()
    end, begun, until = 0, -1, -1
    for start in range(len(new)):
        while end < len(new) and new[end].at < new[start].at + window:
            inside[new[end].actor] += 1
            end += 1
        if len(inside) >= FEWEST:
            if begun >= 0 and start >= until:
                yield new[begun:until]
                begun = -1
            begun, until = (start if begun < 0 else begun), end
        inside[new[start].actor] -= 1
        if not inside[new[start].actor]:
            del inside[new[start].actor]
    if begun >= 0:
        yield new[begun:until]


def _common_aim(
    crowd: Sequence[VoteEvent], aim_of: Aim, history: _History
) -> tuple[str, float, list[VoteEvent]] | None:
    """Return a crowd's most common aim with its probability and events, if it is unusual."""
    counted = Counter(aim_of(event) for event in crowd)
    aim, count = min(counted.items(), key=lambda entry: (-entry[1], entry[0]))
    aimed_events = [event for event in crowd if aim_of(event) == aim]
    usual = history.rate(aim_of, aim, count, len(crowd))
    likely = binomial_tail(count, len(crowd), usual)
    share = count / (len(crowd) + 1)
    stands_out = share / (1 - share) >= ODDS * usual / (1 - usual)
    if len({event.actor for event in aimed_events}) < FEWEST or 2 * count < len(crowd):
        return None
    return (aim, likely, aimed_events) if stands_out and likely < COMMON_AIM else None
