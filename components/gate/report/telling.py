"""Tell a case in words that need no statistics: what came of it, what would change, for whom."""

from collections.abc import Sequence
from itertools import groupby

from components.gate.judgement import Comparison, Slice
from components.gate.report.case import Case
from components.gate.report.numbers import between, points
from components.pages.charts import size

MANY_PARTS = 6
"""More parts of the traffic than this are told in the table only."""


def sentence(case: Case) -> str:
    """Say in one sentence what the gate found."""
    target, judgement = case.judgement.target, case.judgement
    who = case.subject.opponent_name
    if target is None:
        return f"The challenger was not compared with the {who}, so it does not pass."
    metric = target.name.replace("_", " ")
    lead = (
        f"{points(target.difference)} points of {metric} against the {who} on {target.n} "
        f"held-out requests in {target.clusters} clusters ({100 - 200 * target.tail:.4g} % "
        f"interval {between(target.low, target.high)})"
    )
    if judgement.outcome == "pass":
        safe = _safe(judgement.comparisons[1:])
        return f"The challenger is better: {lead}{safe}{_price(case)}."
    if judgement.outcome == "fail":
        return f"The challenger should not replace the {who}: {lead}; why is below."
    if judgement.more_needed is None:
        return f"It can't be told yet: {lead}, and no number of requests is in sight to decide it."
    return (
        f"It can't be told yet: {lead}. About {judgement.more_needed} more requests would decide."
    )


def _safe(guards: Sequence[Comparison]) -> str:
    if not guards:
        return ""
    figures = len({(one.task, one.metric) for one in guards})
    told = "one guarded figure was" if figures == 1 else f"{figures} guarded figures were"
    anchor = next((one.anchor for one in guards if one.anchor), "")
    since = f", nor since the {anchor}" if anchor else ""
    return f", and {told} shown not to get worse{since}"


def _price(case: Case) -> str:
    fraction = case.costs.bill.fraction.value
    return "" if fraction is None else f", at {fraction:.1%} of production's price of a request"


def change(case: Case) -> list[str]:
    """Say what an approval would change, and for which parts of the traffic."""
    subject, target = case.subject, case.judgement.target
    lines = [
        f"On approval, adapter {subject.adapter} answers the requests of {subject.workload} in "
        f"place of the {subject.opponent_name}. On a rejection everything stays as it is."
    ]
    if target is None:
        return lines
    same = target.n - target.wins - target.losses
    lines.append(
        f"Of {target.n} held-out requests, {target.wins} would be answered better than now, "
        f"{target.losses} worse, and {same} alike."
    )
    return [*lines, *_for_whom(case.judgement.slices), _worse(case.judgement.slices)]


def _for_whom(slices: tuple[Slice, ...]) -> list[str]:
    told: list[str] = []
    for name, group in groupby(slices, key=lambda one: one.name):
        parts = [*group]
        if len(parts) <= MANY_PARTS:
            said = ", ".join(
                f"{one.value} {points(one.difference)} ({size(one.n, one.clusters)})"
                for one in parts
            )
            told.append(f"By {name}, in points: {said}.")
    return told


def _worse(slices: tuple[Slice, ...]) -> str:
    worse = [f"{one.name} {one.value}" for one in slices if one.is_worse]
    if worse:
        return f"It is significantly worse for: {', '.join(worse)}."
    if not slices:
        return "The traffic has no parts that are large enough to be looked at by themselves."
    return f"None of {len(slices)} parts of the traffic is significantly worse."
