"""Compare the challenger with untrained baselines: constant, nearest and few-shot answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from components.gate.report import side_by_side
from components.gate.report.words import Case, as_share, between, points
from components.scorecard import CONSTANT, FEW_SHOT, HOLDOUT, UNTRAINED, WHOLE_ANSWER, Scorecard

UNMEASURED = "not measured"

HINTS = {
    FEW_SHOT: "evaluate.num_fewshot, such as 4, measures it",
}
"""How to measure a baseline that is off by default."""


@dataclass(frozen=True, slots=True)
class Lead:
    """The challenger's lead over one baseline on one metric, with a 95 % interval."""

    baseline: str
    score: float
    difference: float
    low: float
    high: float

    @property
    def verb(self) -> str:
        """The verb for a lead whose interval includes zero."""
        return "does not beat" if self.difference <= 0 else "is not shown to beat"

    @property
    def description(self) -> str:
        """The baseline's name with its score and the difference."""
        return (
            f"{UNTRAINED[self.baseline]}, which scores {as_share(self.score)} "
            f"({points(self.difference)} points, 95 % interval {between(self.low, self.high)})"
        )


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """The challenger compared with its baselines: a table, its head first, and sentences.

    ``unbeaten`` are sentences on baselines that the challenger does not beat, or is not shown to
    beat; ``others`` are those on the beaten and the unmeasured ones.
    """

    table: list[list[str]]
    unbeaten: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All sentences, those on unbeaten baselines first."""
        return self.unbeaten + self.others


def shown(case: Case) -> list[str]:
    """Return the baselines of the table: all measured ones, and always few-shot and constant."""
    always = {CONSTANT, FEW_SHOT}
    return [name for name in UNTRAINED if name in case.others or name in always]


def baseline_scores(case: Case) -> Mapping[str, Mapping[str, float | None]]:
    """Return each baseline's scores by metric; ``None`` if not measured."""
    challenger = case.challenger.get(HOLDOUT)
    metrics = [*challenger.metrics] if challenger else []
    return {
        metric: {name: _value(case.others.get(name), metric) for name in shown(case)}
        for metric in metrics
    }


def _value(card: Scorecard | None, metric: str) -> float | None:
    score = card.scores.get(metric) if card else None
    return score.value if score else None


def table(case: Case) -> list[list[str]]:
    """Return a table's head and its rows: the challenger's and all baselines' scores by metric.

    It is empty if the challenger was not measured on the holdout.
    """
    challenger = case.challenger.get(HOLDOUT)
    if challenger is None:
        return []
    rows = [["score", *shown(case), "challenger", "n", "clusters"]]
    for metric, values in baseline_scores(case).items():
        measured = [
            sample for sample in challenger.samples if sample.scores.get(metric) is not None
        ]
        rows.append(
            [
                metric.replace("_", " "),
                *(UNMEASURED if value is None else as_share(value) for value in values.values()),
                as_share(challenger.scores[metric].value),
                str(len(measured)),
                str(len({sample.cluster_id for sample in measured})),
            ]
        )
    return rows


def hold(case: Case) -> BaselineComparison:
    """Compare the challenger with each baseline by the target and by whole-answer metrics."""
    unbeaten: list[str] = []
    beaten: list[str] = []
    for metric in _metrics(case):
        compared, plain = leads(case, metric), metric.replace("_", " ")
        unbeaten += [
            f"By {plain} the challenger {lead.verb} {lead.description}."
            for lead in compared
            if lead.low <= 0
        ]
        if below := [
            f"{UNTRAINED[lead.baseline]} ({as_share(lead.score)})"
            for lead in compared
            if lead.low > 0
        ]:
            ours = as_share(_value(case.challenger.get(HOLDOUT), metric))
            beaten.append(
                f"By {plain} the challenger, at {ours}, beats {_listed(below)}; the 95 % interval "
                "of each difference is above zero."
            )
    unmeasured = [
        f"{name} was not measured; {HINTS.get(name, 'evaluate it again')}."
        for name in shown(case)
        if name not in case.others
    ]
    return BaselineComparison(table(case), tuple(unbeaten), (*beaten, *unmeasured))


def leads(case: Case, metric: str) -> list[Lead]:
    """Compare the challenger with each baseline on one metric, request by request."""
    compared: list[Lead] = []
    for name in shown(case):
        theirs, ours = case.others.get(name), case.challenger.get(HOLDOUT)
        if theirs is None or ours is None or metric not in theirs.metrics:
            continue
        figure = side_by_side.shown_figures(_by_request(ours), _by_request(theirs), metric)
        match figure.opponent, figure.effect.difference, figure.effect.low, figure.effect.high:
            case float(score), float(difference), float(low), float(high):
                compared.append(Lead(name, score, difference, low, high))
            case _:  # measured on other requests
                pass
    return compared


def _metrics(case: Case) -> list[str]:
    challenger = case.challenger.get(HOLDOUT)
    names = dict.fromkeys((case.judgement.metric, *WHOLE_ANSWER))
    return [name for name in names if challenger and name in challenger.metrics]


def _by_request(card: Scorecard) -> Scorecard:
    # by the request alone: a few-shot prompt differs
    return replace(
        card, samples=tuple(replace(sample, doc_hash=sample.example_id) for sample in card.samples)
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
