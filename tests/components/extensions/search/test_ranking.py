"""Candidates are ranked by their losses row by row, and a tie goes to the smaller adapter."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.extensions.search.run import TrialResult, is_tied, rank_trials


def result(name: str, losses: list[float], size: int = 10) -> TrialResult:
    return TrialResult(name, dict(enumerate(losses)), size)


def shifted(losses: list[float], by: float, noise: float = 0.0) -> list[float]:
    draw = random.Random(0)
    return [loss + by + draw.gauss(0, noise) for loss in losses]


ROWS = [float(1 + row % 7) for row in range(50)]
"""Some rows are much harder than others, for everyone."""


def names(*results: TrialResult) -> list[str]:
    return [trial.candidate for trial in rank_trials(results)]


def test_the_lowest_loss_is_first():
    assert names(result("a", shifted(ROWS, 0.5)), result("b", ROWS)) == ["b", "a"]


def test_rows_that_are_hard_for_all_do_not_hide_a_difference():
    small = result("small", shifted(ROWS, 0.02, noise=0.03), size=1)
    assert names(result("large", ROWS), small) == ["large", "small"]


def test_a_difference_within_its_error_goes_to_the_smaller_adapter():
    small = result("small", shifted(ROWS, 0.001, noise=0.1), size=1)
    large = result("large", ROWS, size=100)
    assert is_tied(*sorted([small, large], key=lambda trial: sum(trial.losses.values())))
    assert names(large, small) == ["small", "large"]


def test_equals_are_ordered_by_size_then_by_name():
    equals = [result("b", ROWS, 2), result("a", ROWS, 2), result("c", ROWS, 1)]
    assert names(*equals) == ["c", "a", "b"]


def test_equal_means_are_decided_by_the_tiebreak():
    first, second = result("a", ROWS), result("b", ROWS)
    first, second = replace(first, tiebreak={0: 2.0}), replace(second, tiebreak={0: 1.0})
    assert names(first, second) == ["b", "a"]


def test_equal_means_are_decided_on_the_rows_that_both_read():
    short = replace(result("short", ROWS), tiebreak={0: 1.0})
    whole = replace(result("whole", ROWS), tiebreak={0: 0.9, 1: 99.0})
    assert names(short, whole) == ["whole", "short"]
    apart = replace(whole, tiebreak={1: 0.1})
    assert names(short, apart) == ["short", "whole"]


def test_ties_are_not_transitive():
    best, tied = result("best", ROWS, 3), result("tied", shifted(ROWS, 0.01, 0.2), 2)
    far = result("far", shifted(ROWS, 0.5), 1)
    assert names(far, best, tied)[-1] == "far"


def test_only_rows_measured_for_all_count():
    short = TrialResult("short", {0: 1.0, 1: 1.0}, 1)
    whole = TrialResult("whole", {0: 0.9, 1: 0.9, 2: 99.0}, 1)
    assert names(short, whole) == ["whole", "short"]


def test_candidates_without_a_common_row_are_refused():
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
def test_the_ranking_is_a_permutation_and_independent_of_the_input_order(
    drawn: list[tuple[list[float], int]], draw: random.Random
):
    results = [result(str(number), losses, size) for number, (losses, size) in enumerate(drawn)]
    ranked = rank_trials(results)
    assert sorted(trial.candidate for trial in ranked) == sorted(
        trial.candidate for trial in results
    )
    mixed = draw.sample(results, len(results))
    assert rank_trials(mixed) == ranked
    best = min(results, key=lambda trial: sum(trial.losses.values()))
    assert ranked[0].size <= best.size
