"""Loops are found at any position; lists, tables and refrains are not loops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.rules.bad_answers import LONGEST_UNIT, SHORTEST, TIMES, repetition
from tests.support.curated_rows import answered


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        pytest.param("Of course! " + "I can do that. " * 12, "15 characters 12 times", id="short"),
        pytest.param("ha" * 100, "2 characters 100 times", id="syllable"),
        pytest.param("好的" * 100, "2 characters 100 times", id="no-spaces"),
        pytest.param("the long road " * 20 + "\n" * 5, "14 characters 20 times", id="then-ends"),
    ],
)
def test_loops_are_found(text: str, mark: str):
    assert repetition(answered(text)) == mark


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("".join(f"{n}. Item number {n} is here.\n" for n in range(40)), id="list"),
        pytest.param("| --- | --- |\n" * 20, id="rule"),
        pytest.param("0, 0, 0, 0, 0, " * 30, id="numbers"),
        pytest.param("Row, row, row your boat. " * 3, id="refrain"),
        pytest.param("no " * 20, id="emphasis"),
        pytest.param(("a verse of its own %d, " * 9) % tuple(range(9)), id="pattern"),
    ],
)
def test_intended_repetition_is_not_a_loop(text: str):
    assert repetition(answered(text)) is None


@given(
    st.text("abcdefgh ", min_size=3, max_size=LONGEST_UNIT // 8),
    st.integers(TIMES + 1, 40),
    st.text("ijklmnop", max_size=200),
    st.text("ijklmnop", max_size=200),
)
def test_a_loop_is_found_regardless_of_surrounding_text(
    unit: str, times: int, before: str, after: str
):
    if len(unit) * times >= SHORTEST and any(map(str.isalpha, unit)):
        assert repetition(answered(before + unit * times + after)) is not None
