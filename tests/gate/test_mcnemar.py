"""The exact test and its forecast."""

from itertools import product

import pytest

from components.gate import mcnemar


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"),
    [
        pytest.param(0, 0, 1.0, id="nothing-decides"),
        pytest.param(1, 0, 1.0, id="one-flip-is-chance"),
        pytest.param(5, 5, 1.0, id="level"),
        pytest.param(5, 0, 0.0625, id="five-of-five-is-not-enough"),
        pytest.param(6, 0, 0.03125, id="six-of-six-is"),
        pytest.param(8, 1, 0.0390625, id="eight-of-nine"),
        pytest.param(15, 5, 0.04138946533203125, id="fifteen-of-twenty"),
        pytest.param(5, 15, 0.04138946533203125, id="two-sided"),
    ],
)
def test_p_value_is_that_of_the_written_out_binomial(wins: int, losses: int, p_value: float):
    assert mcnemar.exact(wins, losses) == pytest.approx(p_value, rel=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(3, 1), (1, 6), (4, 4), (9, 2)])
def test_p_value_counts_the_coin_tosses_that_are_as_uneven(wins: int, losses: int):
    n = wins + losses
    heads = [sum(tosses) for tosses in product((0, 1), repeat=n)]
    as_uneven = sum(abs(2 * h - n) >= abs(wins - losses) for h in heads)
    assert mcnemar.exact(wins, losses) == pytest.approx(as_uneven / 2**n)


def test_the_forecast_number_of_requests_would_decide_at_unchanged_rates():
    more = mcnemar.more_needed(8, 3, n=100, alpha=0.05)
    assert more is not None
    scale = (100 + more) / 100
    assert mcnemar.exact(round(8 * scale), round(3 * scale)) < 0.05
    assert mcnemar.exact(8, 3) > 0.05


def test_a_decided_comparison_needs_no_more():
    assert mcnemar.more_needed(20, 2, n=100, alpha=0.05) == 0


@pytest.mark.parametrize(
    ("wins", "losses"),
    [
        pytest.param(4, 4, id="level"),
        pytest.param(0, 0, id="same-answers"),
        pytest.param(5001, 5000, id="too-close"),
    ],
)
def test_no_number_is_promised_where_none_is_in_sight(wins: int, losses: int):
    assert mcnemar.more_needed(wins, losses, n=20_000, alpha=0.05) is None
