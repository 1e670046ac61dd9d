"""Rungs divide the candidates, and a plan keeps its budget whichever of them are promoted."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.extensions.search import schedule
from components.extensions.search.schedule import BudgetError, TrainingPace
from tests.support import search_courses

LENGTHS = st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=40), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("candidates", "eta", "sizes", "shares"),
    [
        pytest.param(9, 3, [9, 3, 1], ["1/9", "1/3", "1"], id="nine by three"),
        pytest.param(8, 3, [8, 2, 1], ["1/9", "1/3", "1"], id="eight by three"),
        pytest.param(4, 2, [4, 2, 1], ["1/4", "1/2", "1"], id="four by two"),
        pytest.param(2, 3, [2, 1], ["1/3", "1"], id="two"),
        pytest.param(1, 3, [1], ["1"], id="one"),
    ],
)
def test_each_rung_divides_the_candidates_and_multiplies_their_share(
    candidates: int, eta: int, sizes: list[int], shares: list[str]
):
    rungs = schedule.plan_rungs(candidates, eta)
    assert [rung.size for rung in rungs] == sizes
    assert [str(rung.share) for rung in rungs] == shares


@given(st.fractions(0, 1), st.integers(1, 10_000))
def test_a_rung_stops_within_its_training_after_at_least_one_step(share: Fraction, steps: int):
    assert 1 <= schedule.stop_at(share, steps) <= steps


@given(LENGTHS, st.integers(1, 30_000), st.data())
def test_a_plan_keeps_its_budget_whichever_candidates_are_promoted(
    lengths: list[list[int]], tokens: int, data: st.DataObject
):
    try:
        made = schedule.make_search_plan(
            search_courses.courses(lengths),
            search_courses.search(tokens=tokens),
            search_courses.key_of,
        )
    except BudgetError:
        return
    going, total = list(made.entries), 0.0
    for rung, size in enumerate(made.sizes):
        going = data.draw(st.permutations(going))[:size]
        total += sum(entry.costs[rung] for entry in going)
    assert total <= made.at_most(0, [entry.key for entry in made.entries]) <= tokens


@given(LENGTHS, st.integers(1, 30_000))
def test_a_plan_costs_the_tokens_of_its_steps(lengths: list[list[int]], tokens: int):
    try:
        made = schedule.make_search_plan(
            search_courses.courses(lengths),
            search_courses.search(tokens=tokens),
            search_courses.key_of,
        )
    except BudgetError:
        return
    for entry, epoch in zip(made.entries, lengths, strict=True):
        assert list(entry.stops) == sorted(entry.stops)
        assert sum(entry.costs) == sum(epoch[: entry.stops[-1]])


def test_a_candidate_without_a_row_to_learn_costs_nothing_and_is_ordered_all_the_same():
    made = schedule.make_search_plan(
        search_courses.courses([[], [10] * 30]),
        search_courses.search(tokens=10**6),
        search_courses.key_of,
    )
    assert [(entry.stops, entry.costs) for entry in made.entries] == [
        ((1, 1), (0, 0)),
        ((10, 30), (100, 200)),
    ]


def test_candidates_whose_bases_have_the_same_content_are_refused():
    with pytest.raises(ValueError, match="r 1 and r 2 would be the same adapter, as their bases"):
        schedule.make_search_plan(
            search_courses.courses([[10] * 30] * 2),
            search_courses.search(tokens=10**6),
            lambda _base, _recipe: "the same",
        )


def test_a_large_budget_leaves_every_training_its_full_length():
    lengths = [[10] * 30] * 4
    made = schedule.make_search_plan(
        search_courses.courses(lengths), search_courses.search(tokens=10**6), search_courses.key_of
    )
    assert made.factor == 1
    assert [entry.stops for entry in made.entries] == [(10, 30)] * 4


def test_a_smaller_budget_shortens_the_trainings_and_their_schedules():
    lengths = [[10] * 30] * 4
    made = schedule.make_search_plan(
        search_courses.courses(lengths), search_courses.search(tokens=300), search_courses.key_of
    )
    assert {entry.stops for entry in made.entries} == {(5, 15)}  # 4 * 5 + 10 steps of 10 tokens
    assert {entry.recipe.num_train_epochs for entry in made.entries} == {made.factor}


def test_a_budget_below_one_step_per_candidate_is_refused():
    with pytest.raises(BudgetError, match="takes 40, the budget is 39"):
        schedule.make_search_plan(
            search_courses.courses([[10]] * 4),
            search_courses.search(tokens=39),
            search_courses.key_of,
        )


def test_minutes_are_planned_from_the_paces_with_a_reserve():
    pace = TrainingPace(overhead=6, tokens_per_second=10)
    courses = search_courses.courses([[10] * 60] * 4, pace)
    made = schedule.make_search_plan(
        courses, search_courses.search(minutes=2), search_courses.key_of, spent=20
    )
    assert made.budget == 100
    planned = made.at_most(0, [entry.key for entry in made.entries])
    assert 80 < planned <= 90
    (costs,) = {entry.costs for entry in made.entries}
    first, last = next(entry.stops for entry in made.entries)
    assert costs == (6 + first, 6 + last - first)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=9), st.floats(0, 1000), st.floats(0, 99))
def test_allowances_never_sum_to_more_than_the_remaining_budget(
    costs: list[float], left: float, rest: float
):
    planned = sum(costs) + rest
    shared = sum(schedule.allowance(left, own, planned) for own in costs)
    assert shared <= left * (1 + 1e-9)


def test_a_plan_round_trips_through_json():
    made = schedule.make_search_plan(
        search_courses.courses([[10] * 9] * 3),
        search_courses.search(tokens=999),
        search_courses.key_of,
    )
    assert schedule.SearchPlan.model_validate_json(made.model_dump_json()) == made
