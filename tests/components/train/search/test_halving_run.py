"""A search keeps its budget, prunes, and goes on when a candidate fails."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.train.search import run, schedule
from components.train.search.run import SearchError, TrialOrder, TrialOutcome, TrialPlacement
from components.train.search.schedule import BudgetError, PlannedTrial, SearchPlan, TrainingPace
from tests.support import search_courses


def made(candidates: int = 9, tokens: int = 9_000) -> SearchPlan:
    lengths = [[10] * 90] * candidates
    return schedule.make_search_plan(
        search_courses.courses(lengths), search_courses.search(tokens=tokens), search_courses.key_of
    )


def by_rank(entry: PlannedTrial) -> float:
    """Let a higher rank be better."""
    return 10.0 - entry.recipe.r


def found(
    given: SearchPlan, done: list[TrialOrder], *broken: tuple[str, int]
) -> list[TrialPlacement]:
    return run.run_search(given, search_courses.trainer(by_rank, done, broken)).places


def test_the_best_third_goes_on_at_each_rung_and_one_to_its_end():
    done: list[TrialOrder] = []
    places = found(made(), done)
    climbed = [[one.entry.key for one in done if one.rung == rung] for rung in range(3)]
    assert [len(keys) for keys in climbed] == [9, 3, 1]
    assert climbed[1:] == [["r7", "r8", "r9"], ["r9"]]
    assert [one.at_step for one in done if one.entry.key == "r9"] == [10, 30, None]
    assert (places[0].entry.key, places[0].ending) == ("r9", "winner")
    assert {one.ending for one in places[1:]} == {"pruned"}


def test_a_pruned_candidate_keeps_its_loss_and_says_where_it_fell_behind():
    places = {one.entry.key: one for one in found(made(), [])}
    assert places["r1"].outcome.validation_loss == 9.0
    assert places["r1"].why == "place 9 of 9 at rung 1"
    assert places["r7"].why == "place 3 of 3 at rung 2"


def test_a_candidate_that_fails_is_pruned_with_its_reason_and_the_search_goes_on():
    done: list[TrialOrder] = []
    places = {one.entry.key: one for one in found(made(), done, ("r9", 0), ("r8", 1))}
    assert (places["r9"].ending, places["r9"].why) == ("failed", "diverged")
    assert (places["r8"].ending, places["r8"].outcome.rung) == ("failed", 1)
    assert places["r7"].ending == "winner"


def test_where_all_at_a_rung_fail_the_best_that_was_pruned_takes_their_place():
    done: list[TrialOrder] = []
    places = found(made(), done, ("r9", 2))
    assert places[0].entry.key == "r8"
    assert [one.entry.key for one in done if one.rung == 2] == ["r9", "r8"]


def test_a_search_of_which_nothing_is_left_says_what_became_of_each():
    broken = [(f"r{rank}", 0) for rank in range(1, 10)]
    with pytest.raises(SearchError, match="r 1: diverged\nr 2: diverged"):
        found(made(), [], *broken)


def test_who_has_no_step_to_do_up_to_a_rung_stands_as_it_stood():
    given = schedule.make_search_plan(
        search_courses.courses([[10]] * 9),
        search_courses.search(tokens=10_000),
        search_courses.key_of,
    )
    assert {one.stops for one in given.entries} == {(1, 1, 1)}
    done: list[TrialOrder] = []
    assert found(given, done)[0].entry.key == "r9"
    assert [one.rung for one in done] == [*[0] * 9, 2]


LENGTHS = st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=40), min_size=2, max_size=9)
LOSSES = st.lists(st.floats(0, 9), min_size=9, max_size=9)
BROKEN = st.lists(st.tuples(st.sampled_from([f"r{n}" for n in range(1, 10)]), st.integers(0, 2)))


@given(LENGTHS, st.integers(1_000, 40_000), LOSSES, BROKEN)
def test_the_budget_is_exceeded_by_one_candidates_rung_at_most_and_only_where_some_fail(
    lengths: list[list[int]], tokens: int, losses: list[float], broken: list[tuple[str, int]]
):
    done: list[TrialOrder] = []
    try:
        given = schedule.make_search_plan(
            search_courses.courses(lengths),
            search_courses.search(tokens=tokens),
            search_courses.key_of,
        )
        train = search_courses.trainer(lambda entry: losses[entry.recipe.r - 1], done, broken)
        came = run.run_search(given, train)
    except (BudgetError, SearchError):
        return
    costs = [one.entry.costs[one.rung] for one in done]
    failed = any((one.entry.key, one.rung) in broken for one in done)
    assert sum(costs) <= tokens + (max(costs) if failed else 0)
    assert came.spent == sum(costs)
    assert [one.ending == "winner" for one in came.places] == [True, *[False] * (len(lengths) - 1)]


@given(LENGTHS, st.floats(1.0, 3.0), LOSSES)
def test_minutes_are_kept_however_slow_the_trainings_are(
    lengths: list[list[int]], slower: float, losses: list[float]
):
    pace = TrainingPace(overhead=5, tokens_per_second=100)
    done: list[tuple[TrialOrder, float]] = []

    def train(orders: list[TrialOrder]) -> list[TrialOutcome]:
        """Take longer than planned, but end when the time that was given is over."""
        took = [min(slower * one.entry.costs[one.rung], one.seconds or 0) for one in orders]
        done.extend(zip(orders, took, strict=True))
        return [
            search_courses.outcome(one, losses[one.entry.recipe.r - 1], seconds=seconds)
            for one, seconds in zip(orders, took, strict=True)
        ]

    try:
        given = schedule.make_search_plan(
            search_courses.courses(lengths, pace),
            search_courses.search(minutes=4),
            search_courses.key_of,
        )
    except BudgetError:
        return
    run.run_search(given, train)  # pyright: ignore[reportArgumentType]
    assert sum(took for _, took in done) <= 240 * (1 + 1e-9)
