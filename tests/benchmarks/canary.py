"""Hold the canary's promises against simulated ones; ``python -m tests.benchmarks.canary``.

Each canary has three days of traffic with two ramps (1 %, 10 % after six hours, 50 % after a day),
traffic that changes over the day and risks that wander by the hour; thumbs come six hours late on
average. Canaries like the champion must be rolled back no more often than alpha, looked at after
every bad event, and those that are worse by the margin must go on no more often. Beside them stand
a score test at the deadline alone, the same test at every hour, and Mann-Whitney's test of the
hourly rates at every hour (M-W, at 95 % as in Kayenta). That one compares arms of equal size, so
both arms also have half of the traffic each, from the start.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import typer
from numpy.typing import NDArray
from scipy import stats

from components.extensions.canary import conversation_arms, count_evidence
from components.extensions.canary.conversation_arms import RunningConversations
from components.extensions.canary.rollout_order import DRAWS_WEIGHT, KINDS, KindRule
from components.serve.rollout_settings import BadKind
from tests.support import canary_traffic
from tests.support.canary_traffic import BadEventsInOrder, CanaryTraffic, Floats

ALPHA, MARGIN = 0.05, 1.5
CHUNK = 1_000  # runs that are simulated at once
KAYENTA = 0.025  # of a two-sided test at 95 %
HALF = np.full(canary_traffic.HOURS, 0.5)
FIRST_LOOK = 8  # the first hour at which Mann-Whitney's test has enough rates
RULES = {rule.kind: rule for rule in KINDS}
USUAL: dict[BadKind, CanaryTraffic] = {
    "invalid": CanaryTraffic(0.02),
    "error": CanaryTraffic(0.005),
    "cut": CanaryTraffic(0.01),
    "slow": CanaryTraffic(0.05),
    "disliked": CanaryTraffic(0.01, canary_delay=6.0, champion_delay=6.0),
}
WORSE: tuple[tuple[BadKind, float, int], ...] = (
    ("invalid", 2.0, 60),
    ("invalid", 3.0, 60),
    ("error", 10.0, 60),
    ("cut", 3.0, 60),
    ("slow", 1.5, 60),
    ("slow", 2.0, 60),
    ("disliked", 2.0, 60),
    ("disliked", 2.0, 240),
    ("disliked", 3.0, 60),
)
"""Kinds, ratios of risks, and conversations an hour."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Detected:
    """What a method made of one run each: whether it rolled back, after what, and when."""

    by_evidence: Flags
    events: NDArray[np.int64]
    hour: Floats
    conversations: Floats
    at_deadline: Flags
    each_hour: Flags
    mann_whitney: Flags


def simulated(traffic: CanaryTraffic, rule: KindRule, runs: int, seed: int) -> Detected:
    """Return what each method makes of so many runs."""
    parts = [
        _detected(canary_traffic.simulate(traffic, CHUNK, seed * 1_000 + number), traffic, rule)
        for number in range(math.ceil(runs / CHUNK))
    ]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])[:runs]
        for name in Detected.__dataclass_fields__
    }
    return Detected(**joined)


def _detected(events: BadEventsInOrder, traffic: CanaryTraffic, rule: KindRule) -> Detected:
    level = ALPHA * rule.weight
    number, hour = canary_traffic.rolled_back(events, level, rule.harmless)
    begun = events.conversations.sum(axis=-1).cumsum(axis=1)
    last = np.minimum(np.ceil(hour), begun.shape[1]).astype(np.int64) - 1
    reached: Flags = _score_tests(events, traffic, rule.harmless) >= stats.norm.isf(level)
    return Detected(
        number > 0,
        number,
        hour,
        begun[np.arange(len(begun)), last].astype(np.float64),
        reached[:, -1],
        np.logical_or.reduce(reached, axis=1),
        _mann_whitney(events),
    )


def _score_tests(events: BadEventsInOrder, traffic: CanaryTraffic, ratio: float) -> Floats:
    """Return each hour's score statistic of the events so far: the canary's beyond its part."""
    hours = len(traffic.shares)
    p = events.share
    q = p * ratio / (p * ratio + 1 - p)
    cells = events.run, np.minimum(events.arrival.astype(np.int64), hours - 1)
    excess, variance = np.zeros((2, len(events.conversations), hours))
    np.add.at(excess, cells, events.is_canary - q)
    np.add.at(variance, cells, q * (1 - q))
    return excess.cumsum(axis=1) / np.sqrt(np.maximum(variance.cumsum(axis=1), 1e-9))


def _mann_whitney(events: BadEventsInOrder) -> Flags:
    # a missing rate is 0, as Kayenta's default for counters
    rates = events.bad / np.maximum(events.conversations, 1)
    reached = np.zeros(len(rates), dtype=np.bool_)
    for hour in range(FIRST_LOOK, rates.shape[1] + 1):
        tested = stats.mannwhitneyu(
            rates[:, :hour, 1],
            rates[:, :hour, 0],
            alternative="greater",
            axis=1,
            method="asymptotic",
        )
        reached |= tested.pvalue <= KAYENTA
    return reached


def like_the_champion(runs: int) -> Iterator[bool]:
    """Roll back canaries whose risks are just harmless."""
    typer.echo(f"\nno worse than harmless, {runs} canaries, alpha {ALPHA:g}: rolled back")
    typer.echo(f"{'':<12}{'level':>8}{'evidence':>10}{'deadline':>10}{'hourly':>8}{'M-W':>8}")
    anyone, peers = np.zeros(runs, dtype=np.bool_), np.zeros((3, runs), dtype=np.bool_)
    for seed, (kind, traffic) in enumerate(USUAL.items()):
        rule = RULES[kind]
        result = simulated(replace(traffic, ratio=rule.harmless), rule, runs, seed)
        anyone |= result.by_evidence
        theirs = np.stack([result.at_deadline, result.each_hour, result.mann_whitney])
        peers |= theirs
        _row(kind, ALPHA * rule.weight, [result.by_evidence, *theirs])
        yield _is_at_most(result.by_evidence, ALPHA * rule.weight)
    uneven = _uneven(0.0, runs)
    _row("draws", ALPHA * DRAWS_WEIGHT, [uneven])
    anyone |= uneven
    _row("any", ALPHA, [anyone, *peers])
    yield _is_at_most(anyone, ALPHA)


def _row(name: str, level: float, shares: list[Flags]) -> None:
    typer.echo(f"{name:<12}{level:>8.4f}" + "".join(f"{each.mean():>9.4f} " for each in shares))


def _is_at_most(flags: Flags, level: float) -> bool:
    return bool(flags.mean() <= level + 3 * math.sqrt(level * (1 - level) / len(flags)))


def worse_than_the_margin(runs: int) -> Iterator[bool]:
    """Let canaries go on that are worse by just the margin."""
    typer.echo(
        f"\n{MARGIN:g} times the risk, the margin: shown to be within it (at most {ALPHA:g})"
    )
    for seed, (kind, traffic) in enumerate(USUAL.items()):
        parts = [
            canary_traffic.held(
                canary_traffic.simulate(replace(traffic, ratio=MARGIN), CHUNK, 50 + seed + number),
                ALPHA,
                MARGIN,
            )
            for number in range(0, 100 * math.ceil(runs / CHUNK), 100)
        ]
        held = np.concatenate(parts)[:runs]
        typer.echo(f"{kind:<12}{held.mean():>8.4f}")
        yield _is_at_most(held, ALPHA)


def power(runs: int) -> None:
    """Print how often and how soon worse canaries are found."""
    typer.echo(f"\nworse, {runs} canaries each: share rolled back; by evidence the median")
    header = "".join(f"{name:>10}" for name in ("evidence", "deadline", "hourly", "M-W"))
    late = "".join(f"{name:>9}" for name in ("events", "hour", "conv."))
    typer.echo(f"{'kind, ratio, conversations/hour':<34}{header}{late}")
    for seed, (kind, ratio, an_hour) in enumerate(WORSE):
        traffic = replace(USUAL[kind], ratio=ratio, an_hour=an_hour)
        result = simulated(traffic, RULES[kind], runs, 100 + seed)
        methods = (result.by_evidence, result.at_deadline, result.each_hour, result.mann_whitney)
        shares = "".join(f"{flags.mean():>10.3f}" for flags in methods)
        hit = result.by_evidence
        medians = (
            "".join(
                f"{np.median(values[hit]):>9.0f}"
                for values in (result.events, result.hour, result.conversations)
            )
            if hit.any()
            else ""
        )
        typer.echo(f"{f'{kind}, {ratio:g}, {an_hour}':<34}{shares}{medians}")


def equal_arms(runs: int) -> None:
    """Print false alarms and power where both arms have half of the traffic from the start."""
    typer.echo(f"\nhalf of the traffic each, {runs} canaries: share rolled back")
    header = "".join(f"{name:>10}" for name in ("evidence", "deadline", "hourly", "M-W"))
    typer.echo(f"{'kind, ratio':<34}{header}")
    kinds: tuple[BadKind, ...] = ("invalid", "slow")
    for seed, kind in enumerate(kinds):
        for ratio in (1.0, 1.5, 2.0, 3.0):
            traffic = replace(USUAL[kind], ratio=ratio, shares=HALF)
            result = simulated(traffic, RULES[kind], runs, 400 + seed)
            methods = (result.by_evidence, result.at_deadline, result.each_hour)
            shares = "".join(f"{f.mean():>10.4f}" for f in (*methods, result.mann_whitney))
            typer.echo(f"{f'{kind}, {ratio:g}':<34}{shares}")


def constant_share(runs: int) -> Iterator[bool]:
    """Find three times as many invalid answers at 10 %, within 40 bad events (median)."""
    rule = RULES["invalid"]
    exact = canary_traffic.exact_stops(0.1, 3.0, ALPHA * rule.weight, 150)
    median = int((exact < 0.5).sum()) + 1
    traffic = CanaryTraffic(0.02, 3.0, 200, np.full(72, 0.1))
    result = simulated(traffic, rule, runs, 200)
    simulated_median = float(np.median(result.events[result.by_evidence]))
    typer.echo(
        f"\ninvalid 3 times at 10 %: median {median} bad events exactly, {simulated_median:.0f} of "
        f"{runs} simulated ({result.by_evidence.mean():.3f} found, median "
        f"{np.median(result.conversations[result.by_evidence]):.0f} conversations)"
    )
    yield median <= 40


def stickiness(conversations: int = 30_000) -> Iterator[bool]:
    """Serve conversations of three turns over both ramps with the code that assigns them."""
    running, seed = RunningConversations(), bytes(range(32))
    shares = (0.01, 0.1, 0.5)
    moved = 0
    for number in range(conversations):
        who = conversation_arms.identify(seed, "shop", [], str(number))
        turns = [running.assign(who, share) for share in shares[number % 3 :]]
        moved += len({*turns}) > 1
    typer.echo(f"\nmoved in a ramp: {moved} of {conversations} conversations")
    yield moved == 0


def _uneven(excess: float, runs: int, an_hour: int = 60) -> Flags:
    # whether the check of draws is ever reached, at the end of each hour
    random = np.random.default_rng(300)
    shares = canary_traffic.RAMP
    begun = random.poisson(an_hour, (runs, len(shares)))
    canary = random.binomial(begun, shares * (1 + excess))
    levels = np.unique(shares)
    at = (shares[:, None] == levels).astype(np.float64)
    ours, theirs = ((drawn[..., None] * at).cumsum(axis=1) for drawn in (canary, begun - canary))
    bound, evidence = -math.log(ALPHA * DRAWS_WEIGHT), count_evidence.log_evidence_uneven
    runs_of_hours = zip(ours, theirs, strict=True)
    return np.array(
        [
            bool((canary_traffic.log_evidence((*arms, levels), evidence) >= bound).any())
            for arms in runs_of_hours
        ]
    )


def broken_assignments(runs: int) -> Iterator[bool]:
    """Find gateways that send the canary more or less than its share."""
    typer.echo("\ndraws that differ from the share by a factor: found")
    for excess in (-1.0, -0.2, -0.1, 0.1, 0.2, 0.5):
        found = _uneven(excess, runs)
        typer.echo(f"{1 + excess:<12g}{found.mean():>8.4f}")
        if abs(excess) >= 0.2:
            yield bool(found.mean() > 0.95)


def main(runs: int = 10_000) -> None:
    """Print all of it; end with 1 if a promise was not kept.

    Args:
        runs: Canaries that are simulated for false decisions; a tenth of them for power.
    """
    fewer = max(100, runs // 10)
    kept = [*like_the_champion(runs), *worse_than_the_margin(runs)]
    power(fewer)
    equal_arms(runs // 5)
    kept += [*constant_share(fewer), *stickiness(), *broken_assignments(fewer)]
    typer.echo(f"\n{sum(kept)} of {len(kept)} promises kept")
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    typer.run(main)
