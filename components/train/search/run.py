"""Run a search rung by rung, whoever does the training, and say where each candidate ended."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from components.train.search import halving
from components.train.search.choose import Standing, ranking
from components.train.search.plan import Entry, Plan
from components.train.search.records import Order, Outcome

Train: TypeAlias = Callable[[Sequence[Order]], Sequence[Outcome]]
"""Carries orders out, beside each other where it can, and tells what came of each."""


class SearchError(RuntimeError):
    """No candidate is left; the message says what became of each."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a candidate ended: in front, pruned for falling behind, or failed; and why."""

    entry: Entry
    ending: Literal["winner", "pruned", "failed"]
    outcome: Outcome
    why: str


@dataclass(slots=True)
class _State:
    """What has come of the candidates so far, and what that took."""

    plan: Plan
    came: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    why: dict[str, str] = field(default_factory=dict[str, str])
    spent: float = 0.0

    def is_good(self, key: str) -> bool:
        return self.came[key].objection is None

    def standing(self, key: str) -> Standing:
        came, measure = self.came[key], self.plan.measure
        if measure.metric is None:
            return Standing(key, came.nats, came.parameters)
        lost = {row: measure.lost(score) for row, score in came.scores.items()}
        return Standing(key, lost, came.parameters, math.fsum(came.nats.values()) / len(came.nats))


@dataclass(frozen=True, slots=True)
class Found:
    """Where all candidates ended, the winner first and what failed last, and what they took.

    ``spent`` is in the plan's unit.
    """

    places: list[Place]
    spent: float


def run(plan: Plan, train: Train) -> Found:
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
    state = _State(plan)
    going, waiting = [one.key for one in plan.entries], list[str]()
    for rung in range(len(plan.sizes)):
        _climb(state, rung, going, train)
        good = [key for key in going if state.is_good(key)]
        while not good and waiting and state.spent < plan.budget:
            going = [waiting.pop(0)]
            _climb(state, rung, going, train)
            good = [key for key in going if state.is_good(key)]
        if not good:
            raise SearchError(_all_failed(state))
        ranked = [one.candidate for one in ranking([state.standing(key) for key in good])]
        size = plan.sizes[rung + 1] if rung + 1 < len(plan.sizes) else 1
        going, waiting = ranked[:size], ranked[size:]
        for place, key in enumerate(waiting, size + 1):
            state.why[key] = f"place {place} of {len(ranked)} at rung {rung + 1}"
    return Found(_places(state, going[0]), state.spent)


def _climb(state: _State, rung: int, keys: Sequence[str], train: Train) -> None:
    """Bring candidates up to a rung, and note what came of it."""
    plan = state.plan
    left, planned = plan.budget - state.spent, plan.at_most(rung, keys)
    orders = [
        _order(plan, entry, rung, left, planned)
        for entry in plan.entries
        if entry.key in keys and not _is_there(state, entry, rung)
    ]
    for order, outcome in zip(orders, train(orders) if orders else [], strict=True):
        took = outcome.seconds if plan.unit == "seconds" else order.entry.costs[rung]
        state.spent += took
        state.came[order.entry.key] = outcome
        if outcome.objection:
            state.why[order.entry.key] = outcome.objection


def _is_there(state: _State, entry: Entry, rung: int) -> bool:
    """Tell whether a candidate has no step to do up to a rung, so that it stands as it stood."""
    before = state.came.get(entry.key)
    if before is None or before.finished:
        return before is not None
    is_last = rung + 1 == len(state.plan.sizes)
    return not is_last and entry.stops[rung] == entry.stops[rung - 1]


def _order(plan: Plan, entry: Entry, rung: int, left: float, planned: float) -> Order:
    timed = plan.unit == "seconds"
    return Order(
        entry=entry,
        rung=rung,
        at_step=entry.stops[rung] if rung + 1 < len(plan.sizes) else None,
        seconds=halving.allowance(left, entry.costs[rung], planned) if timed else None,
        metric=plan.measure.metric,
    )


def _places(state: _State, winner: str) -> list[Place]:
    found = [_place(state, entry, winner) for entry in state.plan.entries]
    return sorted(found, key=lambda place: _rank(place, state.plan))


def _rank(place: Place, plan: Plan) -> tuple[int, int, float, float]:
    loss, score = place.outcome.validation_loss, place.outcome.score
    ending = ("winner", "pruned", "failed").index(place.ending)
    lost = math.inf if score is None else plan.measure.lost(score)
    return ending, -place.outcome.rung, lost, math.inf if loss is None else loss


def _place(state: _State, entry: Entry, winner: str) -> Place:
    outcome = state.came[entry.key]
    if entry.key == winner:
        return Place(entry, "winner", outcome, "the best")
    ending = "pruned" if outcome.objection is None else "failed"
    return Place(entry, ending, outcome, state.why[entry.key])


def _all_failed(state: _State) -> str:
    said = [f"{one.name}: {state.why.get(one.key, 'pruned before')}" for one in state.plan.entries]
    return "\n".join(["no candidate of the search is left", *said])
