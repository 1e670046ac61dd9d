"""Rows are shuffled with those of a common prefix adjacent."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from components.train.packing import order_rows

ROWS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), max_size=40)


@given(ROWS, st.integers(1, 9), st.integers(0, 3))
def test_every_row_is_drawn_once_in_the_seeds_order(
    rows: list[list[int]], batch_size: int, seed: int
):
    order = order_rows(rows, batch_size, seed)
    assert sorted(order) == list(range(len(rows)))
    assert order == order_rows(rows, batch_size, seed)


def test_a_batch_has_rows_with_a_common_prefix_of_several_families():
    kinds = 16
    rows = [[row % kinds] * 20 + [row] for row in range(6 * kinds)]
    order = order_rows(rows, 12, seed=1)
    batches = [order[start : start + 12] for start in range(0, len(order), 12)]
    for batch in batches:
        counts = Counter(row % kinds for row in batch)
        assert len(counts) > 1
        assert all(count % 3 == 0 for count in counts.values())


def test_seeds_and_epochs_have_different_orders():
    rows = [[row, *range(20)] for row in range(20)]
    drawn = [order_rows(rows, 4, seed, epoch) for seed in range(5) for epoch in range(4)]
    assert len({tuple(order) for order in drawn}) == 20
    assert all(sorted(order) == list(range(20)) for order in drawn)
    assert order_rows(rows, 4, 1, epoch=3) == order_rows(rows, 4, 1, epoch=3)
