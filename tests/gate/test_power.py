"""Stated power against simulation and an independent formula; forecasts against their promise."""

import numpy as np
import pytest
from scipy import stats

from components.gate import inference, mcnemar, power
from components.gate.intervals import Counts
from components.gate.pairs import independent
from components.gate.power import Rates
from tests import holdout_draws as draws

AT = Rates(difference=0.08, differing=0.2, is_binary=True)


def share_passing(at: Rates, n: int, alpha: float, seed: int, draws: int = 4_000) -> float:
    """Draw holdouts of right and wrong answers, and count how often the exact test passes."""
    wins, losses = (at.differing + at.difference) / 2, (at.differing - at.difference) / 2
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, [wins, losses, 1 - wins - losses], size=draws)
    return float(np.mean([mcnemar.p_value(int(won), int(lost)) <= alpha for won, lost, _ in drawn]))


@pytest.mark.parametrize(("n", "alpha"), [(60, 0.025), (200, 0.025), (400, 0.0025)])
def test_the_chance_of_passing_is_what_simulation_gives(n: int, alpha: float):
    assert share_passing(AT, n, alpha, seed=n) == pytest.approx(
        power.chance(AT, n, alpha), abs=0.03
    )


def test_with_many_requests_it_is_connors_normal_approximation():
    n, alpha, wins, losses = 3_000, 0.025, 0.115, 0.085
    at = Rates(wins - losses, wins + losses, is_binary=True)
    square = wins + losses
    spare = (wins - losses) * np.sqrt(n) - stats.norm.isf(alpha) * np.sqrt(square)
    connor = stats.norm.cdf(spare / np.sqrt(square - (wins - losses) ** 2))
    assert power.chance(at, n, alpha) == pytest.approx(float(connor), abs=0.02)


def test_the_detectable_lead_is_detected_four_times_in_five():
    lead = power.detectable(AT, 150, 0.025)
    assert lead is not None
    at = Rates(lead, AT.differing, is_binary=True)
    assert share_passing(at, 150, 0.025, seed=1) == pytest.approx(0.8, abs=0.03)


def test_the_needed_requests_would_decide_four_times_in_five():
    more = power.needed(AT, 100, 0.025)
    assert more is not None
    assert share_passing(AT, 100 + more, 0.025, seed=2) == pytest.approx(0.8, abs=0.03)
    assert power.needed(AT, 100 + more, 0.025) == 1, "what is open needs at least one more"


def test_a_guard_needs_as_many_as_show_that_it_is_within_its_margin():
    """Simulated with the very test that the gate holds a guard to."""
    at, margin, alpha = Rates(-0.01, 0.1, is_binary=True), 0.06, 0.025
    more = power.needed(at, 50, alpha, margin)
    assert more is not None
    rng = np.random.default_rng(4)
    drawn = rng.multinomial(50 + more, [0.045, 0.055, 0.9], size=1_500)
    passing = [inference.Shares(Counts(won, lost, 50 + more)) for won, lost, _ in drawn]
    shown = np.mean([one.above(-margin) <= alpha for one in passing])
    assert float(shown) == pytest.approx(0.8, abs=0.03)


def test_scores_are_forecast_by_their_spread():
    rng = np.random.default_rng(6)
    theirs = rng.uniform(0.3, 0.5, 100)
    pairs = independent((theirs + rng.normal(0.0, 0.1, 100)).clip(0, 1), theirs)
    at = power.rates(pairs)
    total = 100 + (power.needed(at, 100, 0.025) or 0)
    spread = np.sqrt(at.differing - at.difference**2)
    reckoned = stats.norm.isf(0.025) * np.sqrt(at.differing)  # what sign flips take for the spread
    wanted = ((reckoned + stats.norm.isf(0.2) * spread) / at.difference) ** 2
    assert total == pytest.approx(float(wanted), abs=1)


def test_repeated_requests_are_worth_one():
    rng = np.random.default_rng(8)
    alone = draws.answers(600, 0.05, rng)
    once = power.chance(power.rates(alone), 600, 0.025)
    thrice = power.chance(power.rates(draws.repeated(alone, 3)), 1_800, 0.025)
    assert 0.2 < once < 0.9
    assert thrice == pytest.approx(once, abs=0.04)


@pytest.mark.parametrize(
    ("at", "margin"),
    [
        pytest.param(Rates(0.0, 0.2, is_binary=True), 0.0, id="level"),
        pytest.param(Rates(-0.1, 0.2, is_binary=True), 0.0, id="behind"),
        pytest.param(Rates(-0.1, 0.2, is_binary=True), 0.05, id="beyond-the-margin"),
        pytest.param(Rates(1e-4, 0.2, is_binary=True), 0.0, id="too-close"),
    ],
)
def test_no_number_is_promised_where_none_is_in_sight(at: Rates, margin: float):
    assert power.needed(at, 1_000, 0.025, margin) is None


def test_what_three_requests_can_detect_is_nothing():
    assert power.detectable(AT, 3, 0.025) is None
