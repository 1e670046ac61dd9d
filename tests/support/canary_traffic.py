"""Simulated canaries: traffic and risks change by the hour, shares rise, feedback comes late."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.extensions.canary import count_evidence
from components.extensions.canary.count_evidence import ArmCounts, ShareCounts

Floats = NDArray[np.float64]

HOURS = 72
RAMP = np.array([0.01] * 6 + [0.1] * 18 + [0.5] * 48)
"""Two ramps: 1 %, from the seventh hour 10 %, from the second day 50 %."""


@dataclass(frozen=True)
class CanaryTraffic:
    """What is simulated; a delay is the mean of an exponential, in hours."""

    risk: float
    ratio: float = 1.0
    an_hour: int = 60
    shares: Floats = field(default_factory=lambda: RAMP)
    drift: float = 0.25
    canary_delay: float = 0.0
    champion_delay: float = 0.0


@dataclass(frozen=True)
class BadEventsInOrder:
    """The bad events of many runs in the order of their arrival, and the counts of each hour."""

    run: NDArray[np.int64]
    arrival: Floats
    share: Floats
    is_canary: NDArray[np.bool_]
    conversations: NDArray[np.int64]
    """Conversations: runs, hours, arms; the canary's arm is 1."""

    bad: NDArray[np.int64]

    def cumulative(self, share: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Return the counts of both arms after each event, and the shares, for an e-process."""
        share = self.share if share is None else share
        levels = np.unique(share)
        before = np.searchsorted(self.run, self.run)
        counts: list[Floats] = []
        for arm in (self.is_canary, ~self.is_canary):
            here = (arm[:, None] & (share[:, None] == levels)).astype(np.float64)
            sums = np.vstack([np.zeros(len(levels)), here.cumsum(axis=0)])
            counts.append(sums[1:] - sums[before])
        return counts[0], counts[1], levels

    def first(self, is_reached: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Floats]:
        """Return for each run the number of events until one is reached and its time; 0, inf."""
        count = self.conversations.shape[0]
        number, at = np.zeros(count, dtype=np.int64), np.full(count, np.inf)
        hits = np.flatnonzero(is_reached)
        runs, first = np.unique(self.run[hits], return_index=True)
        number[runs] = hits[first] - np.searchsorted(self.run, runs) + 1
        at[runs] = self.arrival[hits[first]]
        return number, at


def simulate(
    traffic: CanaryTraffic, runs: int, seed: int, window: float | None = None
) -> BadEventsInOrder:
    """Draw runs: who answers each conversation, whether that goes wrong, and when it is known.

    With a window, in hours, events are known when the conversation is that old, or never.
    """
    random = np.random.default_rng(seed)
    hours = len(traffic.shares)
    day = 1 + 0.8 * np.sin(np.arange(hours) * 2 * np.pi / 24)
    walk = random.normal(0, traffic.drift, (runs, hours)).cumsum(axis=1)
    risk = np.clip(traffic.risk * np.exp(walk - walk.mean(axis=1, keepdims=True)), 0, 0.5)
    begun = random.poisson(traffic.an_hour * day, (runs, hours))
    canary = random.binomial(begun, traffic.shares)
    conversations = np.stack([begun - canary, canary], axis=-1)
    risks = np.stack([risk, np.minimum(1.0, risk * traffic.ratio)], axis=-1)
    bad = random.binomial(conversations, risks)
    cells = np.repeat(np.arange(bad.size), bad.ravel())
    run, hour, arm = np.unravel_index(cells, bad.shape)
    delay = np.where(arm == 1, traffic.canary_delay, traffic.champion_delay)
    waited = random.exponential(1.0, len(cells)) * delay
    arrival = hour + random.random(len(cells)) + (waited if window is None else window)
    kept = arrival < hours
    if window is not None:
        kept &= waited <= window
    order = np.lexsort((arrival[kept], run[kept]))
    return BadEventsInOrder(
        run[kept][order],
        arrival[kept][order],
        traffic.shares[hour[kept][order]],
        arm[kept][order] == 1,
        conversations,
        bad,
    )


def log_evidence(
    counts: tuple[Floats, Floats, Floats], against: Callable[[ShareCounts], float]
) -> Floats:
    """Return the log evidence of each row of counts of both arms, whose columns are the shares."""
    canary, champion, shares = counts
    rows, place = np.unique(np.stack([canary, champion], axis=1), axis=0, return_inverse=True)
    levels = shares.tolist()
    evidence = [
        against(dict(zip(levels, map(ArmCounts, *row), strict=True))) for row in rows.tolist()
    ]
    return np.array(evidence)[place.ravel()]


def rolled_back(
    events: BadEventsInOrder, level: float, harmless: float = 1.0
) -> tuple[NDArray[np.int64], Floats]:
    """Return after how many bad events, and when, each run is rolled back; 0 and inf if not."""
    evidence = log_evidence(
        events.cumulative(), lambda counts: count_evidence.log_evidence_above(counts, harmless)
    )
    return events.first(evidence >= -np.log(level))


def held(events: BadEventsInOrder, level: float, margin: float) -> NDArray[np.bool_]:
    """Return which runs are ever shown to be within the margin."""
    evidence = log_evidence(
        events.cumulative(), lambda counts: count_evidence.log_evidence_below(counts, margin)
    )
    return events.first(evidence >= -np.log(level))[0] > 0


@functools.cache
def reached(share: float, n: int, level: float) -> NDArray[np.int64]:
    """Return how many of n bad events are the canary's where the evidence stops it."""
    counts = ({share: ArmCounts(k, n - k)} for k in range(n + 1))
    evidence = np.array([count_evidence.log_evidence_above(each, 1.0) for each in counts])
    return np.flatnonzero(evidence >= -np.log(level))


def exact_stops(share: float, ratio: float, level: float, most: int) -> Floats:
    """Return the chance of a rollback after 1, 2, ... bad events, exactly, for a constant share."""
    q = share * ratio / (share * ratio + 1 - share)
    chance, stopped = np.zeros(most + 1), np.zeros(most)
    chance[0] = 1.0
    for n in range(1, most + 1):
        chance = chance * (1 - q) + np.concatenate([[0.0], chance[:-1]]) * q
        stops = reached(share, n, level)
        stopped[n - 1] = chance[stops].sum()
        chance[stops] = 0.0
    return stopped.cumsum()
