"""The gate's promises on simulated holdouts: the benchmark's, on fewer draws, seeded.

The kinds are plain ones and those in which the sign-flip test passes ten times as many as it may,
as its results on the same draws show.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from components.gate import comparison, significance
from components.gate import judge as gate
from components.gate.paired_scores import Floats
from components.gate.policy import Policy
from components.scorecard import HOLDOUT, Scorecard
from tests.benchmarks import gate as promised
from tests.support import holdout_draws as draws
from tests.support.cards import card

SHAPED = pytest.mark.parametrize(
    "kind",
    [
        "skewed scores, n = 60",
        "skewed scores, n = 200",
        "rare lost conversations, 80",
    ],
)
KINDS = pytest.mark.parametrize("kind", [*promised.KINDS])
BETTER = pytest.mark.parametrize(
    "kind", [kind for kind, described in promised.KINDS.items() if described.lead is not None]
)


@KINDS
def test_a_challenger_that_is_no_better_hardly_ever_passes(kind: str):
    result = promised.null(kind, 200)
    assert result.is_kept, result


@SHAPED
def test_small_gains_with_rare_losses_pass_no_more_often(kind: str):
    """Sign flips assume that a loss that was not drawn is impossible."""
    result = promised.null(kind, 200)
    assert result.is_kept, result
    assert result.peer is not None
    assert result.peer > 3 * promised.FIRST, "symmetric tests pass it"


@KINDS
def test_a_loss_of_the_whole_margin_hardly_ever_passes_a_guard(kind: str):
    result = promised.guarded(kind, 200)
    assert result.is_kept, result


@SHAPED
def test_no_slice_is_called_worse_because_its_gains_are_rare(kind: str):
    result = promised.sliced(kind, 60)
    assert result.is_kept, result
    assert result.peer is not None
    assert result.peer > 0.5


def test_fifty_challengers_that_are_no_better_pass_no_more_often_at_one_holdout():
    result = promised.looks(200)
    assert result.is_kept, result
    assert result.peer is not None
    assert result.peer > 4 * promised.ALPHA, "the looks would have passed, had nothing been spent"


@pytest.mark.parametrize("kind", ["skewed scores, n = 60", "1 turn or 10 lost, 80"])
def test_fifty_looks_at_rare_losses_pass_no_more_often(kind: str):
    result = promised.looks_by_bets(kind, 100)
    assert result.is_kept, result


@pytest.mark.parametrize("redrawn", [0.0, 0.3])
@pytest.mark.parametrize("before", [1, 10, 50])
def test_the_best_of_earlier_looks_passes_no_more_often_once_the_holdout_doubled(
    before: int, redrawn: float
):
    result = promised.favourite(100, before, redrawn, 400)
    assert result.is_kept, result


@pytest.mark.parametrize("redrawn", [0.0, 0.3])
@pytest.mark.slow
def test_a_year_of_looks_often_at_the_favourite_keeps_what_each_doubling_is_promised(
    redrawn: float,
):
    for result in (promised.yearly(redrawn, 60), promised.whole_years(redrawn, 60)):
        assert result.is_kept, result


@pytest.mark.parametrize("kind", ["right or wrong, 5 % in pairs, 600", "1 turn or 10 lost, 400"])
def test_bets_that_continue_from_look_to_look_pass_no_more_often(kind: str):
    result = promised.carrying(kind, 400)
    assert result.is_kept, result


@BETTER
def test_the_share_that_passes_is_the_stated_power(kind: str):
    result = promised.powerful(kind, 400, slack=0.06)
    assert result.is_kept, result


@KINDS
def test_intervals_hold_the_true_lead(kind: str):
    result = promised.covering(kind, 400)
    assert result.is_kept, result


@pytest.mark.parametrize("draw", [draws.answers(0.3), draws.scores, draws.scored_conversations])
def test_the_gate_passes_what_the_tests_show_and_nothing_else(draw: draws.Draw):
    """The judgement of whole scorecards follows the statistics that the promises cover."""
    drawn = draw(100, 40, 0.08, np.random.default_rng(3))
    policy = Policy(abstention_margin=None, floor=0)
    outcomes = {judged(drawn, holdout, policy) for holdout in range(40)}
    assert ("pass", True) in outcomes
    assert outcomes <= {("pass", True), ("inconclusive", False), ("fail", False)}


def judged(drawn: draws.Drawn, holdout: int, policy: Policy) -> tuple[str, bool]:
    pairs = draws.pairs(drawn, holdout)
    cards = [scored(scores, pairs.clusters) for scores in (pairs.ours, pairs.theirs)]
    judgement = gate.judge({HOLDOUT: cards[0]}, {HOLDOUT: cards[1]}, policy)
    paired = comparison.pair_scores(cards[0], cards[1], policy.metric, None).pairs
    return judgement.outcome, significance.superiority(paired, promised.FIRST)[1] <= promised.FIRST


def scored(scores: Floats, clusters: NDArray[np.int64]) -> Scorecard:
    plain = card([float(score) for score in scores], [])
    named = zip(plain.samples, clusters, strict=True)
    return replace(plain, samples=tuple(replace(sample, cluster_id=f"c{c}") for sample, c in named))
