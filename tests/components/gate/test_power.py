"""Stated power against simulation and an independent formula; forecasts against their promise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from components.gate import paired_scores, significance
from components.gate.paired_scores import PairedScores
from components.gate.significance import Rates
from tests.support import holdout_draws as draws
from tests.support.holdout_draws import independent

AT = Rates(difference=0.08, differing=0.2, is_binary=True)


def share_passing(at: Rates, n: int, alpha: float, seed: int, draws: int = 4_000) -> float:
    """Draw holdouts of right and wrong answers, and count how often the exact test passes."""
    wins, losses = (at.differing + at.difference) / 2, (at.differing - at.difference) / 2
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, [wins, losses, 1 - wins - losses], size=draws)
    return float(
        np.mean([significance.mcnemar(int(won), int(lost)) <= alpha for won, lost, _ in drawn])
    )


@pytest.mark.parametrize(("n", "alpha"), [(60, 0.025), (200, 0.025), (400, 0.0025)])
def test_the_power_equals_simulated_power(n: int, alpha: float):
    assert share_passing(AT, n, alpha, seed=n) == pytest.approx(
        significance.power(AT, n, alpha), abs=0.03
    )


def test_with_many_requests_it_is_connors_normal_approximation():
    n, alpha, wins, losses = 3_000, 0.025, 0.115, 0.085
    at = Rates(wins - losses, wins + losses, is_binary=True)
    square = wins + losses
    spare = (wins - losses) * np.sqrt(n) - stats.norm.isf(alpha) * np.sqrt(square)
    connor = stats.norm.cdf(spare / np.sqrt(square - (wins - losses) ** 2))
    assert significance.power(at, n, alpha) == pytest.approx(float(connor), abs=0.02)


def test_the_detectable_lead_is_detected_four_times_in_five():
    lead = significance.detectable(AT, 150, 0.025)
    assert lead is not None
    at = Rates(lead, AT.differing, is_binary=True)
    assert share_passing(at, 150, 0.025, seed=1) == pytest.approx(0.8, abs=0.03)


def test_the_needed_requests_would_decide_four_times_in_five():
    more = significance.needed(AT, 100, 0.025)
    assert more is not None
    assert share_passing(AT, 100 + more, 0.025, seed=2) == pytest.approx(0.8, abs=0.03)
    assert significance.needed(AT, 100 + more, 0.025) == 1, "what is open needs at least one more"


def test_a_guard_needs_as_many_as_show_that_it_is_within_its_margin():
    """Simulated with the gate's own test of a guard."""
    at, margin, alpha = Rates(-0.01, 0.1, is_binary=True), 0.06, 0.025
    more = significance.needed(at, 50, alpha, margin)
    assert more is not None
    place = np.random.default_rng(4).random((50 + more, 1_500))
    leads = (place < 0.045).astype(np.float64) - (place > 1 - 0.055)
    shown = paired_scores.wealth_reached(leads, np.ones(50 + more), 1, -margin, alpha)
    assert float(shown.mean()) == pytest.approx(0.8, abs=0.07)


def test_scores_are_forecast_by_their_spread():
    rng = np.random.default_rng(6)
    theirs = rng.uniform(0.3, 0.5, 100)
    pairs = independent((theirs + rng.normal(0.03, 0.2, 100)).clip(0, 1), theirs)
    at = significance.rates(pairs)
    total = 100 + (significance.needed(at, 100, 0.025) or 0)
    drawn = rng.choice(pairs.differences, (total, 1_500))
    shown = paired_scores.wealth_reached(drawn, np.ones(total), 1, 0.0, 0.025)
    assert 110 < total < 2_000
    assert float(shown.mean()) == pytest.approx(0.8, abs=0.07)


def test_repeated_requests_are_worth_one():
    alone = draws.answered(600, 0.05, np.random.default_rng(8))
    alone = PairedScores(alone.ours, alone.theirs, alone.clusters, bound=2)
    once = significance.power(significance.rates(alone), 600, 0.025)
    thrice = significance.power(significance.rates(draws.repeated(alone, 3)), 1_800, 0.025)
    assert 0.2 < once < 0.9
    assert thrice == pytest.approx(once, abs=0.06)


def test_clusters_that_agree_in_everything_count_as_one_request_each():
    same = PairedScores(np.ones(40), np.ones(40), np.repeat(np.arange(10), 4))
    assert significance.design_effect(replace(same, set_cap=4)) == 4
    assert significance.design_effect(same) == 1, "of a cluster that counts as one"


def test_the_design_effect_is_the_clustered_variance_of_a_linear_model_over_the_plain_one():
    """A mean with clustered errors, as statsmodels estimates it."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(60), rng.integers(1, 7, 60))
    lead = np.sign(rng.normal(size=60)[clusters] + rng.normal(size=len(clusters)))
    pairs = PairedScores((lead > 0).astype(np.float64), (lead < 0).astype(np.float64), clusters)
    pairs = replace(pairs, set_cap=6)  # all weigh what they have
    model: Any = OLS(pairs.differences, np.ones(pairs.n))
    grouped = model.fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    plain = pairs.differences.var() / pairs.n
    effect = float(grouped.cov_params()[0, 0]) / plain * 60 / 59
    assert significance.design_effect(pairs) == pytest.approx(effect)
    assert effect > 1.5


@pytest.mark.parametrize(
    ("at", "margin"),
    [
        pytest.param(Rates(0.0, 0.2, is_binary=True), None, id="level"),
        pytest.param(Rates(-0.1, 0.2, is_binary=True), None, id="behind"),
        pytest.param(Rates(-0.1, 0.2, is_binary=True), 0.05, id="beyond-the-margin"),
        pytest.param(Rates(1e-4, 0.2, is_binary=True), None, id="too-close"),
    ],
)
def test_no_number_is_returned_if_none_is_realistic(at: Rates, margin: float | None):
    assert significance.needed(at, 1_000, 0.025, margin) is None


def test_three_requests_detect_nothing():
    assert significance.detectable(AT, 3, 0.025) is None
