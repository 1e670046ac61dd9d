"""What a canary may do and show, frozen before it answers anybody.

Alpha is split between the kinds of bad events and the check of the draws, by their weights: then
the chance of any false rollback is at most alpha, whatever they have to do with each other (Boole's
inequality). A mean of their evidence would be a little sharper, but has no guarantee: a
conversation's second event, of another kind, comes from an arm that the first one has revealed, so
the evidence about one kind is no martingale once the others are known (Choe and Ramdas 2024,
"Combining evidence across filtrations", arXiv:2402.09698). To go on, every decisive kind has to be
shown to be within the margin, each at alpha: no split is needed for that (Berger 1982,
Technometrics 24:295).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from components.serve.canary import count_evidence
from components.serve.canary.bad_events import BadKind
from components.serve.canary.count_evidence import Floats

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class KindRule:
    """How one kind of bad event is judged."""

    kind: BadKind

    weight: float
    """Its part of alpha."""

    harmless: float = 1.0
    """The largest ratio of risks at which a rollback is a false alarm."""

    window_seconds: float | None = None
    """When a conversation's events are counted; as they come if ``None`` (``bad_events.count``)."""


# Malformed answers are what a new adapter breaks first. Errors and cut answers of a broken version
# are many times as frequent, so that a small weight costs them a few events; the limit of slow
# answers is the champion's own 95th percentile, so that they are many.
KINDS = (
    KindRule("invalid", 0.6),
    KindRule("error", 0.08),
    KindRule("cut", 0.08),
    KindRule("slow", 0.08, harmless=1.1),
    KindRule("disliked", 0.11),
)
DRAWS_WEIGHT = 0.05
"""The part of alpha of the check that conversations are drawn with their shares."""


@dataclass(frozen=True, slots=True)
class ShareStep:
    """The canary's share for a time; the last one holds until the verdict."""

    share: float
    seconds: float


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """A canary's plan; nothing in it changes after the start."""

    workload: str
    version: str
    champion: str
    steps: tuple[ShareStep, ...]
    """Rising shares above 0 and below 1."""

    deadline_seconds: float
    """When it is undecided, counted from the start."""

    alpha: float = 0.05
    """The largest chance of a false rollback, and of going on with a version that is worse than the
    margin, each over all looks."""

    margin: float = 1.5
    """The ratio of risks that has to be ruled out before the version answers everybody."""

    kinds: tuple[KindRule, ...] = KINDS

    decisive: tuple[BadKind, ...] = ()
    """The kinds that have to be shown to be within the margin: those frequent enough for it."""

    def __post_init__(self) -> None:
        shares = [step.share for step in self.steps]
        if not shares or shares != sorted({*shares}) or not 0 < shares[0] <= shares[-1] < 1:
            raise ValueError(f"expected rising shares above 0 and below 1, found {shares}")
        if any(step.seconds <= 0 for step in self.steps):
            raise ValueError("expected steps that last for more than 0 seconds")
        if self.deadline_seconds <= sum(step.seconds for step in self.steps[:-1]):
            raise ValueError("expected a deadline after the beginning of the last step")
        if not 0 < self.alpha < 1:
            raise ValueError(f"expected an alpha between 0 and 1, found {self.alpha}")
        if any(self.margin <= rule.harmless for rule in self.kinds):
            raise ValueError(f"expected a margin above what is harmless, found {self.margin}")
        names = [rule.kind for rule in self.kinds]
        if len(names) != len({*names}) or not {*self.decisive} <= {*names}:
            raise ValueError("expected each kind once, and decisive kinds among them")
        weights = [rule.weight for rule in self.kinds]
        if min(weights, default=1) <= 0 or math.fsum(weights) + DRAWS_WEIGHT > 1 + 1e-9:
            most = 1 - DRAWS_WEIGHT
            raise ValueError(f"expected weights above 0, in all at most {most:g}, found {weights}")

    @property
    def windows(self) -> dict[BadKind, float]:
        """The windows of the kinds that have one, as ``bad_events.count`` takes them."""
        return {
            rule.kind: rule.window_seconds for rule in self.kinds if rule.window_seconds is not None
        }

    def share_at(self, elapsed: float) -> float:
        """Return the canary's share so many seconds after the start."""
        for step in self.steps[:-1]:
            if elapsed < step.seconds:
                return step.share
            elapsed -= step.seconds
        return self.steps[-1].share


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
    """The smallest ratio of ``LADDER`` that is rolled back with a chance of ``CHANCE``; ``None`` if
    even the largest is not."""

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
        next((ratio for ratio in LADDER if found(ratio)), None),
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
