"""As many threads compute as are fastest, and afterwards as many as before."""

import pytest
import torch

from components.evaluate import threads


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param({1: 1.0, 2: 0.55, 4: 0.3}, 4, id="an-idle-machine"),
        pytest.param({1: 1.0, 2: 2.7}, 1, id="a-busy-one"),
        pytest.param({1: 1.0, 2: 0.95}, 1, id="hardly-faster"),
        pytest.param({1: 1.0, 2: 0.95, 4: 0.5, 8: 0.48}, 4, id="no-more-than-help"),
        pytest.param({1: 1.0}, 1, id="one-core"),
    ],
)
def test_the_fewest_threads_are_taken_that_more_do_not_clearly_beat(
    seconds: dict[int, float], expected: int
):
    assert threads.fewest(seconds) == expected


def test_after_an_evaluation_torch_has_its_own_number_of_threads_again():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        one = threads.Threads()
        counts: list[int] = []
        for _ in range(2):
            with one.chosen(torch.device("cpu")) as taken:
                assert taken == torch.get_num_threads()
                counts.append(taken)
            assert torch.get_num_threads() == 2
        assert counts in ([1, 1], [2, 2])
    finally:
        torch.set_num_threads(before)
