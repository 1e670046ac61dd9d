"""All figures of two models side by side, and the requests on which they differ."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.gate import comparison, significance
from components.gate.comparability import Measured, incomparable
from components.gate.judgement import Comparison, Judgement
from components.gate.report.score_charts import Effect
from components.gate.report.words import Case
from components.scorecard import HOLDOUT, Difference, Scorecard

TAIL = 0.025
"""What is only shown has 95 % intervals."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one task; without a ``difference`` in its effect the two were not compared.

    ``said`` is what the gate made of it, if it was asked; ``mood`` (good, bad or none) goes with
    it. ``level`` is the interval's, as a share.
    """

    task: str
    metric: str
    meaning: str
    challenger: float | None
    opponent: float | None
    effect: Effect
    level: float
    said: str = ""
    mood: str = ""


def figures(challenger: Measured, opponent: Measured, judgement: Judgement) -> list[Figure]:
    """List the figures: the target, the guards, and then whatever else was measured of both."""
    judged = {(one.task, one.metric) for one in judgement.comparisons}
    found = [_judged(one, challenger[one.task]) for one in judgement.comparisons]
    for task in [HOLDOUT, *sorted({*challenger} - {HOLDOUT})]:
        if task not in challenger or task not in opponent:
            continue
        ours, theirs = challenger[task], opponent[task]
        alike = not incomparable(ours, theirs)
        found += [
            _shown(ours, theirs, metric, alike=alike)
            for metric in ours.metrics
            if (task, metric) not in judged and metric in theirs.scores
        ]
    return found


def side_by_side(first: Measured, second: Measured) -> list[Figure]:
    """List all figures of two models that no gate judged."""
    return figures(first, second, Judgement("inconclusive", (), ""))


def two_sided(ours: Scorecard, theirs: Scorecard, metric: str) -> tuple[str, float]:
    """Test whether two models differ on a metric: the test's name and its p-value.

    It is twice the smaller of both one-sided ones, at most 1.
    """
    pairs = comparison.pair_scores(ours, theirs, metric, None).pairs
    name, ahead = significance.superiority(pairs)
    return name, min(1.0, 2 * min(ahead, significance.inferiority(pairs)))


def shown_figures(ours: Scorecard, theirs: Scorecard, metric: str) -> Figure:
    """Compare two models on a metric, where both measured the same requests; nothing is judged."""
    return _shown(ours, theirs, metric, alike=True)


def _judged(one: Comparison, card: Scorecard) -> Figure:
    bound = 0.0 if one.role == "target" else -one.margin
    since = f" since the {one.anchor}" if one.anchor else ""
    name = named(one.task, one.metric) + since
    effect = Effect(name, one.role, one.n, one.difference, one.low, one.high, bound, one.clusters)
    mood = {"pass": "good", "fail": "bad", "inconclusive": ""}[one.outcome]
    return Figure(
        task=one.task,
        metric=one.metric,
        meaning=card.metrics[one.metric].meaning,
        challenger=one.challenger,
        opponent=None if one.anchor else one.opponent,
        effect=effect,
        level=1 - 2 * one.tail,
        said=_word(one),
        mood=mood,
    )


def _word(one: Comparison) -> str:
    """Say what the gate made of a figure, in a few words."""
    since = f" since the {one.anchor} ({one.opponent:.1%})" if one.anchor else ""
    allowed = f"{100 * one.margin:g} points"
    if one.role == "target":
        words = {
            "pass": f"better ({one.test}, p = {one.p_value:.2g})",
            "fail": "not better",
            "inconclusive": f"too close to tell (p = {one.p_value:.2g})",
        }
    else:
        words = {
            "pass": f"no worse than the {allowed} allowed",
            "fail": f"worse than the {allowed} allowed",
            "inconclusive": f"not shown to be within the {allowed} allowed",
        }
    return words[one.outcome] + since


def _shown(ours: Scorecard, theirs: Scorecard, metric: str, *, alike: bool) -> Figure:
    name, score = named(ours.task, metric), ours.scores[metric]
    effect = Effect(name, "shown", score.n, None, None, None, clusters=score.clusters)
    if alike and _is_share(ours, theirs, metric):
        paired = comparison.pair_scores(ours, theirs, metric, None)
        low, high = significance.lead_interval(paired.pairs, TAIL)
        pairs = paired.pairs
        effect = Effect(
            name, "shown", pairs.n, pairs.difference, low, high, clusters=len(pairs.sizes)
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
    """Tell whether both measured the same requests, with scores between zero and one."""
    mine, other = dict(_measured(ours, metric)), dict(_measured(theirs, metric))
    values = [*mine.values(), *other.values()]
    return bool(mine) and mine.keys() == other.keys() and all(0 <= one <= 1 for one in values)


def _measured(card: Scorecard, metric: str) -> Iterator[tuple[str, float]]:
    for sample in card.samples:
        score = sample.scores.get(metric)
        if score is not None:
            yield sample.doc_hash, score


def named(task: str, metric: str) -> str:
    """Name a figure as a reader would."""
    plain = metric.replace("_", " ")
    return plain if task == HOLDOUT else f"{task}: {plain}"


def differing(case: Case) -> tuple[list[Difference], list[Difference]]:
    """Return the held-out requests of a case that ``apart`` finds; empty if it was not compared."""
    ours, theirs = case.challenger.get(HOLDOUT), case.opponent.get(HOLDOUT)
    if ours is None or theirs is None or case.judgement.metric not in ours.metrics:
        return [], []
    return differing_requests(ours, theirs, case.judgement.metric)


def differing_requests(
    challenger: Scorecard, opponent: Scorecard, metric: str
) -> tuple[list[Difference], list[Difference]]:
    """Return the requests that the challenger did worse on, and those that it did better on.

    Their order is by the hash of the request: the same each time, and in favour of nobody. What one
    of the two was not asked, or not scored on, is neither.
    """
    sign = 1 if challenger.metrics[metric].higher_is_better else -1
    others = {sample.doc_hash: sample for sample in opponent.samples}
    lost: list[Difference] = []
    won: list[Difference] = []
    for ours in sorted(challenger.samples, key=lambda one: one.doc_hash):
        theirs = others.get(ours.doc_hash)
        mine, other = ours.scores.get(metric), theirs.scores.get(metric) if theirs else None
        if theirs is None or mine is None or other is None or mine == other:
            continue
        (won if sign * mine > sign * other else lost).append(Difference(ours, theirs))
    return lost, won


def take_turns(lost: list[Difference], won: list[Difference], count: int) -> list[Difference]:
    """Take from both by turns, a lost one first: whoever decides should see both."""
    shorter = min(len(lost), len(won))
    turns = [one for both in zip(lost, won, strict=False) for one in both]
    return [*turns, *lost[shorter:], *won[shorter:]][:count]
