"""McNemar's exact test against hand counts and scipy."""

from itertools import product

import pytest
from scipy import stats

from components.gate import significance


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"),
    [
        pytest.param(0, 0, 1.0, id="nothing-decides"),
        pytest.param(1, 0, 0.5, id="one-flip-is-chance"),
        pytest.param(5, 0, 0.03125, id="five-of-five"),
        pytest.param(6, 0, 0.015625, id="six-of-six"),
        pytest.param(8, 1, 0.01953125, id="eight-of-nine"),
        pytest.param(0, 6, 1.0, id="one-sided"),
    ],
)
def test_p_value_is_that_of_the_written_out_binomial(wins: int, losses: int, p_value: float):
    assert significance.mcnemar(wins, losses) == pytest.approx(p_value, rel=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(3, 1), (1, 6), (4, 4), (9, 2)])
def test_p_value_counts_coin_tosses_at_least_as_good(wins: int, losses: int):
    n = wins + losses
    heads = [sum(tosses) for tosses in product((0, 1), repeat=n)]
    assert significance.mcnemar(wins, losses) == pytest.approx(sum(h >= wins for h in heads) / 2**n)


@pytest.mark.parametrize(("wins", "losses"), [(15, 5), (40, 2), (400, 350)])
def test_p_value_is_half_of_scipys_two_sided_one(wins: int, losses: int):
    two_sided = stats.binomtest(wins, wins + losses, 0.5).pvalue
    assert 2 * significance.mcnemar(wins, losses) == pytest.approx(float(two_sided), rel=1e-9)
