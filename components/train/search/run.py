"""Run a search rung by rung: write trial orders, rank outcomes, prune, report."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from components.costs import Work
from components.pages import templates
from components.schema import Config, Progress
from components.store import manifest
from components.train.search import schedule
from components.train.search.schedule import PlannedTrial, SearchPlan


class TrialOrder(Config):
    """What the training of a candidate's rung is told.

    It trains until ``at_step``, to its end where that is ``None``, and no longer than until
    ``seconds`` are over, where any are given. Then its ``metric`` is measured on the validation
    side, if there is one to compare by. ``parent`` is the MLflow run of the search.
    """

    entry: PlannedTrial
    rung: int
    at_step: int | None = None
    seconds: float | None = None
    metric: str | None = None
    parent: str = ""

    @property
    def stop(self) -> int:
        """The step that it is planned to come to."""
        return self.entry.stops[self.rung]


class TrialOutcome(Config):
    """How a candidate stands after a rung, or why it does not.

    ``tokens``, ``seconds`` and ``work`` are what this rung took, the work ``None`` if its job was
    killed; ``stops.Reached`` says what the rest is.
    ``scores`` are the target metric's, by the number of a validation row, where it was measured.
    ``trouble`` is the reason of a training that failed.
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
        """The mean of the target metric; ``None`` where it was not measured."""
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else None

    @property
    def objection(self) -> str | None:
        """Say why it can't be compared; ``None`` where it can."""
        if self.trouble is None and not self.nats:
            return "no validation row fits into its max_length"
        return self.trouble


def order_file(search: Path, rung: int, key: str) -> Path:
    """Name the file of a candidate's order."""
    return search / f"rung-{rung}" / f"{key}.order.json"


def write_order(search: Path, order: TrialOrder) -> Path:
    """Write an order, and name its file."""
    path = order_file(search, order.rung, order.entry.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, order.model_dump_json(indent=2))
    return path


def outcome_file(order: Path) -> Path:
    """Name the file of what came of an order."""
    return order.with_name(order.name.replace(".order.json", ".json"))


def read_outcome(order: Path) -> TrialOutcome | None:
    """Read what came of an order; ``None`` while nothing has."""
    try:
        return TrialOutcome.model_validate_json(outcome_file(order).read_text())
    except FileNotFoundError:
        return None


def write_outcome(order: Path, came: TrialOutcome) -> None:
    """Write what came of an order; it is not carried out again."""
    manifest.write_atomically(outcome_file(order), came.model_dump_json(indent=2))


def trained_seconds(search: Path) -> float:
    """Sum the time that all candidates of a search have trained so far."""
    orders = sorted(search.glob("rung-*/*.order.json"))
    return sum(came.seconds for order in orders if (came := read_outcome(order)) is not None)


def trial_works(search: Path) -> list[Work | None]:
    """List the work that each candidate of a search took at each rung so far."""
    orders = sorted(search.glob("rung-*/*.order.json"))
    return [came.work for order in orders if (came := read_outcome(order)) is not None]


def combined_progress(orders: Sequence[TrialOrder], latest: Sequence[Progress | None]) -> Progress:
    """Return the combined progress of a rung's candidates, with the figures of one under way.

    Args:
        orders: Those of the rung.
        latest: The newest word of each one's training, ``None`` before its first.
    """
    done = [
        min(one.done, order.stop) if one else 0 for one, order in zip(latest, orders, strict=True)
    ]
    going = [
        one.figures
        for one, order in zip(latest, orders, strict=True)
        if one and one.done < order.stop
    ]
    figures = {name: value for name, value in (going or [{}])[-1].items() if name != "seconds_left"}
    rung, many = orders[0].rung, "" if len(orders) == 1 else "s"
    stage = f"rung {rung + 1}, {len(orders)} candidate{many}:" if rung >= 0 else "measuring paces:"
    return Progress(stage, sum(done), sum(order.stop for order in orders), "steps", figures)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a candidate stands at a rung, and how large its adapter is in parameters.

    ``losses`` are, by the number of a validation row, what it lost there, lower is better: what the
    target metric gave, less than it could, or the negative log-likelihood of the whole answer in
    nats. (Of a whole answer, not of a token: bases with other tokenizers write it in more tokens or
    fewer.) ``otherwise`` decides between equal means.
    """

    candidate: str
    losses: Mapping[int, float]
    size: int
    otherwise: float = 0.0


def rank_trials(standings: Sequence[TrialResult]) -> list[TrialResult]:
    """Order candidates, the best first; of those that tie with the best, the smallest comes first.

    Two tie when the better is better by no more than the standard error of the mean difference of
    their losses, row by row. A tie with a tie is none: after each place the best of the rest is
    looked for anew. That is Breiman's rule of one standard error (Classification and Regression
    Trees, 1984, section 3.4.3) on paired losses.

    Raises:
        ValueError: There is no row that all were measured on.
    """
    if standings and not set(standings[0].losses).intersection(*(one.losses for one in standings)):
        raise ValueError(
            "comparing candidates: no validation row was measured for all of them; a larger "
            "max_length would leave fewer out"
        )
    left = sorted(standings, key=lambda trial: trial.candidate)
    ranked: list[TrialResult] = []
    while left:
        means = {one.candidate: (_common_mean(one, left), one.otherwise) for one in left}
        best = min(left, key=lambda trial: means[trial.candidate])
        tied = [one for one in left if one is best or is_tied(best, one)]
        chosen = min(tied, key=lambda trial: (trial.size, *means[trial.candidate]))
        ranked.append(chosen)
        left.remove(chosen)
    return ranked


def is_tied(better: TrialResult, worse: TrialResult) -> bool:
    """Tell whether the difference of two candidates is within its standard error."""
    rows = sorted(better.losses.keys() & worse.losses.keys())
    differences = [worse.losses[row] - better.losses[row] for row in rows]
    if len(differences) < 2:
        return False
    mean = math.fsum(differences) / len(differences)
    squares = math.fsum((one - mean) ** 2 for one in differences)
    return mean <= math.sqrt(squares / (len(differences) - 1) / len(differences))


def _common_mean(trial: TrialResult, others: Sequence[TrialResult]) -> float:
    """Average over the rows that all have: what is longer than its ``max_length`` is left out."""
    rows = set(trial.losses).intersection(*(other.losses for other in others))
    return math.fsum(trial.losses[row] for row in rows) / len(rows)


TrainOrders: TypeAlias = Callable[[Sequence[TrialOrder]], Sequence[TrialOutcome]]
"""Carries orders out, beside each other where it can, and tells what came of each."""


class SearchError(RuntimeError):
    """No candidate is left; the message says what became of each."""


@dataclass(frozen=True, slots=True)
class TrialPlacement:
    """Where a candidate ended: in front, pruned for falling behind, or failed; and why."""

    entry: PlannedTrial
    ending: Literal["winner", "pruned", "failed"]
    outcome: TrialOutcome
    why: str


@dataclass(slots=True)
class _SearchState:
    """What has come of the candidates so far, and what that took."""

    plan: SearchPlan
    came: dict[str, TrialOutcome] = field(default_factory=dict[str, TrialOutcome])
    why: dict[str, str] = field(default_factory=dict[str, str])
    spent: float = 0.0

    def is_good(self, key: str) -> bool:
        return self.came[key].objection is None

    def standing(self, key: str) -> TrialResult:
        came, measure = self.came[key], self.plan.measure
        if measure.metric is None:
            return TrialResult(key, came.nats, came.parameters)
        lost = {row: measure.lost(score) for row, score in came.scores.items()}
        return TrialResult(
            key, lost, came.parameters, math.fsum(came.nats.values()) / len(came.nats)
        )


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Where all candidates ended, the winner first and what failed last, and what they took.

    ``spent`` is in the plan's unit.
    """

    places: list[TrialPlacement]
    spent: float


def run_search(plan: SearchPlan, train: TrainOrders) -> SearchResult:
    """Train and prune until one candidate has come to its end.

    Where all that went up to a rung fail there, the best of those that were pruned before it takes
    their place, as long as the budget isn't used up: so it is exceeded by one candidate's rung at
    most, and only then.

    Args:
        plan: The candidates, the rungs and the budget.
        train: Does the trainings; equal orders must have equal outcomes, so that a search that was
            killed goes on.

    Raises:
        SearchError: All failed.
    """
    state = _SearchState(plan)
    going, waiting = [one.key for one in plan.entries], list[str]()
    for rung in range(len(plan.sizes)):
        _run_rung(state, rung, going, train)
        good = [key for key in going if state.is_good(key)]
        while not good and waiting and state.spent < plan.budget:
            going = [waiting.pop(0)]
            _run_rung(state, rung, going, train)
            good = [key for key in going if state.is_good(key)]
        if not good:
            raise SearchError(_all_failed(state))
        ranked = [one.candidate for one in rank_trials([state.standing(key) for key in good])]
        size = plan.sizes[rung + 1] if rung + 1 < len(plan.sizes) else 1
        going, waiting = ranked[:size], ranked[size:]
        for place, key in enumerate(waiting, size + 1):
            state.why[key] = f"place {place} of {len(ranked)} at rung {rung + 1}"
    return SearchResult(_placements(state, going[0]), state.spent)


def _run_rung(state: _SearchState, rung: int, keys: Sequence[str], train: TrainOrders) -> None:
    """Bring candidates up to a rung, and note what came of it."""
    plan = state.plan
    left, planned = plan.budget - state.spent, plan.at_most(rung, keys)
    orders = [
        _make_order(plan, entry, rung, left, planned)
        for entry in plan.entries
        if entry.key in keys and not _is_there(state, entry, rung)
    ]
    for order, outcome in zip(orders, train(orders) if orders else [], strict=True):
        took = outcome.seconds if plan.unit == "seconds" else order.entry.costs[rung]
        state.spent += took
        state.came[order.entry.key] = outcome
        if outcome.objection:
            state.why[order.entry.key] = outcome.objection


def _is_there(state: _SearchState, entry: PlannedTrial, rung: int) -> bool:
    """Tell whether a candidate has no step to do up to a rung, so that it stands as it stood."""
    before = state.came.get(entry.key)
    if before is None or before.finished:
        return before is not None
    is_last = rung + 1 == len(state.plan.sizes)
    return not is_last and entry.stops[rung] == entry.stops[rung - 1]


def _make_order(
    plan: SearchPlan, entry: PlannedTrial, rung: int, left: float, planned: float
) -> TrialOrder:
    timed = plan.unit == "seconds"
    return TrialOrder(
        entry=entry,
        rung=rung,
        at_step=entry.stops[rung] if rung + 1 < len(plan.sizes) else None,
        seconds=schedule.allowance(left, entry.costs[rung], planned) if timed else None,
        metric=plan.measure.metric,
    )


def _placements(state: _SearchState, winner: str) -> list[TrialPlacement]:
    found = [_placement(state, entry, winner) for entry in state.plan.entries]
    return sorted(found, key=lambda place: _rank(place, state.plan))


def _rank(place: TrialPlacement, plan: SearchPlan) -> tuple[int, int, float, float]:
    loss, score = place.outcome.validation_loss, place.outcome.score
    ending = ("winner", "pruned", "failed").index(place.ending)
    lost = math.inf if score is None else plan.measure.lost(score)
    return ending, -place.outcome.rung, lost, math.inf if loss is None else loss


def _placement(state: _SearchState, entry: PlannedTrial, winner: str) -> TrialPlacement:
    outcome = state.came[entry.key]
    if entry.key == winner:
        return TrialPlacement(entry, "winner", outcome, "the best")
    ending = "pruned" if outcome.objection is None else "failed"
    return TrialPlacement(entry, ending, outcome, state.why[entry.key])


def _all_failed(state: _SearchState) -> str:
    said = [f"{one.name}: {state.why.get(one.key, 'pruned before')}" for one in state.plan.entries]
    return "\n".join(["no candidate of the search is left", *said])


def search_page(workload: str, plan: SearchPlan, result: SearchResult) -> str:
    """Write a table of the candidates, the winner first, and their share of the budget."""
    return templates.render(
        "train/search/page.md.j2",
        workload=workload,
        plan=plan,
        found=result,
        reason=placement_reason,
    )


def placement_reason(place: TrialPlacement) -> str:
    """Return the reason of an ending; not of a failure, whose message may show training data."""
    return "see the log of its job" if place.ending == "failed" else place.why
