"""Alpha is spent over looks and never overspent."""

import pytest

from components.gate import significance


def test_the_first_look_has_half_and_all_looks_together_not_more_than_alpha():
    shares = [significance.allowance(0.05, look) for look in range(1, 10_001)]
    assert shares[0] == 0.025, "so that the first look is the usual two-sided test at 0.05"
    assert shares == sorted(shares, reverse=True)
    assert 0.0499 < sum(shares) < 0.05


def test_planned_looks_share_alpha_and_leave_nothing_for_more():
    assert [significance.allowance(0.05, look, looks=4) for look in (1, 4, 5)] == [
        0.0125,
        0.0125,
        0,
    ]


def test_looks_are_counted_from_one():
    with pytest.raises(ValueError, match="expected a look from 1, found 0"):
        significance.allowance(0.05, 0)


def test_overspent_alpha_leaves_zero():
    assert significance.alpha_left(0.01, [0.025]) == 0
    assert significance.alpha_share(significance.alpha_left(0.01, [0.025]), 2) == 0
