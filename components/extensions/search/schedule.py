"""The schedule of a search: rungs within a budget, and the metric to compare by."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, pairwise
from math import ceil
from pathlib import Path

from components.schema import Config
from components.train.candidates import SearchCandidate, SearchSettings
from components.train.recipe import EXAMPLE_KNOBS, Recipe

FEWEST = 20  # validation rows: with fewer, a single request is more than five points

ONLY_BY_METRIC = frozenset(EXAMPLE_KNOBS)
"""Settings that the loss can't rate, since they weigh tokens or rows against one another."""


class SearchMetricError(ValueError):
    """Raised when the validation rows can't rate the settings to try."""


class SearchMetric(Config):
    """The metric that candidates are compared by; ``None`` for the loss, ``why`` has the reason.

    ``rows`` is the number of validation rows that measure it.
    """

    metric: str | None = None
    higher_is_better: bool = True
    rows: int = 0
    why: str = ""

    def lost(self, score: float) -> float:
        """Return a score as a loss: lower is better."""
        return -score if self.higher_is_better else score


def choose_metric(
    metric: str | None, rows: int, tried: Collection[str], *, higher_is_better: bool
) -> SearchMetric:
    """Choose the target metric, or the loss if too few rows measure it.

    Args:
        metric: The target; ``None`` if the validation rows do not measure it.
        rows: The number of validation rows that measure it.
        tried: The settings that the search tries.
        higher_is_better: The metric's direction.

    Raises:
        SearchMetricError: Only the metric could rate these settings, and too few rows measure it.
    """
    if metric is not None and rows >= FEWEST:
        return SearchMetric(metric=metric, higher_is_better=higher_is_better, rows=rows)
    why = (
        "the target is not measured on the workload's own requests"
        if metric is None
        else f"{rows} validation rows measure {metric}, at least {FEWEST} are required"
    )
    if hidden := sorted(ONLY_BY_METRIC.intersection(tried)):
        raise SearchMetricError(
            f"searching over {', '.join(hidden)}: {why}, and the loss does not show what these "
            "settings are worth; raise validation_share under curate, curate more traffic, or "
            "leave them out of over"
        )
    return SearchMetric(rows=rows, why=why)


SHARE_PARTS = 1000  # the factor of the trainings' lengths is a multiple of one thousandth

Costs = Sequence[Sequence[float]]  # of each candidate at each rung, beyond the rungs before


class BudgetError(ValueError):
    """Raised when the budget is too small for a single step of each candidate."""


@dataclass(frozen=True, slots=True)
class Rung:
    """``size`` candidates train until ``share`` of their whole training is done."""

    size: int
    share: Fraction


def plan_rungs(candidates: int, eta: int) -> list[Rung]:
    """Return the rungs: each divides the candidates by ``eta`` and multiplies the share by it."""
    sizes = [candidates]
    while sizes[-1] > 1:
        sizes.append(max(1, sizes[-1] // eta))
    last = len(sizes) - 1
    return [Rung(size, Fraction(1, eta ** (last - rung))) for rung, size in enumerate(sizes)]


def stop_at(share: Fraction, steps: int) -> int:
    """Return the step after which ``share`` of a training's ``steps`` are done, at least 1."""
    return min(steps, max(1, ceil(share * steps)))


def worst_cost(costs: Costs, sizes: Sequence[int]) -> float:
    """Return a search's maximum cost: that of promoting the most expensive at each rung."""
    return sum(
        sum(sorted((by_rung[rung] for by_rung in costs), reverse=True)[:size])
        for rung, size in enumerate(sizes)
    )


def shorten_trainings(
    cost_of: Callable[[Fraction], Costs], sizes: Sequence[int], budget: float
) -> Fraction:
    """Return the largest factor of all trainings' lengths, at most 1, that keeps the budget.

    Args:
        cost_of: Returns the costs for a factor; they increase with it.
        sizes: The number of candidates at each rung.
        budget: In the unit of the costs.

    Raises:
        BudgetError: Even the smallest factor exceeds the budget.
    """

    def total_cost(parts: int) -> float:
        return worst_cost(cost_of(Fraction(parts, SHARE_PARTS)), sizes)

    affordable = bisect_right(range(1, SHARE_PARTS + 1), budget, key=total_cost)
    if not affordable:
        raise BudgetError(
            f"the shortest possible search takes {ceil(total_cost(1))}, the budget is {budget:g}"
        )
    return Fraction(affordable, SHARE_PARTS)


def allowance(left: float, own: float, planned: float) -> float:
    """Return a rung's share of the remaining budget, in proportion to its planned cost.

    Rungs slower than planned then can't use up more than what remains, all together.

    Args:
        left: The remaining budget.
        own: The planned cost of this candidate's rung.
        planned: The maximum planned cost of this rung and everything after it.
    """
    return max(0.0, left) * (own / planned if planned else 1.0)


BUDGET_SHARE = 0.9  # of a budget in minutes is planned: a pace measured briefly may slow down


@dataclass(frozen=True, slots=True)
class TrainingPace:
    """A base's pace, measured on a few steps; ``overhead`` is a run's seconds outside its steps."""

    overhead: float
    tokens_per_second: float

    def seconds(self, tokens: int) -> float:
        """Return the duration of a run; 0 without tokens, since it isn't started."""
        return self.overhead + tokens / self.tokens_per_second if tokens else 0.0


class PlannedTrial(Config):
    """A candidate in the plan, with its recipe shortened; ``stops`` and ``costs`` are by rung."""

    key: str
    name: str
    base: Path
    recipe: Recipe
    stops: tuple[int, ...]
    costs: tuple[float, ...]


KeyOf = Callable[[Path, Recipe], str]  # names a candidate by its base and its shortened recipe


@dataclass(frozen=True, slots=True)
class CandidateCourse:
    """A candidate with the tokens of each step by epoch; no epoch if it has no row to learn.

    ``pace`` is set for a budget in minutes.
    """

    candidate: SearchCandidate
    tokens: Sequence[Sequence[int]]
    pace: TrainingPace | None = None

    def trial(self, factor: Fraction, rungs: Sequence[Rung], key_of: KeyOf) -> PlannedTrial:
        """Return the candidate with its training, and so its schedule, shortened by a factor."""
        base, recipe = self.candidate.base, self.candidate.recipe
        epochs = recipe.num_train_epochs * float(factor)
        shortened = recipe.model_copy(update={"num_train_epochs": epochs})
        return PlannedTrial(
            key=key_of(base, shortened),
            name=self.candidate.name,
            base=base,
            recipe=shortened,
            stops=tuple(self.stops(factor, rungs)),
            costs=tuple(self.costs(factor, rungs)),
        )

    def stops(self, factor: Fraction, rungs: Sequence[Rung]) -> list[int]:
        """Return the step at which each rung ends."""
        epochs = self.candidate.recipe.num_train_epochs * float(factor)
        by_epoch = len(self.tokens[0]) if self.tokens else 0
        steps = max(1, ceil(epochs * by_epoch))  # as its trainer rounds
        return [stop_at(rung.share, steps) for rung in rungs]

    def costs(self, factor: Fraction, rungs: Sequence[Rung]) -> list[float]:
        """Return the cost of each rung alone."""
        seen = [self._tokens_until(step) for step in [0, *self.stops(factor, rungs)]]
        counts = [after - before for before, after in pairwise(seen)]
        return [self.pace.seconds(count) if self.pace else float(count) for count in counts]

    def _tokens_until(self, step: int) -> int:
        return sum(islice(chain.from_iterable(self.tokens), step))


class SearchPlan(Config):
    """The number of candidates at each rung, and what each candidate does there.

    ``unit`` is that of the costs and of ``budget``, the maximum of their sum. ``measure`` is the
    metric to compare by.
    """

    unit: str
    budget: float
    factor: float
    sizes: tuple[int, ...]
    entries: tuple[PlannedTrial, ...]
    measure: SearchMetric = SearchMetric()

    def at_most(self, rung: int, keys: Sequence[str]) -> float:
        """Return the maximum planned cost from a rung on, with the candidates that reach it."""
        costs = [entry.costs[rung:] for entry in self.entries if entry.key in keys]
        return worst_cost(costs, self.sizes[rung:])


def make_search_plan(
    courses: Sequence[CandidateCourse],
    search: SearchSettings,
    key_of: KeyOf,
    *,
    measure: SearchMetric | None = None,
    spent: float = 0.0,
) -> SearchPlan:
    """Plan all trainings as long as the budget allows, shortened by one factor.

    Args:
        courses: The candidates; each with a pace if the budget is in minutes.
        search: The budget and the rungs' division.
        key_of: Names a candidate.
        measure: The metric to compare by; the loss by default.
        spent: Seconds of the budget that measuring the paces took.

    Raises:
        BudgetError: The budget is too small.
        ValueError: Two candidates would be the same adapter.
    """
    rungs = plan_rungs(len(courses), search.eta)
    sizes = [rung.size for rung in rungs]
    tokens, minutes = search.budget.tokens, search.budget.minutes
    budget = float(tokens) if tokens is not None else 60 * (minutes or 0) - spent
    factor = shorten_trainings(
        lambda factor: [course.costs(factor, rungs) for course in courses],
        sizes,
        budget if tokens is not None else BUDGET_SHARE * budget,
    )
    entries = tuple(course.trial(factor, rungs, key_of) for course in courses)
    names: dict[str, str] = {}
    for entry in entries:
        if entry.key in names:
            raise ValueError(
                f"planning a search: {names[entry.key]} and {entry.name} would be the same "
                "adapter, as their bases have the same content; leave one of them out of over"
            )
        names[entry.key] = entry.name
    return SearchPlan(
        unit="tokens" if tokens is not None else "seconds",
        budget=budget,
        factor=float(factor),
        sizes=tuple(sizes),
        entries=entries,
        measure=measure or SearchMetric(),
    )
