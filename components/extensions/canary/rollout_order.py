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

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from components.extensions.canary import count_evidence
from components.extensions.canary.count_evidence import ArmCounts
from components.extensions.canary.latency_limits import LatencyLimits
from components.serve.rollout_settings import (
    HOUR,
    LARGEST_MARGIN,
    LONGEST_SECONDS,
    MAX_STEPS,
    BadKind,
    CanarySettings,
)
from components.validation_messages import describe_mistake

Z_80 = 0.8416  # standard deviations that a normal variable is below with a chance of 80 %
FIRST_DAY = 24 * HOUR
"""Before it nobody knows that votes don't come later than they used to."""


@dataclass(frozen=True, slots=True)
class KindRule:
    """How one kind of bad event is judged."""

    kind: BadKind

    weight: float
    """Its part of alpha."""

    harmless: float = 1.0
    """The largest ratio of risks at which a rollback is a false alarm."""

    window_seconds: float | None = None
    """When a conversation's events are counted, those that came by then; as they come if ``None``.

    That is right if how long they take doesn't depend on the arm."""


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
    """Rising shares below 1. Only the first may be 0: nobody is answered by the canary yet, and it
    can only be shadowed."""

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
        is_rising = bool(shares) and shares == sorted({*shares})
        if not is_rising or not (0 <= shares[0] <= shares[-1] < 1 and shares[-1] > 0):
            raise ValueError(
                "expected rising shares below 1, the first at least 0 and the last above it, "
                f"found {shares}"
            )
        if len(shares) > MAX_STEPS:
            raise ValueError(f"expected at most {MAX_STEPS} steps, found {len(shares)}")
        if not all(0 < step.seconds <= LONGEST_SECONDS for step in self.steps):
            raise ValueError("expected steps of more than 0 seconds and at most a year")
        begin = sum(step.seconds for step in self.steps[:-1])
        if not begin < self.deadline_seconds <= LONGEST_SECONDS:
            raise ValueError(
                "expected a deadline after the beginning of the last step, and within a year"
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"expected an alpha between 0 and 1, found {self.alpha}")
        if not all(rule.harmless < self.margin <= LARGEST_MARGIN for rule in self.kinds):
            raise ValueError(
                f"expected a margin above what is harmless and at most {LARGEST_MARGIN:g}, found "
                f"{self.margin}"
            )
        if not all(rule.harmless >= 1 for rule in self.kinds):
            raise ValueError("expected kinds that are harmless at the champion's own risk")
        windows = [rule.window_seconds for rule in self.kinds if rule.window_seconds is not None]
        if not all(0 < seconds <= LONGEST_SECONDS for seconds in windows):
            raise ValueError("expected windows of more than 0 seconds and at most a year")
        names = [rule.kind for rule in self.kinds]
        if len(names) != len({*names}) or not {*self.decisive} <= {*names}:
            raise ValueError("expected each kind once, and decisive kinds among them")
        weights = [rule.weight for rule in self.kinds]
        is_split = math.fsum(weights) + DRAWS_WEIGHT <= 1 + 1e-9  # not of NaN
        if not is_split or min(weights, default=1) <= 0:
            most = 1 - DRAWS_WEIGHT
            raise ValueError(f"expected weights above 0, in all at most {most:g}, found {weights}")

    @property
    def windows(self) -> dict[BadKind, float]:
        """The windows of the kinds that have one."""
        return {
            rule.kind: rule.window_seconds for rule in self.kinds if rule.window_seconds is not None
        }

    @property
    def requirement(self) -> str:
        """What makes the version champion."""
        if not self.decisive:
            return (
                "the traffic before it was too thin for any kind to decide: it can be rolled back, "
                "and else ends undecided, when `flywheel serve canary stop` sends it on or back"
            )
        shown = f"less than {self.margin:g} times the champion's risk of {', '.join(self.decisive)}"
        return f"it becomes champion once this is shown: {shown}"

    def settled_from(self, rule: KindRule) -> float:
        """Return from when on it shows whether a kind's events come within its window."""
        if rule.window_seconds is None:
            return 0.0
        return max(2 * rule.window_seconds, min(FIRST_DAY, self.deadline_seconds / 2))

    def share_at(self, elapsed: float) -> float:
        """Return the canary's share so many seconds after the start."""
        for step in self.steps[:-1]:
            if elapsed < step.seconds:
                return step.share
            elapsed -= step.seconds
        return self.steps[-1].share

    def with_decisive_kinds(
        self, conversations_an_hour: float, risks: Mapping[BadKind, float]
    ) -> "RolloutPlan":
        """Return the plan with the kinds that this traffic shows to be within the margin in time.

        That is if the versions are alike, with a chance of some 80 %. Without any such kind the
        canary can only be rolled back or end undecided: say so before it starts.
        """
        expected = {
            rule.kind: self._expected(rule, conversations_an_hour * risks.get(rule.kind, 0.0))
            for rule in self.kinds
        }
        bound = -math.log(self.alpha)
        decisive = tuple(
            kind
            for kind, counts in expected.items()
            if count_evidence.log_evidence_below(counts, self.margin) >= bound
        )
        return replace(self, decisive=decisive)

    def _expected(self, rule: KindRule, an_hour: float) -> dict[float, ArmCounts]:
        """Return counts of which the canary has so many with a chance of 20 %."""
        begin, until = 0.0, self.deadline_seconds - (rule.window_seconds or 0.0)
        events = dict[float, float]()
        for step in self.steps:
            is_last = step is self.steps[-1]
            end = max(begin, until if is_last else min(until, begin + step.seconds))
            events[step.share] = an_hour / HOUR * (end - begin)
            begin = end
        variances = {share: share * (1 - share) * number for share, number in events.items()}
        deviation = Z_80 / math.sqrt(sum(variances.values()) or 1.0)
        counts = dict[float, ArmCounts]()
        for share, number in events.items():
            canary = min(number, share * number + deviation * variances[share])
            counts[share] = ArmCounts(round(canary), round(number - canary))
        return counts


MAX_CHARACTERS = 4_000
"""The longest text; old MLflow servers refuse a tag of more than 5,000 characters."""

_ID = re.compile(r"[0-9a-f]{12}")


class RolloutOrderError(ValueError):
    """Raised when a text is not an order, or an order is too long for a tag."""


def plan_of(
    settings: CanarySettings,
    workload: str,
    version: str,
    champion: str,
    dislike_seconds: float | None = None,
) -> RolloutPlan:
    """Return the plan of a canary, before anything is known of its traffic.

    ``dislike_seconds``: how old a conversation is when nearly all of its dislikes have come.
    """
    windows: dict[BadKind, float] = {"disliked": dislike_seconds or 24 * HOUR}
    if settings.windows is not None:
        windows = {kind: hours * HOUR for kind, hours in settings.windows.items()}
    windows = {kind: min(each, settings.deadline_seconds / 2) for kind, each in windows.items()}
    begun = sum(step.duration or 0.0 for step in settings.steps[:-1])
    rest = settings.deadline_seconds - begun
    return RolloutPlan(
        workload,
        version,
        champion,
        tuple(ShareStep(step.share, step.duration or rest) for step in settings.steps),
        settings.deadline_seconds,
        settings.alpha,
        settings.margin,
        tuple(replace(rule, window_seconds=windows.get(rule.kind)) for rule in KINDS),
    )


# Fields that this Flywheel doesn't know are refused: it could not do what they ask for.
@with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True, slots=True)
class RolloutOrder:
    """One start of a canary."""

    id: str
    """12 random hex digits."""

    plan: RolloutPlan

    limits: LatencyLimits | None
    """From when on an answer is slow; ``None`` if the champion gave too few: no answer is then."""

    started_at: str
    """When a person's approval started it: ISO 8601 with its time zone."""

    shadow: float = 0.0
    """The share of the champion's requests that the canary's version answers, too, for nobody."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"expected an id of 12 hex digits, found {self.id!r}")
        if not 0 <= self.shadow <= 1:
            raise ValueError(f"expected a shadow from 0 to 1, found {self.shadow}")
        if datetime.fromisoformat(self.started_at).tzinfo is None:
            raise ValueError(f"expected a start with its time zone, found {self.started_at!r}")
        for name, number in (("version", self.plan.version), ("champion", self.plan.champion)):
            if not (number.isascii() and number.isdecimal()):
                raise ValueError(f"expected the number of a {name}, found {number!r}")
        if self.plan.version == self.plan.champion:
            raise ValueError(f"version {self.plan.version} can't be its own champion")

    def to_text(self) -> str:
        """Return the tag's value; raise ``RolloutOrderError`` if it is too long."""
        text = json.dumps(asdict(self), separators=(",", ":"))
        if len(text) > MAX_CHARACTERS:
            raise RolloutOrderError(
                f"the order of a canary has {len(text)} characters, expected at most "
                f"{MAX_CHARACTERS}; plan fewer steps"
            )
        return text


_READER = TypeAdapter(RolloutOrder)


def read(text: str) -> RolloutOrder:
    """Return the order that a tag has.

    Raises:
        RolloutOrderError: It is not an order, with the reason.
    """
    if len(text) > MAX_CHARACTERS:
        raise RolloutOrderError(f"reading a canary's order: it has {len(text)} characters")
    try:
        return _READER.validate_json(text)
    except ValidationError as error:
        mistake = describe_mistake(error.errors()[0])
        raise RolloutOrderError(f"reading a canary's order: {mistake}") from error
