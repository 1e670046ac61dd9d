"""The verdict on a canary, with every number that it was made of.

It is a function of the plan, the counts and the time alone, so that whoever looks, whenever and
however often, and after any crash, comes to the same one. ``decide_rollout`` is the way in, with
the shadow; ``EvidenceReader`` counts a file of evidence as it grows.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, cast

from components.extensions.canary import count_evidence, rollout_evidence
from components.extensions.canary.count_evidence import ArmCounts, RolloutCounts, ShareCounts
from components.extensions.canary.rollout_order import (
    DRAWS_WEIGHT,
    KindRule,
    RolloutOrder,
    RolloutPlan,
    ShareStep,
)
from components.extensions.canary.rollout_tally import SHADOW_SHARE, RolloutTally
from components.schema import Json
from components.serve.rollout_settings import BadKind

Outcome: TypeAlias = Literal["running", "hold", "roll back", "undecided"]
"""``hold``: it is shown to be within the margin, and may go on to everybody. ``undecided``: the
deadline came before either was shown, or kinds that can't be shown look worse; people decide."""

MAX_LATE = 0.05  # of an arm's events
MAX_EVIDENCE = 1e300  # what is written for evidence beyond it: JSON has no infinity


@dataclass(frozen=True, slots=True)
class KindEvidence:
    """What the counts of one kind show; an evidence that reaches its bound decides."""

    kind: BadKind
    canary: int
    champion: int

    expected_canary: float
    """The canary's events that its shares would have of all of them, if the arms were alike."""

    seems_worse: bool
    """Whether the canary has more events, by more than one, than it would at the margin. It proves
    nothing, and is enough to leave the version to people."""

    worse: float
    """The evidence that the canary is worse than harmless."""

    worse_bound: float

    within: float
    """The evidence that it is within the margin."""

    within_bound: float
    is_decisive: bool

    ratio_low: float
    ratio_high: float | None
    """The ratios of risks that are not ruled out; the lower end is above what is harmless just if
    the canary is rolled back for this kind. ``None`` if every large ratio is possible."""

    is_settled: bool = True
    """Whether nearly all events of either arm come within the kind's window, as far as it shows.
    Else the arm whose events come later would seem better, and the kind decides nothing."""

    @property
    def is_worse(self) -> bool:
        """Whether the canary is shown to be worse than harmless."""
        return self.is_settled and self.worse >= self.worse_bound

    @property
    def is_within(self) -> bool:
        """Whether it is shown to be within the margin."""
        return self.is_settled and self.within >= self.within_bound


@dataclass(frozen=True, slots=True)
class RolloutVerdict:
    """A verdict and its reason, frozen when it was made."""

    outcome: Outcome
    reason: str
    elapsed: float
    """Seconds since the start."""

    share: float
    """The canary's share at this time."""

    conversations: ArmCounts
    """Conversations whose arm was drawn."""

    left_out: int
    """Conversations that count only up to a change of arm, or of share."""

    uneven: float
    """The evidence that conversations were not drawn with their shares."""

    uneven_bound: float
    kinds: tuple[KindEvidence, ...]
    plan: RolloutPlan

    def to_json(self) -> dict[str, Json]:
        """Return all of it for the journal and the chain of decisions."""
        return cast(dict[str, Json], asdict(self))


def decide(plan: RolloutPlan, counts: RolloutCounts, elapsed: float) -> RolloutVerdict:
    """Return the verdict so many seconds after the start; the first final one counts."""
    kinds = tuple(_evidence(plan, rule, counts, elapsed) for rule in plan.kinds)
    uneven = _bounded(count_evidence.log_evidence_uneven(counts.conversations))
    uneven_bound = 1 / (plan.alpha * DRAWS_WEIGHT)
    drawn = {share: each for share, each in counts.conversations.items() if 0 < share < 1}
    outcome, reason = _outcome(plan, kinds, elapsed)
    if uneven >= uneven_bound:
        outcome, reason = "roll back", _uneven_reason(counts.conversations)
    return RolloutVerdict(
        outcome,
        reason,
        elapsed,
        plan.share_at(elapsed),
        count_evidence.total(drawn),
        counts.left_out,
        uneven,
        uneven_bound,
        kinds,
        plan,
    )


def _outcome(
    plan: RolloutPlan, kinds: tuple[KindEvidence, ...], elapsed: float
) -> tuple[Outcome, str]:
    worse = [each for each in kinds if each.is_worse]
    if worse:
        return "roll back", "; ".join(_worse_reason(each) for each in worse)
    open_kinds = [each.kind for each in kinds if each.is_decisive and not each.is_within]
    unsettled = [each for each in kinds if not each.is_settled]
    others = [each for each in kinds if not each.is_decisive]
    doubtful = [each for each in others if each.seems_worse]
    is_over = elapsed >= plan.deadline_seconds
    blocked = open_kinds or doubtful or unsettled
    if plan.decisive and not blocked and (is_over or not others):
        shown = f"less than {plan.margin:g} times the champion's risk is shown: "
        shown += ", ".join(plan.decisive)
        unshown = ", ".join(_counts(each) for each in others)
        return "hold", f"{shown}; not shown, but no more by count: {unshown}" if others else shown
    missing = list[str]()
    if not plan.decisive:
        missing.append(f"no kind was frequent enough for the margin of {plan.margin:g}")
    if open_kinds:
        names = ", ".join(open_kinds)
        missing.append(f"not shown to be within the margin of {plan.margin:g}: {names}")
    if doubtful:
        seen = ", ".join(_counts(each) for each in doubtful)
        missing.append(f"more than {plan.margin:g} times the champion's by count: {seen}")
    if unsettled:
        seen = ", ".join(_counts(each) for each in unsettled)
        missing.append(f"too much comes, or may come, after the time that is waited for: {seen}")
    if not missing:
        missing.append("kinds that are too rare to be shown are watched until the deadline")
    return ("undecided" if is_over else "running"), "; ".join(missing)


def _counts(each: KindEvidence) -> str:
    return f"{each.kind} ({each.canary} of the canary, {each.champion} of the champion)"


def _worse_reason(each: KindEvidence) -> str:
    return (
        f"{each.kind}: {each.canary} bad conversations of the canary and {each.champion} of the "
        f"champion, where {each.expected_canary:.1f} of them would be its share; at least "
        f"{each.ratio_low:.3g} times the champion's risk"
    )


def _uneven_reason(conversations: ShareCounts) -> str:
    parts = [
        f"{each.canary} of {each.canary + each.champion} at {share:.3g}"
        for share, each in sorted(conversations.items())
    ]
    return (
        f"conversations were not drawn with their shares, so nothing is shown: {'; '.join(parts)}"
    )


def _evidence(
    plan: RolloutPlan, rule: KindRule, all_counts: RolloutCounts, elapsed: float
) -> KindEvidence:
    counts, late = all_counts.bad.get(rule.kind, {}), all_counts.late.get(rule.kind, ArmCounts())
    level = plan.alpha * rule.weight
    both = count_evidence.total(counts)
    low, high = count_evidence.ratio_interval(counts, level, plan.alpha)
    return KindEvidence(
        kind=rule.kind,
        canary=both.canary,
        champion=both.champion,
        expected_canary=_expected_canary(counts, 1.0),
        seems_worse=both.canary > 1 + _expected_canary(counts, plan.margin),
        worse=_bounded(count_evidence.log_evidence_above(counts, rule.harmless)),
        worse_bound=1 / level,
        within=_bounded(count_evidence.log_evidence_below(counts, plan.margin)),
        within_bound=1 / plan.alpha,
        is_decisive=rule.kind in plan.decisive,
        ratio_low=low,
        ratio_high=high,
        is_settled=elapsed >= plan.settled_from(rule)
        and _few(late.canary, both.canary)
        and _few(late.champion, both.champion),
    )


def _few(late: int, in_time: int) -> bool:
    return late <= max(1, MAX_LATE * (late + in_time))


def _expected_canary(counts: ShareCounts, ratio: float) -> float:
    """Return the canary's part of all events if its risk were so many times the champion's."""
    return math.fsum(
        (each.canary + each.champion) * share * ratio / (share * ratio + 1 - share)
        for share, each in counts.items()
    )


def _bounded(log_evidence: float) -> float:
    if log_evidence >= math.log(MAX_EVIDENCE):
        return MAX_EVIDENCE
    return math.exp(log_evidence)


CHUNK = 2**16  # bytes that are counted at once: requests wait for it some milliseconds

FEWEST_ANSWERS = 20  # of one conversation, before that is worth a word
ONE_CONVERSATION = (
    "all answers are of one conversation, which one arm has: name conversations, such as by the "
    "header `x-conversation-id`"
)

SHADOWED_KINDS = frozenset({"invalid", "cut"})
"""What a shadow can show: nobody sees its answers, and it waits for the others."""


class EvidenceReader:
    """Counts a file of evidence as it grows; what was counted ends with a line."""

    def __init__(self, path: Path, order: RolloutOrder) -> None:
        self.path, self.counted_bytes = path, 0
        self.order, self.tally = order, RolloutTally(order.plan.windows)

    def read_on(self) -> bool:
        """Count the next lines; return whether there may be more. ``OSError``: it can't be read."""
        with self.path.open("rb") as file:
            file.seek(self.counted_bytes)
            chunk = file.read(CHUNK)
        lines = chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True)
        if not lines and len(chunk) == CHUNK:  # nobody of ours wrote a line so long
            lines = [chunk]
        for content in lines:
            self.counted_bytes += len(content)
            if (line := rollout_evidence.read_line(content)) is not None:
                self.tally.add(line)
        return len(chunk) == CHUNK

    def look(self, elapsed: float) -> dict[str, Json]:
        """Return the verdict on what was counted, and what its shadow shows."""
        return {
            "verdict": decide_rollout(self.order, self.tally, elapsed).to_json(),
            "shadow": _shadow(self.order, self.tally, elapsed),
            "evidence_bytes": self.counted_bytes,
        }


def decide_rollout(order: RolloutOrder, tally: RolloutTally, elapsed: float) -> RolloutVerdict:
    """Return the verdict on a canary and its shadow.

    With a shadow each has half of alpha, so that the chance of any false rollback stays below it.
    """
    plan = order.plan
    if order.shadow:
        plan = replace(plan, alpha=plan.alpha / 2)
    verdict = decide(plan, tally.counts(elapsed), elapsed)
    shadow = shadow_verdict(order, tally, elapsed)
    if shadow is not None and shadow.outcome == "roll back" and verdict.outcome != "roll back":
        return replace(verdict, outcome="roll back", reason=f"in its shadow, {shadow.reason}")
    drawn = verdict.conversations
    if drawn.canary + drawn.champion == 1 and tally.answers >= FEWEST_ANSWERS:
        verdict = replace(verdict, reason=f"{verdict.reason}; {ONE_CONVERSATION}")
    return verdict


def shadow_verdict(
    order: RolloutOrder, tally: RolloutTally, elapsed: float
) -> RolloutVerdict | None:
    """Return what the shadow alone shows; ``None`` if there is no shadow."""
    kinds = tuple(rule for rule in order.plan.kinds if rule.kind in SHADOWED_KINDS)
    if not order.shadow or not kinds:
        return None
    plan: RolloutPlan = replace(
        order.plan,
        steps=(ShareStep(SHADOW_SHARE, 1.0),),
        alpha=order.plan.alpha / 2,
        kinds=kinds,
        decisive=(),
    )
    return decide(plan, tally.shadow_counts(), elapsed)


def _shadow(order: RolloutOrder, tally: RolloutTally, elapsed: float) -> Json:
    verdict = shadow_verdict(order, tally, elapsed)
    if verdict is None:
        return None
    counts = tally.shadow_counts().bad
    totals = {kind: count_evidence.total(shares) for kind, shares in counts.items()}
    kinds: dict[str, Json] = {
        each.kind: {
            "canary": totals[each.kind].canary if each.kind in totals else 0,
            "champion": totals[each.kind].champion if each.kind in totals else 0,
            "worse": each.worse,
            "worse_bound": each.worse_bound,
            "ratio_low": each.ratio_low,
            "ratio_high": each.ratio_high,
        }
        for each in verdict.kinds
    }
    return {"asked": tally.shadowed, "kinds": kinds}
