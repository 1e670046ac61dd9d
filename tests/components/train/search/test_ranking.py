"""Candidates are ranked by their losses row by row, and a tie goes to the smaller adapter."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.train.search.run import TrialResult, is_tied, rank_trials


def standing(name: str, losses: list[float], size: int = 10) -> TrialResult:
    return TrialResult(name, dict(enumerate(losses)), size)


def shifted(losses: list[float], by: float, noise: float = 0.0) -> list[float]:
    draw = random.Random(0)
    return [loss + by + draw.gauss(0, noise) for loss in losses]


ROWS = [float(1 + row % 7) for row in range(50)]
"""Some rows are much harder than others, for everyone."""


def names(*standings: TrialResult) -> list[str]:
    return [one.candidate for one in rank_trials(standings)]


def test_the_lowest_loss_is_first():
    assert names(standing("a", shifted(ROWS, 0.5)), standing("b", ROWS)) == ["b", "a"]


def test_rows_that_are_hard_for_all_hide_no_difference():
    small = standing("small", shifted(ROWS, 0.02, noise=0.03), size=1)
    assert names(standing("large", ROWS), small) == ["large", "small"]


def test_a_difference_within_its_error_goes_to_the_smaller_adapter():
    small = standing("small", shifted(ROWS, 0.001, noise=0.1), size=1)
    large = standing("large", ROWS, size=100)
    assert is_tied(*sorted([small, large], key=lambda one: sum(one.losses.values())))
    assert names(large, small) == ["small", "large"]


def test_of_equals_the_smaller_is_first_and_of_equal_sizes_the_first_by_name():
    equals = [standing("b", ROWS, 2), standing("a", ROWS, 2), standing("c", ROWS, 1)]
    assert names(*equals) == ["c", "a", "b"]


def test_equal_means_are_decided_by_what_else_was_measured():
    first, second = standing("a", ROWS), standing("b", ROWS)
    assert names(replace(first, otherwise=2.0), replace(second, otherwise=1.0)) == ["b", "a"]


def test_a_tie_with_a_tie_is_none():
    best, tied = standing("best", ROWS, 3), standing("tied", shifted(ROWS, 0.01, 0.2), 2)
    far = standing("far", shifted(ROWS, 0.5), 1)
    assert names(far, best, tied)[-1] == "far"


def test_only_rows_that_all_were_measured_on_count():
    short = TrialResult("short", {0: 1.0, 1: 1.0}, 1)
    whole = TrialResult("whole", {0: 0.9, 1: 0.9, 2: 99.0}, 1)
    assert names(short, whole) == ["whole", "short"]


def test_candidates_without_a_common_row_are_not_compared():
    with pytest.raises(ValueError, match="no validation row was measured for all"):
        rank_trials([TrialResult("a", {0: 1.0}, 1), TrialResult("b", {1: 1.0}, 1)])


@given(
    st.lists(
        st.tuples(st.lists(st.floats(0, 50), min_size=6, max_size=6), st.integers(1, 4)),
        min_size=1,
        max_size=7,
    ),
    st.randoms(),
)
def test_every_candidate_has_one_place_in_whatever_order_they_come(
    drawn: list[tuple[list[float], int]], draw: random.Random
):
    given = [standing(str(number), losses, size) for number, (losses, size) in enumerate(drawn)]
    ranked = rank_trials(given)
    assert sorted(one.candidate for one in ranked) == sorted(one.candidate for one in given)
    mixed = draw.sample(given, len(given))
    assert rank_trials(mixed) == ranked
    best = min(given, key=lambda one: sum(one.losses.values()))
    assert ranked[0].size <= best.size
