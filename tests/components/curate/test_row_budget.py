"""Caps and budgets hold, and growth does not reshuffle the taken rows."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate import row_budget
from components.curate.row_budget import Budget, Trainable
from components.curate.settings import Balance

FREE = Budget(None, None)

trainables = st.builds(
    Trainable,
    example_id=st.uuids().map(str),
    client_id=st.sampled_from(["app", "web", "mobile"]),
    label=st.sampled_from(["weather", "news", None]),
    is_vouched=st.booleans(),
    tokens=st.integers(1, 50),
)
sets = st.lists(trainables, max_size=60, unique_by=lambda row: row.example_id)


def many(client_id: str, count: int, tokens: int = 1) -> list[Trainable]:
    ids = (f"{client_id} {number}" for number in range(count))
    return [Trainable(row_id, client_id, None, False, tokens) for row_id in ids]


def kept(rows: Sequence[Trainable], left_out: Mapping[str, str]) -> list[Trainable]:
    return [row for row in rows if row.example_id not in left_out]


def by_client(rows: Sequence[Trainable]) -> Counter[str]:
    return Counter(row.client_id for row in rows)


def order(row: Trainable) -> tuple[bool, tuple[float, str]]:
    return not row.is_vouched, row_budget.place(row.example_id)


def test_without_a_balance_no_row_is_left_out():
    assert row_budget.leave_out(many("app", 10), Balance(), FREE) == {}


@given(sets, st.integers(1, 8), st.integers(1, 8), st.integers(0, 30), st.integers(0, 400))
def test_caps_and_budgets_hold_and_no_row_is_left_out_without_need(
    rows: list[Trainable], per_label: int, per_client: int, max_rows: int, max_tokens: int
):
    balance = Balance(per_label=per_label, per_client=per_client)
    left_out = row_budget.leave_out(rows, balance, Budget(max_rows, max_tokens))
    taken = kept(rows, left_out)
    assert len(taken) <= max_rows
    assert sum(row.tokens for row in taken) <= max_tokens
    assert all(count <= per_client for count in by_client(taken).values())
    labels = Counter(row.label for row in taken if row.label)
    assert all(count <= per_label for count in labels.values())
    if "over_budget" in left_out.values():
        room = max_tokens - sum(row.tokens for row in taken)
        assert len(taken) == max_rows or room < max(row.tokens for row in rows)


@given(sets, st.integers(1, 8))
def test_rows_of_a_label_are_taken_vouched_first_then_by_hash(rows: list[Trainable], cap: int):
    left_out = row_budget.leave_out(rows, Balance(per_label=cap), FREE)
    for label in ("weather", "news"):
        of_label = sorted((row for row in rows if row.label == label), key=order)
        assert kept(of_label, left_out) == of_label[:cap]
    assert set(left_out.values()) <= {"over_label_cap"}


@given(sets, sets, st.integers(0, 60), st.sampled_from([1.0, 2.0, 100.0]))
def test_growth_keeps_a_prefix_of_each_clients_rows(
    before: list[Trainable], arrived: list[Trainable], max_rows: int, temperature: float
):
    balance, budget = Balance(max_rows=1, temperature=temperature), Budget(max_rows, None)
    known = {row.example_id for row in before}
    after = [*before, *(row for row in arrived if row.example_id not in known)]
    first = {row.example_id for row in kept(before, row_budget.leave_out(before, balance, budget))}
    taken = kept(after, row_budget.leave_out(after, balance, budget))
    for client in by_client(after):
        old = {row.example_id for row in before if row.client_id == client}
        then, now = first & old, {row.example_id for row in taken} & old
        assert then <= now or now <= then


@given(sets, st.integers(1, 40))
def test_row_order_does_not_matter(rows: list[Trainable], max_rows: int):
    balance, budget = Balance(per_label=4), Budget(max_rows, 300)
    left_out = row_budget.leave_out(rows, balance, budget)
    assert row_budget.leave_out(rows[::-1], balance, budget) == left_out


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        pytest.param(1, {"large": 90, "small": 10}, id="as-they-come"),
        pytest.param(2, {"large": 75, "small": 25}, id="square-roots"),
        pytest.param(1e9, {"large": 50, "small": 50}, id="equal"),
    ],
)
def test_temperature_divides_a_budget_between_clients(temperature: float, expected: dict[str, int]):
    rows = many("large", 900) + many("small", 100)
    balance = Balance(max_rows=100, temperature=temperature)
    left_out = row_budget.leave_out(rows, balance, Budget(100, None))
    assert by_client(kept(rows, left_out)) == expected


def test_a_small_clients_unused_part_goes_to_the_others():
    rows = many("large", 900) + many("small", 10)
    left_out = row_budget.leave_out(rows, Balance(max_rows=1, temperature=1e9), Budget(100, None))
    assert by_client(kept(rows, left_out)) == {"large": 90, "small": 10}


def test_a_token_budget_is_divided_by_tokens():
    rows = many("brief", 400, tokens=10) + many("wordy", 40, tokens=100)
    left_out = row_budget.leave_out(rows, Balance(max_tokens=1), Budget(None, 1_000))
    assert by_client(kept(rows, left_out)) == {"brief": 50, "wordy": 5}
