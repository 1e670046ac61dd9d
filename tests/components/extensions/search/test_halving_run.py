"""A search keeps its budget, prunes candidates, and continues when one fails."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.extensions.search import run, schedule
from components.extensions.search.run import SearchError, TrialOrder, TrialOutcome, TrialPlacement
from components.extensions.search.schedule import (
    BudgetError,
    PlannedTrial,
    SearchPlan,
    TrainingPace,
)
from tests.support import search_courses


def made(candidates: int = 9, tokens: int = 9_000) -> SearchPlan:
    lengths = [[10] * 90] * candidates
    return schedule.make_search_plan(
        search_courses.courses(lengths), search_courses.search(tokens=tokens), search_courses.key_of
    )


def by_rank(entry: PlannedTrial) -> float:
    """Return a loss that is lower for a higher rank."""
    return 10.0 - entry.recipe.r


def search_places(
    plan: SearchPlan, done: list[TrialOrder], *broken: tuple[str, int]
) -> list[TrialPlacement]:
    return run.run_search(plan, search_courses.trainer(by_rank, done, broken)).places


def test_each_rung_promotes_the_best_third_and_one_trains_to_its_end():
    done: list[TrialOrder] = []
    places = search_places(made(), done)
    climbed = [[order.entry.key for order in done if order.rung == rung] for rung in range(3)]
    assert [len(keys) for keys in climbed] == [9, 3, 1]
    assert climbed[1:] == [["r7", "r8", "r9"], ["r9"]]
    assert [order.at_step for order in done if order.entry.key == "r9"] == [10, 30, None]
    assert (places[0].entry.key, places[0].ending) == ("r9", "winner")
    assert {place.ending for place in places[1:]} == {"pruned"}


def test_a_pruned_candidate_keeps_its_loss_and_the_rung_at_which_it_fell_behind():
    places = {place.entry.key: place for place in search_places(made(), [])}
    assert places["r1"].outcome.validation_loss == 9.0
    assert places["r1"].why == "place 9 of 9 at rung 1"
    assert places["r7"].why == "place 3 of 3 at rung 2"


def test_a_failed_candidate_is_pruned_with_its_reason_and_the_search_continues():
    done: list[TrialOrder] = []
    places = {place.entry.key: place for place in search_places(made(), done, ("r9", 0), ("r8", 1))}
    assert (places["r9"].ending, places["r9"].why) == ("failed", "diverged")
    assert (places["r8"].ending, places["r8"].outcome.rung) == ("failed", 1)
    assert places["r7"].ending == "winner"


def test_a_candidate_that_reads_few_rows_does_not_decide_on_what_all_are_compared():
    done: list[TrialOrder] = []
    train = search_courses.trainer(by_rank, done)

    def short(orders: Sequence[TrialOrder]) -> list[TrialOutcome]:
        # The best on the three rows that fit into its max_length, and what it cut off is worse.
        return [
            outcome.model_copy(update={"nats": dict.fromkeys(range(3), 0.0)})
            if outcome.key == "r1"
            else outcome
            for outcome in train(orders)
        ]

    places = {place.entry.key: place for place in run.run_search(made(), short).places}
    assert places["r9"].ending == "winner"
    assert places["r1"].ending == "pruned"
    assert places["r1"].why == "only 3 of 40 validation rows fit into its max_length"


def test_the_best_pruned_candidate_replaces_a_rung_of_failures():
    done: list[TrialOrder] = []
    places = search_places(made(), done, ("r9", 2))
    assert places[0].entry.key == "r8"
    assert [order.entry.key for order in done if order.rung == 2] == ["r9", "r8"]


def test_a_search_whose_candidates_all_fail_lists_their_reasons():
    broken = [(f"r{rank}", 0) for rank in range(1, 10)]
    with pytest.raises(SearchError, match="r 1: diverged\nr 2: diverged"):
        search_places(made(), [], *broken)


def test_a_candidate_without_a_step_at_a_rung_keeps_its_outcome():
    plan = schedule.make_search_plan(
        search_courses.courses([[10]] * 9),
        search_courses.search(tokens=10_000),
        search_courses.key_of,
    )
    assert {entry.stops for entry in plan.entries} == {(1, 1, 1)}
    done: list[TrialOrder] = []
    assert search_places(plan, done)[0].entry.key == "r9"
    assert [order.rung for order in done] == [*[0] * 9, 2]


LENGTHS = st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=40), min_size=2, max_size=9)
LOSSES = st.lists(st.floats(0, 9), min_size=9, max_size=9)
BROKEN = st.lists(st.tuples(st.sampled_from([f"r{n}" for n in range(1, 10)]), st.integers(0, 2)))


@given(LENGTHS, st.integers(1_000, 40_000), LOSSES, BROKEN)
def test_only_failures_exceed_the_budget_and_by_at_most_one_candidates_rung(
    lengths: list[list[int]], tokens: int, losses: list[float], broken: list[tuple[str, int]]
):
    done: list[TrialOrder] = []
    try:
        plan = schedule.make_search_plan(
            search_courses.courses(lengths),
            search_courses.search(tokens=tokens),
            search_courses.key_of,
        )
        train = search_courses.trainer(lambda entry: losses[entry.recipe.r - 1], done, broken)
        result = run.run_search(plan, train)
    except (BudgetError, SearchError):
        return
    costs = [order.entry.costs[order.rung] for order in done]
    failed = any((order.entry.key, order.rung) in broken for order in done)
    assert sum(costs) <= tokens + (max(costs) if failed else 0)
    assert result.spent == sum(costs)
    winners = [place.ending == "winner" for place in result.places]
    assert winners == [True, *[False] * (len(lengths) - 1)]


@given(LENGTHS, st.floats(1.0, 3.0), LOSSES)
def test_a_budget_of_minutes_is_kept_however_slow_the_trainings_are(
    lengths: list[list[int]], slower: float, losses: list[float]
):
    pace = TrainingPace(overhead=5, tokens_per_second=100)
    done: list[tuple[TrialOrder, float]] = []

    def train(orders: list[TrialOrder]) -> list[TrialOutcome]:
        """Take longer than planned, up to the order's limit."""
        took = [min(slower * order.entry.costs[order.rung], order.seconds or 0) for order in orders]
        done.extend(zip(orders, took, strict=True))
        return [
            search_courses.outcome(order, losses[order.entry.recipe.r - 1], seconds=seconds)
            for order, seconds in zip(orders, took, strict=True)
        ]

    try:
        plan = schedule.make_search_plan(
            search_courses.courses(lengths, pace),
            search_courses.search(minutes=4),
            search_courses.key_of,
        )
    except BudgetError:
        return
    run.run_search(plan, train)  # pyright: ignore[reportArgumentType]
    assert sum(took for _, took in done) <= 240 * (1 + 1e-9)
