"""The schedule of a search: rungs within a budget, and the metric to compare by."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path

from components.schema import Config
from components.train.recipe import EXAMPLE_KNOBS, Recipe
from components.train.search.candidates import SearchCandidate
from components.train.search.settings import SearchSettings

FEWEST = 20
"""Validation rows that measure the target: with fewer, one request is more than five points."""

ONLY_BY_METRIC = frozenset(EXAMPLE_KNOBS)
"""Settings whose worth the loss does not show: they weigh tokens or rows against one another."""


class SearchMetricError(ValueError):
    """What is tried can't be compared on the rows that there are."""


class SearchMetric(Config):
    """The metric that candidates are compared by; without one it is the loss, and ``why`` says why.

    ``rows`` are those of the validation side that measure it.
    """

    metric: str | None = None
    higher_is_better: bool = True
    rows: int = 0
    why: str = ""

    def lost(self, score: float) -> float:
        """Return what a score lacks, so that lower is better."""
        return -score if self.higher_is_better else score


def choose_metric(
    metric: str | None, rows: int, tried: Collection[str], *, higher_is_better: bool
) -> SearchMetric:
    """Choose the measure.

    Args:
        metric: The target; ``None`` where the validation side does not measure it.
        rows: How many validation rows measure it.
        tried: The settings that the search tries.
        higher_is_better: Which way the metric is better.

    Raises:
        MeasureError: Only the metric would show what is tried, and too few rows measure it.
    """
    if metric is not None and rows >= FEWEST:
        return SearchMetric(metric=metric, higher_is_better=higher_is_better, rows=rows)
    why = (
        "the target is not measured on the workload's own requests"
        if metric is None
        else f"{rows} validation rows measure {metric}, and it wants {FEWEST}"
    )
    if hidden := sorted(ONLY_BY_METRIC.intersection(tried)):
        raise SearchMetricError(
            f"searching over {', '.join(hidden)}: {why}, and the loss does not show what these "
            "settings are worth; raise validation_share under curate, curate more traffic, or "
            "leave them out of over"
        )
    return SearchMetric(rows=rows, why=why)


SHARE_PARTS = 1000  # the factor is a multiple of one thousandth

Costs = Sequence[Sequence[float]]
"""What each candidate costs at each rung, beyond what the rungs before it have cost."""


class BudgetError(ValueError):
    """The budget is too small for a single step of each candidate."""


@dataclass(frozen=True, slots=True)
class Rung:
    """``size`` candidates train until ``share`` of their whole training is done."""

    size: int
    share: Fraction


def plan_rungs(candidates: int, eta: int) -> list[Rung]:
    """List the rungs, which divide the candidates by ``eta`` until one is left.

    Args:
        candidates: How many there are at first, at least one.
        eta: By how much a rung divides them; the next is so much further away.
    """
    sizes = [candidates]
    while sizes[-1] > 1:
        sizes.append(max(1, sizes[-1] // eta))
    last = len(sizes) - 1
    return [Rung(size, Fraction(1, eta ** (last - rung))) for rung, size in enumerate(sizes)]


def stop_at(share: Fraction, steps: int) -> int:
    """Give the step after which ``share`` of a training's ``steps`` are done, at least one."""
    return min(steps, max(1, ceil(share * steps)))


def worst_cost(costs: Costs, sizes: Sequence[int]) -> float:
    """Give what a search costs at most, whoever goes on: at each rung the dearest do."""
    return sum(
        sum(sorted((one[rung] for one in costs), reverse=True)[:size])
        for rung, size in enumerate(sizes)
    )


def shorten_trainings(
    cost_of: Callable[[Fraction], Costs], sizes: Sequence[int], budget: float
) -> Fraction:
    """Find the largest factor of all trainings' lengths with which the search keeps its budget.

    Args:
        cost_of: What each candidate costs at each rung when the whole trainings have so much of
            their length; more for a larger factor.
        sizes: How many candidates go up to each rung.
        budget: In the unit of the costs.

    Returns:
        A factor of at most 1.

    Raises:
        BudgetError: None is small enough.
    """
    least, most = 1, SHARE_PARTS
    if worst_cost(cost_of(Fraction(least, SHARE_PARTS)), sizes) > budget:
        wanted = ceil(worst_cost(cost_of(Fraction(least, SHARE_PARTS)), sizes))
        raise BudgetError(f"the shortest search there is takes {wanted}, the budget is {budget:g}")
    while least < most:
        middle = (least + most + 1) // 2
        if worst_cost(cost_of(Fraction(middle, SHARE_PARTS)), sizes) <= budget:
            least = middle
        else:
            most = middle - 1
    return Fraction(least, SHARE_PARTS)


def allowance(left: float, own: float, planned: float) -> float:
    """Share out what is left of a budget, to each candidate's rung in proportion to its plan.

    So rungs that take longer than planned can't use up more than what is left, all together.

    Args:
        left: What is left of the budget.
        own: What this candidate's rung is planned to take.
        planned: What it and all that is still to come is planned to take at most.
    """
    return max(0.0, left) * (own / planned if planned else 1.0)


BUDGET_SHARE = 0.9
"""Of a budget of minutes: what is planned with. A pace that was measured briefly may slow down."""


@dataclass(frozen=True, slots=True)
class TrainingPace:
    """How fast a base trains: the seconds of a run without its steps, and tokens a second in them.

    It is measured on a few steps.
    """

    overhead: float
    tokens_per_second: float

    def seconds(self, tokens: int) -> float:
        """Give what a run of so many tokens takes; a run of none isn't started."""
        return self.overhead + tokens / self.tokens_per_second if tokens else 0.0


@dataclass(frozen=True, slots=True)
class CandidateCourse:
    """What lies before a candidate.

    ``tokens`` are those of each step of the first epoch; ``pace`` is known where the budget is in
    minutes.
    """

    candidate: SearchCandidate
    tokens: Sequence[int]
    pace: TrainingPace | None = None

    def recipe(self, factor: Fraction) -> Recipe:
        """Give the recipe with its training shortened by a factor, and so its schedule."""
        epochs = self.candidate.recipe.num_train_epochs * float(factor)
        return self.candidate.recipe.model_copy(update={"num_train_epochs": epochs})

    def stops(self, factor: Fraction, rungs: Sequence[Rung]) -> list[int]:
        """Give the step at which it reaches each rung."""
        steps = ceil(self.recipe(factor).num_train_epochs * len(self.tokens))  # as its trainer does
        return [stop_at(rung.share, steps) for rung in rungs]

    def costs(self, factor: Fraction, rungs: Sequence[Rung]) -> list[float]:
        """Give what it costs at each rung alone."""
        seen = [self._until(step) for step in [0, *self.stops(factor, rungs)]]
        counts = [after - before for before, after in pairwise(seen)]
        return [self.pace.seconds(count) if self.pace else float(count) for count in counts]

    def _until(self, step: int) -> int:
        """Count the tokens seen up to a step; later epochs differ from the first in order alone."""
        epochs, rest = divmod(step, len(self.tokens))
        return epochs * sum(self.tokens) + sum(self.tokens[:rest])


class PlannedTrial(Config):
    """A candidate in the plan, with its recipe shortened; ``stops`` and ``costs`` are by rung."""

    key: str
    name: str
    base: Path
    recipe: Recipe
    stops: tuple[int, ...]
    costs: tuple[float, ...]


class SearchPlan(Config):
    """How many candidates train up to each rung, and what each does there.

    ``unit`` is that of the costs and of the ``budget``, which is what all of them may come to.
    ``measure`` is what they are compared by.
    """

    unit: str
    budget: float
    factor: float
    sizes: tuple[int, ...]
    entries: tuple[PlannedTrial, ...]
    measure: SearchMetric = SearchMetric()

    def at_most(self, rung: int, standing: Sequence[str]) -> float:
        """Give what is planned at most from a rung on, with the candidates that go up to it."""
        costs = [one.costs[rung:] for one in self.entries if one.key in standing]
        return worst_cost(costs, self.sizes[rung:])


def make_search_plan(
    courses: Sequence[CandidateCourse],
    search: SearchSettings,
    key_of: Callable[[Path, Recipe], str],
    *,
    measure: SearchMetric | None = None,
    spent: float = 0.0,
) -> SearchPlan:
    """Make all trainings as long as the budget allows, by one factor, and none longer than it is.

    Args:
        courses: The candidates; each with a pace, where the budget is in minutes.
        search: What they may cost.
        key_of: Names a candidate by its base and its shortened recipe.
        measure: What they are compared by; the loss if left out.
        spent: Seconds of the budget that measuring the paces took.

    Raises:
        BudgetError: The budget is too small.
    """
    rungs = plan_rungs(len(courses), search.eta)
    sizes = [rung.size for rung in rungs]
    tokens, minutes = search.budget.tokens, search.budget.minutes
    budget = float(tokens) if tokens is not None else 60 * (minutes or 0) - spent
    factor = shorten_trainings(
        lambda factor: [one.costs(factor, rungs) for one in courses],
        sizes,
        budget if tokens is not None else BUDGET_SHARE * budget,
    )
    entries = [
        PlannedTrial(
            key=key_of(one.candidate.base, one.recipe(factor)),
            name=one.candidate.name,
            base=one.candidate.base,
            recipe=one.recipe(factor),
            stops=tuple(one.stops(factor, rungs)),
            costs=tuple(one.costs(factor, rungs)),
        )
        for one in courses
    ]
    return SearchPlan(
        unit="tokens" if tokens is not None else "seconds",
        budget=budget,
        factor=float(factor),
        sizes=tuple(sizes),
        entries=tuple(entries),
        measure=measure or SearchMetric(),
    )
