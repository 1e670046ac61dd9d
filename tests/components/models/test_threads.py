"""The fastest thread count is used, and torch's own is restored afterwards."""

import pytest
import torch

from components.models import threads


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param({1: 1.0, 2: 0.55, 4: 0.3}, 4, id="an-idle-machine"),
        pytest.param({1: 1.0, 2: 2.7}, 1, id="a-busy-one"),
        pytest.param({1: 1.0, 2: 1.05}, 2, id="no-slower"),
        pytest.param({1: 1.0, 2: 0.5, 4: 0.9}, 2, id="half-of-it-is-busy"),
        pytest.param({1: 1.0, 2: 1.8, 4: 1.9}, 1, id="most-of-it-is-busy"),
        pytest.param({1: 1.0}, 1, id="one-core"),
    ],
)
def test_all_threads_are_used_unless_fewer_are_clearly_faster(
    seconds: dict[int, float], expected: int
):
    assert threads.fastest(seconds) == expected


def test_torchs_thread_count_is_restored_after_an_evaluation():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        measured = threads.Threads()
        counts: list[int] = []
        for _ in range(2):
            with measured.chosen() as taken:
                assert taken == torch.get_num_threads()
                counts.append(taken)
            assert torch.get_num_threads() == 2
        assert counts in ([1, 1], [2, 2])
    finally:
        torch.set_num_threads(before)
