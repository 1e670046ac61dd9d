"""The rungs halve the candidates, and a plan never costs more than its budget, whoever goes on."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.train.search import schedule
from components.train.search.schedule import BudgetError, TrainingPace
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
def test_rungs_divide_the_candidates_and_lie_as_far_apart(
    candidates: int, eta: int, sizes: list[int], shares: list[str]
):
    found = schedule.plan_rungs(candidates, eta)
    assert [rung.size for rung in found] == sizes
    assert [str(rung.share) for rung in found] == shares


@given(st.fractions(0, 1), st.integers(1, 10_000))
def test_a_rung_stops_within_its_training_after_at_least_one_step(share: Fraction, steps: int):
    assert 1 <= schedule.stop_at(share, steps) <= steps


@given(LENGTHS, st.integers(1, 30_000), st.data())
def test_whoever_goes_on_a_plan_keeps_its_budget(
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
        total += sum(one.costs[rung] for one in going)
    assert total <= made.at_most(0, [one.key for one in made.entries]) <= tokens


@given(LENGTHS, st.integers(1, 30_000))
def test_what_a_plan_costs_is_what_its_steps_see(lengths: list[list[int]], tokens: int):
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
        seen = (epoch * 2)[: entry.stops[-1]]
        assert sum(entry.costs) == sum(seen)


def test_with_budget_enough_every_training_is_as_long_as_its_recipe_says():
    lengths = [[10] * 30] * 4
    made = schedule.make_search_plan(
        search_courses.courses(lengths), search_courses.search(tokens=10**6), search_courses.key_of
    )
    assert made.factor == 1
    assert [entry.stops for entry in made.entries] == [(10, 30)] * 4


def test_with_less_the_trainings_are_shorter_schedule_and_all():
    lengths = [[10] * 30] * 4
    made = schedule.make_search_plan(
        search_courses.courses(lengths), search_courses.search(tokens=300), search_courses.key_of
    )
    assert {entry.stops for entry in made.entries} == {(5, 15)}  # 4 * 5 + 10 steps of 10 tokens
    assert {entry.recipe.num_train_epochs for entry in made.entries} == {made.factor}


def test_a_budget_of_less_than_a_step_of_each_is_refused():
    with pytest.raises(BudgetError, match="takes 40, the budget is 39"):
        schedule.make_search_plan(
            search_courses.courses([[10]] * 4),
            search_courses.search(tokens=39),
            search_courses.key_of,
        )


def test_minutes_are_planned_with_the_paces_and_something_in_reserve():
    pace = TrainingPace(overhead=6, tokens_per_second=10)
    given = search_courses.courses([[10] * 60] * 4, pace)
    made = schedule.make_search_plan(
        given, search_courses.search(minutes=2), search_courses.key_of, spent=20
    )
    assert made.budget == 100
    planned = made.at_most(0, [one.key for one in made.entries])
    assert 80 < planned <= 90
    (costs,) = {entry.costs for entry in made.entries}
    first, last = next(entry.stops for entry in made.entries)
    assert costs == (6 + first, 6 + last - first)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=9), st.floats(0, 1000), st.floats(0, 99))
def test_allowances_never_come_to_more_than_what_is_left(
    costs: list[float], left: float, rest: float
):
    planned = sum(costs) + rest
    shared = sum(schedule.allowance(left, own, planned) for own in costs)
    assert shared <= left * (1 + 1e-9)


def test_a_plan_is_read_back_as_it_was():
    made = schedule.make_search_plan(
        search_courses.courses([[10] * 9] * 3),
        search_courses.search(tokens=999),
        search_courses.key_of,
    )
    assert schedule.SearchPlan.model_validate_json(made.model_dump_json()) == made
