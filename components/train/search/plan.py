"""Plan how far each candidate trains up to each rung, so that the budget is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path

from components.schema import Config
from components.train.recipe import Recipe
from components.train.search import halving
from components.train.search.grid import Candidate
from components.train.search.halving import Rung
from components.train.search.measure import Measure
from components.train.search.settings import Search

RESERVE = 0.9
"""Of a budget of minutes: what is planned with. A pace that was measured briefly may slow down."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a base trains: the seconds of a run without its steps, and tokens a second in them.

    It is measured on a few steps.
    """

    overhead: float
    tokens_per_second: float

    def seconds(self, tokens: int) -> float:
        """Give what a run of so many tokens takes; a run of none isn't started."""
        return self.overhead + tokens / self.tokens_per_second if tokens else 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """What lies before a candidate.

    ``tokens`` are those of each step of the first epoch; ``pace`` is known where the budget is in
    minutes.
    """

    candidate: Candidate
    tokens: Sequence[int]
    pace: Pace | None = None

    def recipe(self, factor: Fraction) -> Recipe:
        """Give the recipe with its training shortened by a factor, and so its schedule."""
        epochs = self.candidate.recipe.num_train_epochs * float(factor)
        return self.candidate.recipe.model_copy(update={"num_train_epochs": epochs})

    def stops(self, factor: Fraction, rungs: Sequence[Rung]) -> list[int]:
        """Give the step at which it reaches each rung."""
        steps = ceil(self.recipe(factor).num_train_epochs * len(self.tokens))  # as its trainer does
        return [halving.stop_at(rung.share, steps) for rung in rungs]

    def costs(self, factor: Fraction, rungs: Sequence[Rung]) -> list[float]:
        """Give what it costs at each rung alone."""
        seen = [self._until(step) for step in [0, *self.stops(factor, rungs)]]
        counts = [after - before for before, after in pairwise(seen)]
        return [self.pace.seconds(count) if self.pace else float(count) for count in counts]

    def _until(self, step: int) -> int:
        """Count the tokens seen up to a step; later epochs differ from the first in order alone."""
        epochs, rest = divmod(step, len(self.tokens))
        return epochs * sum(self.tokens) + sum(self.tokens[:rest])


class Entry(Config):
    """A candidate in the plan, with its recipe shortened; ``stops`` and ``costs`` are by rung."""

    key: str
    name: str
    base: Path
    recipe: Recipe
    stops: tuple[int, ...]
    costs: tuple[float, ...]


class Plan(Config):
    """How many candidates train up to each rung, and what each does there.

    ``unit`` is that of the costs and of the ``budget``, which is what all of them may come to.
    ``measure`` is what they are compared by.
    """

    unit: str
    budget: float
    factor: float
    sizes: tuple[int, ...]
    entries: tuple[Entry, ...]
    measure: Measure = Measure()

    def at_most(self, rung: int, standing: Sequence[str]) -> float:
        """Give what is planned at most from a rung on, with the candidates that go up to it."""
        costs = [one.costs[rung:] for one in self.entries if one.key in standing]
        return halving.worst(costs, self.sizes[rung:])


def make(
    courses: Sequence[Course],
    search: Search,
    key_of: Callable[[Path, Recipe], str],
    *,
    measure: Measure | None = None,
    spent: float = 0.0,
) -> Plan:
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
    rungs = halving.rungs(len(courses), search.eta)
    sizes = [rung.size for rung in rungs]
    tokens, minutes = search.budget.tokens, search.budget.minutes
    budget = float(tokens) if tokens is not None else 60 * (minutes or 0) - spent
    factor = halving.shorten(
        lambda factor: [one.costs(factor, rungs) for one in courses],
        sizes,
        budget if tokens is not None else RESERVE * budget,
    )
    entries = [
        Entry(
            key=key_of(one.candidate.base, one.recipe(factor)),
            name=one.candidate.name,
            base=one.candidate.base,
            recipe=one.recipe(factor),
            stops=tuple(one.stops(factor, rungs)),
            costs=tuple(one.costs(factor, rungs)),
        )
        for one in courses
    ]
    return Plan(
        unit="tokens" if tokens is not None else "seconds",
        budget=budget,
        factor=float(factor),
        sizes=tuple(sizes),
        entries=tuple(entries),
        measure=measure or Measure(),
    )
