"""Tango's interval and test against published figures, a direct maximization and scipy."""

import math
from typing import Any

import pytest
from scipy import optimize, stats
from statsmodels.stats import contingency_tables

from components.gate import significance
from components.gate.significance import WinLossCounts


@pytest.mark.parametrize(
    ("counts", "tail", "low", "high"),
    [
        # Airway hyper-responsiveness: Fagerland, Lydersen and Laake 2014, Stat. Med. 33:2850.
        pytest.param(WinLossCounts(1, 7, 21), 0.025, -0.517, -0.026, id="fagerland"),
        # R: PropCIs::scoreci.mp(25, 28, 618, conf.level = 0.9)
        pytest.param(WinLossCounts(28, 25, 618), 0.05, -0.0148, 0.0247, id="r"),
        # By hand: with no difference seen the ends are those of z^2 / (n + z^2).
        pytest.param(WinLossCounts(0, 0, 50), 0.025, -0.0713, 0.0713, id="nothing-differs"),
    ],
)
def test_the_interval_is_the_published_one(
    counts: WinLossCounts, tail: float, low: float, high: float
):
    digits = 5e-4 if counts.n == 21 else 5e-5
    assert significance.score_interval(counts, tail) == pytest.approx((low, high), abs=digits)


@pytest.mark.parametrize(
    ("wins", "losses", "n", "lead"),
    [(12, 2, 50, 0.05), (3, 9, 80, -0.2), (1, 0, 60, -0.1), (30, 25, 100, 0.3), (0, 4, 40, 0.02)],
)
def test_the_variance_is_that_of_the_maximum_likelihood_estimate(
    wins: int, losses: int, n: int, lead: float
):
    """Maximize the trinomial likelihood given the lead, numerically."""

    def unlikely(lost: float) -> float:
        shares = (lost + lead, lost, 1 - 2 * lost - lead)
        seen = (wins, losses, n - wins - losses)
        likely = [math.log(max(share, 1e-300)) for share in shares]
        return -sum(count * log for count, log in zip(seen, likely, strict=True))

    lower, upper = max(0.0, -lead) + 1e-12, (1 - lead) / 2 - 1e-12
    estimate = optimize.minimize_scalar(
        unlikely, bounds=(lower, upper), method="bounded", options={"xatol": 1e-12}
    )
    lost = float(estimate.x)
    variance = 2 * lost + lead - lead**2
    assert significance.score_variance(WinLossCounts(wins, losses, n), lead) == pytest.approx(
        variance, abs=1e-5
    )


@pytest.mark.parametrize(("wins", "losses"), [(12, 2), (5, 0), (7, 9), (60, 31)])
def test_against_no_lead_it_is_mcnemars_chi_square(wins: int, losses: int):
    table = [[10, wins], [losses, 10]]
    expected: Any = contingency_tables.mcnemar(table, exact=False, correction=False)
    value = significance.score_statistic(WinLossCounts(wins, losses, wins + losses + 20), 0.0)
    assert value**2 == pytest.approx(float(expected.statistic))


@pytest.mark.parametrize("tail", [0.05, 0.025, 0.001])
def test_the_interval_holds_the_leads_that_the_statistic_does_not_refute(tail: float):
    counts = WinLossCounts(9, 4, 70)
    low, high = significance.score_interval(counts, tail)
    bound = float(stats.norm.isf(tail))
    assert significance.score_statistic(counts, low) == pytest.approx(bound, abs=1e-6)
    assert significance.score_statistic(counts, high) == pytest.approx(-bound, abs=1e-6)


@pytest.mark.parametrize(
    ("counts", "ends"),
    [
        pytest.param(
            WinLossCounts(60, 0, 60), (pytest.approx(0.8797, abs=1e-4), 1.0), id="all-won"
        ),
        pytest.param(
            WinLossCounts(0, 60, 60), (-1.0, pytest.approx(-0.8797, abs=1e-4)), id="all-lost"
        ),
    ],
)
def test_an_interval_ends_where_leads_end(counts: WinLossCounts, ends: tuple[float, float]):
    assert significance.score_interval(counts, 0.025) == ends
