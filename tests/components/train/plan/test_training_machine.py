"""The largest batch that fits is found, and what its time costs."""

import pytest

from components.train.plan import bases
from components.train.plan.bases import Worker


def test_a_step_is_split_into_batches_of_one_size():
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
def test_the_largest_batch_that_fits_is_found(free: int, batch: int | None):
    assert bases.largest_batch(16, lambda rows: 10 + 10 * rows, free) == batch


def test_few_batches_are_tried():
    tried: list[int] = []

    def need(rows: int) -> int:
        tried.append(rows)
        return rows

    assert bases.largest_batch(64, need, 3) == 2
    assert len(tried) <= 4


def test_time_costs_what_the_worker_does():
    assert bases.training_cost(1800, Worker(price_per_hour=3)) == pytest.approx(1.5)
    assert bases.training_cost(1800, Worker()) is None
