"""The martingale, which may be checked at any time."""

import random

import pytest

from components.monitor import signs


def test_p_values_are_ranks_among_all_so_far() -> None:
    p_values = signs.rank_p_values([1.0, 2.0, 3.0], [2.5, 2.0, 9.0], [0.5, 0.5, 0.5])
    # 3.0 is above 2.5, which is half of itself; 2.0 stands with another 2.0 below two; 9 is on top.
    assert p_values == pytest.approx([1.5 / 4, 3 / 5, 0.5 / 6])


def test_first_step_is_the_mean_of_the_bets() -> None:
    assert signs.martingale_capital([0.1], "either") == pytest.approx([1.0])
    assert signs.martingale_capital([0.1], "up") == pytest.approx([(1.4 + 1.0) / 2])


def test_capital_hardly_ever_grows_hundredfold_while_nothing_changes() -> None:
    fell_for_it = 0
    for seed in range(400):
        draw = random.Random(seed)
        grown = signs.martingale_capital([draw.random() for _ in range(300)], "either")
        fell_for_it += max(grown) >= 20
    assert fell_for_it <= 400 / 20  # Ville: a chance of 1/20 at most


@pytest.mark.parametrize(
    ("direction", "low", "wins"),
    [
        pytest.param("up", True, True, id="rising-scores"),
        pytest.param("up", False, False, id="falling-scores-are-no-rise"),
        pytest.param("either", False, True, id="falling-scores"),
    ],
)
def test_capital_grows_where_ranks_are_one_sided(
    direction: signs.Direction, low: bool, wins: bool
) -> None:
    ranks = [0.2 if low else 0.8] * 60
    assert (max(signs.martingale_capital(ranks, direction)) >= 100) == wins


def test_a_tie_is_broken_equally_in_every_look() -> None:
    assert signs.tie_breaker("r1") == signs.tie_breaker("r1") != signs.tie_breaker("r2")
    assert 0 <= signs.tie_breaker("r1") < 1
