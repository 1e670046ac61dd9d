"""Look at a canary's evidence: count what is new, and come to the verdict on all of it."""

from dataclasses import replace
from pathlib import Path

from components.schema import Json
from components.serve.canary import bad_events, rollout_evidence, rollout_verdict
from components.serve.canary.rollout_order import RolloutOrder
from components.serve.canary.rollout_plan import RolloutPlan, ShareStep
from components.serve.canary.rollout_tally import SHADOW_SHARE, RolloutTally
from components.serve.canary.rollout_verdict import RolloutVerdict

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
            "verdict": decide(self.order, self.tally, elapsed).to_json(),
            "shadow": _shadow(self.order, self.tally, elapsed),
            "evidence_bytes": self.counted_bytes,
        }


def decide(order: RolloutOrder, tally: RolloutTally, elapsed: float) -> RolloutVerdict:
    """Return the verdict on a canary and its shadow.

    With a shadow each has half of alpha, so that the chance of any false rollback stays below it.
    """
    plan = order.plan
    if order.shadow:
        plan = replace(plan, alpha=plan.alpha / 2)
    verdict = rollout_verdict.decide(plan, tally.counts(elapsed), elapsed)
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
    return rollout_verdict.decide(plan, tally.shadow_counts(), elapsed)


def _shadow(order: RolloutOrder, tally: RolloutTally, elapsed: float) -> Json:
    verdict = shadow_verdict(order, tally, elapsed)
    if verdict is None:
        return None
    counts = tally.shadow_counts().bad
    totals = {kind: bad_events.total(shares) for kind, shares in counts.items()}
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
