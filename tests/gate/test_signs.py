"""The sign-flip test against every pattern of signs, McNemar's test and drawn permutations."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from components.gate import mcnemar, signs
from components.gate.pairs import Floats


@pytest.mark.parametrize(
    "sums",
    [
        pytest.param([3.0, -1.0, 2.0, 2.0, 0.0, -4.0, 5.0, 1.0], id="whole"),
        pytest.param([0.31, -0.12, 0.9, 0.05, -0.44, 0.27, 0.6], id="scores"),
        pytest.param([-1.0, -2.0], id="behind"),
        pytest.param([0.0, 0.0], id="level"),
    ],
)
def test_p_value_counts_every_pattern_of_signs(sums: list[float]):
    leads = np.array(sums)
    flipped = [float(np.dot(flips, leads)) for flips in product((-1, 1), repeat=len(sums))]
    as_far = np.mean(np.array(flipped) >= leads.sum() - 1e-9)
    assert signs.p_value(leads) == pytest.approx(float(as_far), abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (15, 5), (40, 22), (3, 9)])
def test_without_clusters_right_and_wrong_answers_give_mcnemars_test(wins: int, losses: int):
    leads = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 30)
    assert signs.p_value(leads) == pytest.approx(mcnemar.p_value(wins, losses), rel=1e-9)


def mean_lead(ours: Floats, theirs: Floats, axis: int) -> Floats:
    return np.mean(ours - theirs, axis=axis)


def test_many_scores_give_what_scipys_drawn_permutations_give():
    leads = np.random.default_rng(3).normal(0.005, 0.2, 400)
    drawn = stats.permutation_test(
        (leads, np.zeros(400)),
        mean_lead,
        permutation_type="samples",
        vectorized=True,
        n_resamples=40_000,
        batch=4_000,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    assert 0.01 < drawn.pvalue < 0.2
    assert signs.p_value(leads) == pytest.approx(float(drawn.pvalue), abs=0.005)


def test_a_lead_beyond_any_number_of_permutations_is_still_told_apart():
    assert signs.p_value(np.linspace(0.1, 1.0, 60)) == pytest.approx(2.0**-60)
