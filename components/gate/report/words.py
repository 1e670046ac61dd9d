"""A case, which is all that a report shows, and its numbers and sentences in plain words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from components.costs import Costs
from components.gate.comparability import Measured
from components.gate.evidence_folder import EvidenceSubject
from components.gate.judgement import Comparison, Judgement, Slice, Terms
from components.gate.report.report_charts import Past
from components.pages.charts import size
from components.scorecard import Scorecard


def as_share(value: float | None) -> str:
    """Format a score: in percent if it is between 0 and 1."""
    if value is None:
        return "not measured"
    return f"{value:.1%}" if 0 <= value <= 1 else f"{value:.4g}"


def percent(value: float) -> str:
    """Format a share of any size in percent, with three significant digits."""
    return f"{100 * value:.3g}%" if 100 * value < 1000 else f"{100 * value:,.0f}%"


def points(difference: float | None) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    return "" if difference is None else f"{100 * difference:+.1f}"


def between(low: float | None, high: float | None) -> str:
    """Format the interval of a difference in percentage points."""
    return "" if low is None or high is None else f"{points(low)} to {points(high)}"


def counted(clusters: int | None) -> str:
    """Format a number of clusters; ``unknown`` of a score without them."""
    return "unknown" if clusters is None else str(clusters)


FORMATS = {"as_share": as_share, "between": between, "counted": counted, "points": points}
"""What the templates of report and brief format figures with."""


def term_sentences(judgement: Judgement) -> list[str]:
    """Return sentences on changes since the policy was sealed and on earlier looks."""
    terms = judgement.terms
    if terms is None:
        return []
    if not terms.changes:
        return [_holdout_uses(terms, judgement.look)]
    since = f"first used on {terms.changed_at}" if terms.changed_at else "not used by a look yet"
    changed = (
        f"the policy was changed after it was sealed on {terms.sealed_at} (decision "
        f"{terms.decision}), {since}: {'; '.join(terms.changes)}"
    )
    return [changed, _holdout_uses(terms, judgement.look)]


def _holdout_uses(terms: Terms, look: int) -> str:
    count = {0: "no look", 1: "1 look"}.get(terms.looks, f"{terms.looks} looks")
    earlier = max(0, look - 1 - terms.looks)
    doubled = f" and {earlier} before it doubled, after which numbers go on" if earlier else ""
    others = f" (including those of {', '.join(terms.others)})" if terms.others else ""
    return (
        f"a policy was sealed on {terms.sealed_at} (decision {terms.decision}) before the first "
        f"look at holdout version {terms.holdout_version} of {terms.workload}: alpha "
        f"{terms.alpha:g} for all looks, of which {terms.left:.4g} was left for this one; this "
        f"home recorded {count} at this holdout before{others}{doubled}, and looks of other homes "
        "are not known"
    )


@dataclass(frozen=True, slots=True)
class Case:
    """The compared models, their judgement, and everything else that a report shows.

    ``challenger`` and ``opponent`` are scorecards by task; ``others`` are scorecards of the holdout
    by the name of another measured model (``base``, ``production``). ``counts`` are the snapshot's
    rows by verdict of the rules; ``learned`` are sentences on the rows that training left out;
    ``references`` are sentences on those that our own versions answered. ``note`` is the workload's
    own; ``turns`` are those before this one.
    """

    subject: EvidenceSubject
    judgement: Judgement
    digest: str
    challenger: Measured
    opponent: Measured
    costs: Costs
    others: Mapping[str, Scorecard] = field(default_factory=dict[str, Scorecard])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    learned: Sequence[str] = ()
    references: Sequence[str] = ()
    turns: Sequence[Past] = ()
    note: str = ""


MANY_PARTS = 6  # if the traffic has more parts than this they are in the table only


def verdict_sentence(case: Case) -> str:
    """Return the gate's judgement as a sentence."""
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
        return f"The challenger is better by the references: {lead}{safe}{_price(case)}."
    if judgement.outcome == "fail":
        return f"The challenger should not replace the {who}: {lead}; the reasons are below."
    undecided = {
        (result.task, result.by_traffic)
        for result in judgement.comparisons
        if result.outcome == "inconclusive"
    }
    # guards by traffic or on other tasks, or too few requests for any pass
    if undecided != {(target.task, False)}:
        return f"It is undecided: {lead}; the reasons are below."
    if judgement.more_needed is None:
        return f"It is undecided: {lead}, and no realistic number of requests would decide it."
    return f"It is undecided: {lead}. About {judgement.more_needed} more requests would decide."


def _safe(guards: Sequence[Comparison]) -> str:
    if not guards:
        return ""
    figures = len({(guard.task, guard.metric) for guard in guards})
    figures_text = "one guarded figure was" if figures == 1 else f"{figures} guarded figures were"
    anchor = next((guard.anchor for guard in guards if guard.anchor), "")
    since = f", nor since the {anchor}" if anchor else ""
    return f", and {figures_text} shown not to get worse{since}"


def _price(case: Case) -> str:
    fraction = case.costs.bill.fraction.value
    return "" if fraction is None else f", at {fraction:.1%} of production's price of a request"


def change_sentence(case: Case) -> list[str]:
    """Return sentences on what an approval would change, and for which parts of the traffic."""
    subject, target = case.subject, case.judgement.target
    lines = [
        f"On approval, adapter {subject.adapter} answers the requests of {subject.workload} in "
        f"place of the {subject.opponent_name}. On a rejection nothing changes."
    ]
    if target is None:
        return lines
    same = target.n - target.wins - target.losses
    lines.append(
        f"Of {target.n} held-out requests, {target.wins} would be answered better than now, "
        f"{target.losses} worse, and {same} equally well."
    )
    parts = [*_for_whom(case.judgement.slices), _worse_parts(case.judgement.slices)]
    return [*lines, *case.references, *parts]


def _for_whom(slices: tuple[Slice, ...]) -> list[str]:
    sentences: list[str] = []
    for name, group in groupby(slices, key=lambda part: part.name):
        parts = [*group]
        if len(parts) <= MANY_PARTS:
            listed = ", ".join(
                f"{part.value} {points(part.difference)} ({size(part.n, part.clusters)})"
                for part in parts
            )
            sentences.append(f"By {name}, in points: {listed}.")
    return sentences


def _worse_parts(slices: tuple[Slice, ...]) -> str:
    worse = [f"{part.name} {part.value}" for part in slices if part.is_worse]
    if worse:
        return f"It is significantly worse for: {', '.join(worse)}."
    if not slices:
        return "No part of the traffic is large enough to be compared separately."
    return f"None of {len(slices)} parts of the traffic is significantly worse."
