"""Plan a search by successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943, figure 3).

All candidates train up to the first rung; the best of them go on to the next, and so on, until one
is left, which trains to the end. How far the ends of all are is what the budget says: each
candidate's whole training is shortened by the same factor, and its learning rate falls over its own
whole training. So a rung only ever interrupts a training, and the last one's is as good as if it
had been alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

PARTS = 1000
"""The factor is a multiple of one thousandth."""

Costs = Sequence[Sequence[float]]
"""What each candidate costs at each rung, beyond what the rungs before it have cost."""


class BudgetError(ValueError):
    """The budget is too small for a single step of each candidate."""


@dataclass(frozen=True, slots=True)
class Rung:
    """``size`` candidates train until ``share`` of their whole training is done."""

    size: int
    share: Fraction


def rungs(candidates: int, eta: int) -> list[Rung]:
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


def worst(costs: Costs, sizes: Sequence[int]) -> float:
    """Give what a search costs at most, whoever goes on: at each rung the dearest do."""
    return sum(
        sum(sorted((one[rung] for one in costs), reverse=True)[:size])
        for rung, size in enumerate(sizes)
    )


def shorten(cost_of: Callable[[Fraction], Costs], sizes: Sequence[int], budget: float) -> Fraction:
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
    least, most = 1, PARTS
    if worst(cost_of(Fraction(least, PARTS)), sizes) > budget:
        wanted = ceil(worst(cost_of(Fraction(least, PARTS)), sizes))
        raise BudgetError(f"the shortest search there is takes {wanted}, the budget is {budget:g}")
    while least < most:
        middle = (least + most + 1) // 2
        if worst(cost_of(Fraction(middle, PARTS)), sizes) <= budget:
            least = middle
        else:
            most = middle - 1
    return Fraction(least, PARTS)


def allowance(left: float, own: float, planned: float) -> float:
    """Share out what is left of a budget, to each candidate's rung in proportion to its plan.

    So rungs that take longer than planned can't use up more than what is left, all together.

    Args:
        left: What is left of the budget.
        own: What this candidate's rung is planned to take.
        planned: What it and all that is still to come is planned to take at most.
    """
    return max(0.0, left) * (own / planned if planned else 1.0)
