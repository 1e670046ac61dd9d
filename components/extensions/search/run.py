"""Run a search rung by rung: write trial orders, rank outcomes, prune, report."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from components.costs import Work
from components.extensions.search import schedule
from components.extensions.search.schedule import PlannedTrial, SearchPlan
from components.pages import templates
from components.schema import Config, Progress
from components.store import manifest


class TrialOrder(Config):
    """One rung of a candidate's training.

    It stops after ``at_step`` (``None``: at its end) or after ``seconds``, if set. Then ``metric``,
    if set, is measured on the validation rows. ``parent`` is the search's MLflow run.
    """

    entry: PlannedTrial
    rung: int
    at_step: int | None = None
    seconds: float | None = None
    metric: str | None = None
    parent: str = ""

    @property
    def stop(self) -> int:
        """The planned last step."""
        return self.entry.stops[self.rung]


class TrialOutcome(Config):
    """A candidate's state after a rung, or the reason of its failure (``trouble``).

    ``tokens``, ``seconds`` and ``work`` are this rung's; ``work`` is ``None`` if its job was
    killed. ``scores`` are the target metric's by validation row number, if it was measured. The
    other fields are those of ``checkpoints.TrainingProgress``.
    """

    key: str
    rung: int
    step: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    work: Work | None = None
    stepping: float = 0.0
    parameters: int = 0
    validation_loss: float | None = None
    nats: dict[int, float] = Field(default_factory=dict[int, float])
    scores: dict[int, float] = Field(default_factory=dict[int, float])
    rows: dict[str, object] = Field(default_factory=dict[str, object])
    finished: bool = False
    trouble: str | None = None

    @property
    def score(self) -> float | None:
        """The mean of the target metric; ``None`` if it was not measured."""
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else None

    @property
    def objection(self) -> str | None:
        """The reason why it can't be compared; ``None`` if it can."""
        if self.trouble is None and not self.nats:
            return "no validation row fits into its max_length"
        return self.trouble


def write_order(search: Path, order: TrialOrder) -> Path:
    """Write an order and return its file."""
    path = search / f"rung-{order.rung}" / f"{order.entry.key}.order.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, order.model_dump_json(indent=2))
    return path


def outcome_file(order: Path) -> Path:
    """Return the file of an order's outcome."""
    return order.with_name(order.name.replace(".order.json", ".json"))


def read_outcome(order: Path) -> TrialOutcome | None:
    """Read an order's outcome; ``None`` if there is none yet."""
    try:
        return TrialOutcome.model_validate_json(outcome_file(order).read_text())
    except FileNotFoundError:
        return None


def write_outcome(order: Path, outcome: TrialOutcome) -> None:
    """Write an order's outcome; the order is then not run again."""
    manifest.write_atomically(outcome_file(order), outcome.model_dump_json(indent=2))


def read_outcomes(search: Path) -> list[TrialOutcome]:
    """Read the outcomes of a search so far, of each candidate at each rung."""
    outcomes = map(read_outcome, sorted(search.glob("rung-*/*.order.json")))
    return [outcome for outcome in outcomes if outcome is not None]


def combined_progress(orders: Sequence[TrialOrder], latest: Sequence[Progress | None]) -> Progress:
    """Return the combined progress of a rung's orders, with the figures of one that is running.

    Args:
        orders: The rung's orders.
        latest: The newest progress of each, ``None`` before its first.
    """
    done, figures = 0, dict[str, float]()
    for progress, order in zip(latest, orders, strict=True):
        if progress is not None:
            done += min(progress.done, order.stop)
            if progress.done < order.stop:
                figures = {**progress.figures}
    figures.pop("seconds_left", None)
    rung, plural = orders[0].rung, "" if len(orders) == 1 else "s"
    total = sum(order.stop for order in orders)
    measured = ", being measured" if done == total else ""
    stage = f"rung {rung + 1}, {len(orders)} candidate{plural}{measured}:"
    return Progress(stage if rung >= 0 else "measuring paces:", done, total, "steps", figures)


LEAST_ROWS = 0.5
"""The least share of another candidate's rows that one must have room for: losses of all are
compared on the rows that fit into each, and a few short ones say little."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A candidate's losses at a rung and its adapter's number of parameters.

    ``losses`` are by validation row number, lower is better: the negated target metric, or the
    negative log-likelihood of the whole answer in nats (not per token, since tokenizers differ
    between bases). ``tiebreak`` are the losses that decide between equal means.
    """

    candidate: str
    losses: Mapping[int, float]
    size: int
    tiebreak: Mapping[int, float] = field(default_factory=dict[int, float])


def rank_trials(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Order candidates, the best first; among those tied with the best, the smallest is first.

    Two are tied if the better one's lead is within the standard error of the mean of their paired
    loss differences. Ties are not transitive: for each place, ties are with the best of the rest.
    That is Breiman's rule of one standard error (Classification and Regression Trees, 1984, section
    3.4.3) on paired losses.

    Raises:
        ValueError: No row was measured for all.
    """
    if results and not set(results[0].losses).intersection(*(trial.losses for trial in results)):
        raise ValueError(
            "comparing candidates: no validation row was measured for all of them; a larger "
            "max_length would leave fewer out"
        )
    left = sorted(results, key=lambda trial: trial.candidate)
    ranked: list[TrialResult] = []
    while left:
        by_metric = _common_means({trial.candidate: trial.losses for trial in left})
        by_loss = _common_means({trial.candidate: trial.tiebreak for trial in left})
        means = {name: (by_metric[name], by_loss[name]) for name in by_metric}
        best = min(left, key=lambda trial: means[trial.candidate])
        tied = [trial for trial in left if trial is best or is_tied(best, trial)]
        chosen = min(tied, key=lambda trial: (trial.size, *means[trial.candidate]))
        ranked.append(chosen)
        left.remove(chosen)
    return ranked


def is_tied(better: TrialResult, worse: TrialResult) -> bool:
    """Return whether the difference of two candidates is within its standard error."""
    rows = sorted(better.losses.keys() & worse.losses.keys())
    differences = [worse.losses[row] - better.losses[row] for row in rows]
    if len(differences) < 2:
        return False
    mean = math.fsum(differences) / len(differences)
    squares = math.fsum((difference - mean) ** 2 for difference in differences)
    return mean <= math.sqrt(squares / (len(differences) - 1) / len(differences))


def _common_means(losses: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    # rows above one candidate's max_length are missing there, so they don't count
    rows = set.intersection(*({*by_row} for by_row in losses.values()))
    return {
        name: math.fsum(by_row[row] for row in rows) / max(1, len(rows))
        for name, by_row in losses.items()
    }


TrainOrders: TypeAlias = Callable[[Sequence[TrialOrder]], Sequence[TrialOutcome]]
"""Runs trials, in parallel where possible, and returns their outcomes."""


class SearchError(RuntimeError):
    """Raised when every candidate has failed; the message has each one's reason."""


@dataclass(frozen=True, slots=True)
class TrialPlacement:
    """A candidate's final place: winner, pruned for falling behind, or failed; and the reason."""

    entry: PlannedTrial
    ending: Literal["winner", "pruned", "failed"]
    outcome: TrialOutcome
    why: str


@dataclass(slots=True)
class _SearchState:
    """The candidates' newest outcomes, and what they cost."""

    plan: SearchPlan
    outcomes: dict[str, TrialOutcome] = field(default_factory=dict[str, TrialOutcome])
    why: dict[str, str] = field(default_factory=dict[str, str])
    spent: float = 0.0

    def comparable(self, keys: Sequence[str]) -> list[str]:
        objections = self.objections(keys)
        return [key for key in keys if key not in objections]

    def objections(self, keys: Sequence[str]) -> dict[str, str]:
        """Return why candidates of a rung can't be compared with its others."""
        outcomes = {key: self.outcomes[key] for key in keys}
        failures = {key: each.objection for key, each in outcomes.items() if each.objection}
        if self.plan.measure.metric is not None:  # whose answers are to all rows
            return failures
        most = max((len(outcome.nats) for outcome in outcomes.values()), default=0)
        few = {
            key: f"only {len(outcome.nats)} of {most} validation rows fit into its max_length"
            for key, outcome in outcomes.items()
            if len(outcome.nats) < LEAST_ROWS * most
        }
        return few | failures

    def result(self, key: str) -> TrialResult:
        outcome, measure = self.outcomes[key], self.plan.measure
        if measure.metric is None:
            return TrialResult(key, outcome.nats, outcome.parameters)
        losses = {row: measure.lost(score) for row, score in outcome.scores.items()}
        return TrialResult(key, losses, outcome.parameters, outcome.nats)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All candidates' places, the winner first, failures last; ``spent`` is in the plan's unit."""

    places: list[TrialPlacement]
    spent: float


def run_search(plan: SearchPlan, train: TrainOrders) -> SearchResult:
    """Train and prune until one candidate's training is finished.

    If all candidates of a rung fail there, the best pruned ones replace them one by one while the
    budget isn't used up: only then can it be exceeded, by at most one candidate's rung.

    Args:
        plan: The candidates, the rungs and the budget.
        train: Runs trials. Equal orders must have equal outcomes, so that a killed search resumes.

    Raises:
        SearchError: All failed.
    """
    state = _SearchState(plan)
    going, waiting = [entry.key for entry in plan.entries], list[str]()
    for rung in range(len(plan.sizes)):
        _run_rung(state, rung, going, train)
        while not state.comparable(going) and waiting and state.spent < plan.budget:
            going = [waiting.pop(0)]
            _run_rung(state, rung, going, train)
        results = [state.result(key) for key in state.comparable(going)]
        if not results:
            reasons = [
                f"{entry.name}: {state.why.get(entry.key, 'pruned before')}"
                for entry in plan.entries
            ]
            raise SearchError("\n".join(["no candidate of the search is left", *reasons]))
        ranked = [trial.candidate for trial in rank_trials(results)]
        size = plan.sizes[rung + 1] if rung + 1 < len(plan.sizes) else 1
        going, waiting = ranked[:size], ranked[size:]
        for place, key in enumerate(waiting, size + 1):
            state.why[key] = f"place {place} of {len(ranked)} at rung {rung + 1}"
    places = [_placement(state, entry, going[0]) for entry in plan.entries]
    return SearchResult(sorted(places, key=lambda place: _rank(place, plan)), state.spent)


def _run_rung(state: _SearchState, rung: int, keys: Sequence[str], train: TrainOrders) -> None:
    plan, is_last = state.plan, rung + 1 == len(state.plan.sizes)
    left, planned = plan.budget - state.spent, plan.at_most(rung, keys)
    is_timed = plan.unit == "seconds"
    orders = [
        TrialOrder(
            entry=entry,
            rung=rung,
            at_step=None if is_last else entry.stops[rung],
            seconds=schedule.allowance(left, entry.costs[rung], planned) if is_timed else None,
            metric=plan.measure.metric,
        )
        for entry in plan.entries
        if entry.key in keys and not _has_no_step(state, entry, rung, is_last=is_last)
    ]
    for order, outcome in zip(orders, train(orders) if orders else [], strict=True):
        state.spent += outcome.seconds if is_timed else order.entry.costs[rung]
        state.outcomes[order.entry.key] = outcome
    state.why |= state.objections(keys)


def _has_no_step(state: _SearchState, entry: PlannedTrial, rung: int, *, is_last: bool) -> bool:
    """Return whether a candidate has nothing to train at a rung, so that its outcome stays."""
    before = state.outcomes.get(entry.key)
    if before is None or before.finished:
        return before is not None
    return not is_last and entry.stops[rung] == entry.stops[rung - 1]


def _placement(state: _SearchState, entry: PlannedTrial, winner: str) -> TrialPlacement:
    outcome = state.outcomes[entry.key]
    if entry.key == winner:
        return TrialPlacement(entry, "winner", outcome, "the best")
    ending = "pruned" if outcome.objection is None else "failed"
    return TrialPlacement(entry, ending, outcome, state.why[entry.key])


def _rank(place: TrialPlacement, plan: SearchPlan) -> tuple[int, int, float, float]:
    loss, score = place.outcome.validation_loss, place.outcome.score
    ending = ("winner", "pruned", "failed").index(place.ending)
    lost = math.inf if score is None else plan.measure.lost(score)
    return ending, -place.outcome.rung, lost, math.inf if loss is None else loss


def search_page(workload: str, plan: SearchPlan, result: SearchResult) -> str:
    """Return a Markdown table of the candidates, and how much of the budget was spent."""
    return templates.render(
        "components/extensions/search/page.md.j2",
        workload=workload,
        plan=plan,
        result=result,
        reason=placement_reason,
    )


def placement_reason(place: TrialPlacement) -> str:
    """Return a placement's reason; not that of a failure, which may show training data."""
    return "see the log of its job" if place.ending == "failed" else place.why
