"""BCa intervals against scipy's, and where no resample reaches."""

import numpy as np
import pytest
from scipy import stats

from components.gate import bootstrap, inference
from components.gate.pairs import Pairs, independent
from tests.holdout_draws import repeated


def skewed(n: int, seed: int) -> Pairs:
    rng = np.random.default_rng(seed)
    theirs = rng.uniform(0.2, 0.4, n)
    return independent(theirs + rng.exponential(0.1, n).clip(0, 0.6), theirs)


@pytest.mark.parametrize("n", [150, 400])
def test_with_many_requests_the_interval_is_scipys(n: int):
    pairs = skewed(n, seed=n)
    found = bootstrap.bootstrap(pairs, seed=0, draws=40_000)
    theirs = stats.bootstrap(
        (pairs.differences,), np.mean, n_resamples=40_000, method="BCa", rng=1, batch=5_000
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.end(0.025) == pytest.approx(theirs.low, abs=0.02 * width)
    assert found.end(0.975) == pytest.approx(theirs.high, abs=0.02 * width)
    percentile = float(np.quantile(found.draws, 0.975))
    assert found.end(0.975) > percentile, "it leans the way that the scores are skewed"


def test_clusters_are_drawn_whole():
    alone = skewed(100, seed=5)
    once, fivefold = (bootstrap.bootstrap(one, seed=0) for one in (alone, repeated(alone, 5)))
    assert fivefold.end(0.025) == pytest.approx(once.end(0.025))
    assert fivefold.acceleration == pytest.approx(once.acceleration)


@pytest.mark.parametrize("tail", [0.3, 0.025, 0.001, 1e-6])
def test_a_p_value_is_the_tail_whose_end_it_is(tail: float):
    found = bootstrap.bootstrap(skewed(80, seed=2), seed=0)
    assert found.above(found.end(tail)) == pytest.approx(tail, rel=0.05)


def test_ends_move_outwards_without_end():
    found = bootstrap.bootstrap(skewed(80, seed=2), seed=0)
    ends = [found.end(tail) for tail in (0.4, 0.1, 0.01, 1e-3, 1e-5, 1e-9)]
    assert ends == sorted(ends, reverse=True)
    assert len(set(ends)) == len(ends)


@pytest.mark.parametrize("differing", [0, 1, 3])
def test_scores_that_hardly_differ_are_not_claimed_to_be_equal(differing: int):
    theirs = np.full(60, 0.5)
    ours = theirs.copy()
    ours[:differing] = 0.51
    low, high = inference.infer(independent(ours, theirs)).interval(0.025)
    assert low < -0.05
    assert high > 0.05


def test_equal_scores_give_equal_intervals():
    first, second = (inference.infer(skewed(50, seed=1)).interval(0.025) for _ in range(2))
    assert first == second
