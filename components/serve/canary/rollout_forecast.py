"""What a canary can show with a workload's traffic, simulated before it starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from components.serve.canary import count_evidence
from components.serve.canary.bad_events import BadKind
from components.serve.canary.count_evidence import Floats
from components.serve.canary.rollout_plan import HOUR, KindRule, RolloutPlan


@dataclass(frozen=True, slots=True)
class ExpectedTraffic:
    """What a workload's traffic was before the canary."""

    conversations_an_hour: float

    risks: Mapping[BadKind, float]
    """The champion's share of conversations with a bad event, by kind; 0 if left out."""


@dataclass(frozen=True, slots=True)
class KindForecast:
    """What the traffic can show about one kind until the deadline."""

    kind: BadKind

    events: float
    """Expected events of both arms if they are alike."""

    detectable: float | None
    """The smallest ratio of ``LADDER``, from the margin on, that is rolled back with a chance of
    ``CHANCE``; ``None`` if even the largest is not."""

    hold_chance: float
    """The chance that a version with the champion's risk is shown to be within the margin."""


CHANCE = 0.8
LADDER = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0)
RUNS = 500  # a chance of 80 % is known to 1.8 points
LOOKS = 20  # per step
SEED = 23


def forecast(plan: RolloutPlan, traffic: ExpectedTraffic) -> list[KindForecast]:
    """Return what this traffic can show, from simulated canaries with a fixed seed."""
    return [_forecast(plan, rule, traffic) for rule in plan.kinds]


def with_decisive_kinds(plan: RolloutPlan, forecasts: list[KindForecast]) -> RolloutPlan:
    """Return the plan with the kinds that can be shown to be within the margin in time.

    Without any the canary can only be rolled back or end undecided: say so before it starts.
    """
    decisive = tuple(each.kind for each in forecasts if each.hold_chance >= CHANCE)
    return replace(plan, decisive=decisive)


def describe(forecasts: list[KindForecast], margin: float) -> list[str]:
    """Return a sentence for each kind, for people who are about to start a canary."""
    return [_sentence(each, margin) for each in forecasts]


def _sentence(each: KindForecast, margin: float) -> str:
    events = f"{each.kind}: some {each.events:.0f} bad conversations until the deadline"
    if each.detectable is None:
        shown = f"too few to find even {LADDER[-1]:g} times as many"
    else:
        shown = f"{each.detectable:g} times as many would be found"
    held = "can be shown" if each.hold_chance >= CHANCE else "can't be shown"
    return f"{events}, {shown}; less than {margin:g} times as many {held}"


def _forecast(plan: RolloutPlan, rule: KindRule, traffic: ExpectedTraffic) -> KindForecast:
    risk = traffic.risks.get(rule.kind, 0.0)
    shares, seconds = _slices(plan, plan.deadline_seconds - (rule.window_seconds or 0.0))
    expected = traffic.conversations_an_hour / HOUR * seconds
    worse = -math.log(plan.alpha * rule.weight)

    def counts(ratio: float) -> tuple[Floats, Floats]:
        random = np.random.default_rng(SEED)
        canary = random.poisson(expected * shares * min(1.0, risk * ratio), (RUNS, len(shares)))
        champion = random.poisson(expected * (1 - shares) * risk, (RUNS, len(shares)))
        return canary.astype(np.float64), champion.astype(np.float64)

    def found(ratio: float) -> bool:
        levels, (canary, champion) = np.unique(shares), counts(ratio)
        evidence = count_evidence.log_evidence_above(
            _by_level(canary, shares), _by_level(champion, shares), levels, rule.harmless
        )
        return bool((evidence.max(axis=1, initial=0.0) >= worse).mean() >= CHANCE)

    canary, champion = counts(1.0)
    within = count_evidence.log_evidence_below(
        _by_level(canary, shares), _by_level(champion, shares), np.unique(shares), plan.margin
    )
    held = (within.max(axis=1, initial=0.0) >= -math.log(plan.alpha)).mean()
    return KindForecast(
        rule.kind,
        float(expected.sum()) * risk,
        # what is worse by less than the margin may become champion before it is found
        next((ratio for ratio in LADDER if ratio >= plan.margin and found(ratio)), None),
        float(held),
    )


def _slices(plan: RolloutPlan, until: float) -> tuple[Floats, Floats]:
    # the share and the length of each time between two looks
    shares, seconds, begin = list[float](), list[float](), 0.0
    for number, step in enumerate(plan.steps):
        is_last = number == len(plan.steps) - 1
        end = max(begin, until if is_last else min(until, begin + step.seconds))
        shares += [step.share] * LOOKS
        seconds += [(end - begin) / LOOKS] * LOOKS
        begin = end
    return np.array(shares), np.array(seconds)


def _by_level(counts: Floats, shares: Floats) -> Floats:
    # cumulative counts after each look: runs, looks, shares
    levels = np.unique(shares)
    return (counts[:, :, None] * (shares[:, None] == levels)).cumsum(axis=1)
