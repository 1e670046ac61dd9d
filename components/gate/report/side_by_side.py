"""All figures of two models side by side, and the requests on which they differ."""

from dataclasses import dataclass

from components.gate import comparison, significance
from components.gate.comparability import Measured, incomparable
from components.gate.judgement import Comparison, Judgement
from components.gate.report.report_charts import Effect
from components.gate.report.words import Case
from components.scorecard import HOLDOUT, Difference, Scorecard

TAIL = 0.025  # figures that no gate judged have 95 % intervals


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one task; without a ``difference`` in its effect the two were not compared.

    ``finding`` is the gate's outcome in words if it judged the figure, ``mood`` (``good``, ``bad``
    or empty) its colour. ``level`` is the interval's coverage, as a share.
    """

    task: str
    metric: str
    meaning: str
    challenger: float | None
    opponent: float | None
    effect: Effect
    level: float
    finding: str = ""
    mood: str = ""


def figures(challenger: Measured, opponent: Measured, judgement: Judgement) -> list[Figure]:
    """Return the target, the guards, and then all other figures measured for both models."""
    judged = {(result.task, result.metric) for result in judgement.comparisons}
    listed = [_judged(result, challenger[result.task]) for result in judgement.comparisons]
    for task in [HOLDOUT, *sorted({*challenger} - {HOLDOUT})]:
        if task not in challenger or task not in opponent:
            continue
        ours, theirs = challenger[task], opponent[task]
        alike = not incomparable(ours, theirs)
        listed += [
            _shown(ours, theirs, metric, alike=alike)
            for metric in ours.metrics
            if (task, metric) not in judged and metric in theirs.scores
        ]
    return listed


def shown_figures(ours: Scorecard, theirs: Scorecard, metric: str) -> Figure:
    """Compare two models, measured on the same requests, on a metric without a judgement."""
    return _shown(ours, theirs, metric, alike=True)


def _judged(result: Comparison, card: Scorecard) -> Figure:
    since = f" since the {result.anchor}" if result.anchor else ""
    since += " by traffic" if result.by_traffic else ""
    counted = ", each request as often as it was asked" if result.by_traffic else ""
    effect = Effect(
        name=_displayed(result.task, result.metric) + since,
        kind=result.role,
        n=result.n,
        difference=result.difference,
        low=result.low,
        high=result.high,
        bound=0.0 if result.role == "target" else -result.margin,
        clusters=result.clusters,
    )
    return Figure(
        task=result.task,
        metric=result.metric,
        meaning=card.metrics[result.metric].meaning + counted,
        challenger=result.challenger,
        opponent=None if result.anchor else result.opponent,
        effect=effect,
        level=1 - 2 * result.tail,
        finding=_word(result),
        mood={"pass": "good", "fail": "bad", "inconclusive": ""}[result.outcome],
    )


def _word(result: Comparison) -> str:
    since = f" since the {result.anchor} ({result.opponent:.1%})" if result.anchor else ""
    allowed = f"{100 * result.margin:g} points"
    # What earlier bets decided has a p-value of today's look that does not show it.
    shown = f"since look {result.begun}" if result.begun else f"p = {result.deciding_p_value:.2g}"
    if result.role == "target":
        words = {
            "pass": f"better ({result.test}, {shown})",
            "fail": "not better",
            "inconclusive": f"too close to tell (p = {result.deciding_p_value:.2g})",
        }
    else:
        words = {
            "pass": f"no worse than the {allowed} allowed",
            "fail": f"worse than the {allowed} allowed",
            "inconclusive": f"not shown to be within the {allowed} allowed",
        }
    return words[result.outcome] + since


def _shown(ours: Scorecard, theirs: Scorecard, metric: str, *, alike: bool) -> Figure:
    name, score = _displayed(ours.task, metric), ours.scores[metric]
    effect = Effect(name, "shown", score.n, None, None, None, clusters=score.clusters)
    if alike and _is_share(ours, theirs, metric):
        pairs = comparison.pair_scores(ours, theirs, metric, None).pairs
        interval = significance.lead_interval(pairs, TAIL)
        effect = Effect(
            name, "shown", pairs.n, pairs.difference, *interval, clusters=len(pairs.sizes)
        )
    return Figure(
        task=ours.task,
        metric=metric,
        meaning=ours.metrics[metric].meaning,
        challenger=score.value,
        opponent=theirs.scores[metric].value,
        effect=effect,
        level=1 - 2 * TAIL,
    )


def _is_share(ours: Scorecard, theirs: Scorecard, metric: str) -> bool:
    """Return whether both measured the same requests, with scores between 0 and 1."""
    mine, other = ours.measured(metric), theirs.measured(metric)
    values = [*mine.values(), *other.values()]
    return bool(mine) and mine.keys() == other.keys() and all(0 <= value <= 1 for value in values)


def _displayed(task: str, metric: str) -> str:
    plain = metric.replace("_", " ")
    return plain if task == HOLDOUT else f"{task}: {plain}"


def differing(case: Case) -> tuple[list[Difference], list[Difference]]:
    """Return a case's lost and won held-out requests; empty if it was not compared."""
    ours, theirs = case.challenger.get(HOLDOUT), case.opponent.get(HOLDOUT)
    if ours is None or theirs is None or case.judgement.metric not in ours.metrics:
        return [], []
    return differing_requests(ours, theirs, case.judgement.metric)


def differing_requests(
    challenger: Scorecard, opponent: Scorecard, metric: str
) -> tuple[list[Difference], list[Difference]]:
    """Return the requests on which the challenger did worse, and those on which it did better.

    They are ordered by the hash of the request, which is deterministic and unbiased. Requests on
    which either model has no score are skipped.
    """
    sign = 1 if challenger.metrics[metric].higher_is_better else -1
    others = {sample.doc_hash: sample for sample in opponent.samples}
    lost: list[Difference] = []
    won: list[Difference] = []
    for ours in sorted(challenger.samples, key=lambda sample: sample.doc_hash):
        theirs = others.get(ours.doc_hash)
        mine, other = ours.scores.get(metric), theirs.scores.get(metric) if theirs else None
        if theirs is None or mine is None or other is None or mine == other:
            continue
        (won if sign * mine > sign * other else lost).append(Difference(ours, theirs))
    return lost, won


def take_turns(lost: list[Difference], won: list[Difference], count: int) -> list[Difference]:
    """Take ``count`` differences, lost and won in turns and a lost one first."""
    shorter = min(len(lost), len(won))
    turns = [difference for pair in zip(lost, won, strict=False) for difference in pair]
    return [*turns, *lost[shorter:], *won[shorter:]][:count]
