"""The largest batch that fits, and the cost of its time."""

import pytest

from components.train.plan import bases
from components.train.plan.bases import Worker


def test_batch_sizes_divide_the_step():
    assert bases.batch_splits(12) == [1, 2, 3, 4, 6, 12]


@pytest.mark.parametrize(
    ("free", "batch"),
    [
        pytest.param(1000, 16, id="all of it fits"),
        pytest.param(90, 8, id="half of it"),
        pytest.param(20, 1, id="one row"),
        pytest.param(19, None, id="nothing"),
    ],
)
def test_the_largest_fitting_batch_is_returned(free: int, batch: int | None):
    assert bases.largest_batch(16, lambda rows: 10 + 10 * rows, free) == batch


def test_few_batch_sizes_are_tried():
    tried: list[int] = []

    def need(rows: int) -> int:
        tried.append(rows)
        return rows

    assert bases.largest_batch(64, need, 3) == 2
    assert len(tried) <= 4


def test_the_cost_is_the_workers_price_times_the_time():
    assert bases.training_cost(1800, Worker(price_per_hour=3)) == pytest.approx(1.5)
    assert bases.training_cost(1800, Worker()) is None
