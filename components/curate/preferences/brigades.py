"""Find brigades: many new actors in a short time, all of one mind or at one answer.

A crowd by itself is no brigade (a launch brings one), nor is a mind that most people are of.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from components.curate.preferences import chance
from components.curate.preferences.bursts import Burst, Event, when
from components.curate.preferences.signal import Actor

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


def brigades(events: Sequence[Event], window: timedelta) -> Iterator[Burst]:
    """Find crowds of new actors with one aim; all their signals with that aim are held back."""
    history = _History(events, window)
    for crowd in _crowds(_first_signals(events), window, history):
        found = [_one_aim(crowd, aim_of, history) for aim_of in AIMS]
        aimed = [one for one in found if one is not None]
        if aimed:
            aim, likely, given = min(aimed, key=lambda one: one[1])
            yield _burst(given, aim, history.expected(crowd), history.chance(crowd) * likely)


def direction(event: Event) -> str:
    """Say which way a signal points."""
    return f"direction {event.direction}"


def target(event: Event) -> str:
    """Say what a signal is about."""
    return f"target {event.target}"


AIMS = (direction, target)
Aim = Callable[[Event], str]


def _burst(given: Sequence[Event], aim: str, expected: float, likely: float) -> Burst:
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

    def __init__(self, events: Sequence[Event], window: timedelta) -> None:
        self._seconds = window.total_seconds()
        self._actors = len({event.actor for event in events})
        self._windows = {self._window(event) for event in events}
        self._signals = len(events)
        self._aims: dict[Aim, Counter[str]] = {
            aim_of: Counter(aim_of(event) for event in events) for aim_of in AIMS
        }

    def expected(self, crowd: Sequence[Event]) -> float:
        """Give the new actors that a window outside of the crowd brings (one more, to be fair)."""
        inside = {self._window(event) for event in crowd}
        outside = len(self._windows - inside)
        if outside < HISTORY:
            return float("inf")
        actors = len({event.actor for event in crowd})
        return (self._actors - actors + 1) / outside * len(inside)

    def chance(self, crowd: Sequence[Event]) -> float:
        """Say how likely so many new actors are; 1 where there is no history."""
        expected = self.expected(crowd)
        actors = len({event.actor for event in crowd})
        return 1.0 if expected == float("inf") else chance.poisson_tail(actors, expected)

    def rate(self, aim_of: Aim, aim: str, inside: int, crowd: int) -> float:
        """Give the share of an aim among the signals outside of a crowd, neither 0 nor 1."""
        return (self._aims[aim_of][aim] - inside + 1) / (self._signals - crowd + 2)

    def _window(self, event: Event) -> float:
        return event.at.timestamp() // self._seconds


def _first_signals(events: Sequence[Event]) -> list[Event]:
    seen: Counter[Actor] = Counter()
    first: list[Event] = []
    for event in sorted(events, key=when):
        seen[event.actor] += 1
        if seen[event.actor] <= NEW:
            first.append(event)
    return first


def _crowds(
    new: Sequence[Event], window: timedelta, history: _History
) -> Iterator[Sequence[Event]]:
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


def _unlikely(crowd: Sequence[Event], history: _History) -> Iterator[Sequence[Event]]:
    if history.chance(crowd) < chance.UNLIKELY:
        yield crowd


def _one_aim(
    crowd: Sequence[Event], aim_of: Aim, history: _History
) -> tuple[str, float, list[Event]] | None:
    """Find the aim that most of a crowd have, if it is far from what others have."""
    counted = Counter(aim_of(event) for event in crowd)
    aim, count = min(counted.items(), key=lambda one: (-one[1], one[0]))
    given = [event for event in crowd if aim_of(event) == aim]
    usual = history.rate(aim_of, aim, count, len(crowd))
    likely = chance.binomial_tail(count, len(crowd), usual)
    share = count / (len(crowd) + 1)
    stands_out = share / (1 - share) >= ODDS * usual / (1 - usual)
    if len({event.actor for event in given}) < FEWEST or 2 * count < len(crowd):
        return None
    return (aim, likely, given) if stands_out and likely < ONE_MIND else None
