"""The gate's promises on simulated holdouts: the benchmark's, on fewer draws, seeded.

``slack`` is three standard errors of so few.
"""

import numpy as np
import pytest

from components.gate import judge as gate
from components.gate.policy import Policy
from components.scorecard import HOLDOUT, Scorecard
from tests import holdout_draws as draws
from tests.benchmarks import gate as promised
from tests.cards import card, in_clusters

KINDS = pytest.mark.parametrize("kind", [*promised.KINDS])


@KINDS
def test_a_challenger_that_is_no_better_hardly_ever_passes(kind: str):
    found = promised.null(kind, 200, slack=0.01)
    assert found.is_kept, found


def test_fifty_challengers_that_are_no_better_pass_no_more_often_at_one_holdout():
    found = promised.looks(200)
    assert found.is_kept, found
    unspent = float(found.peer.rsplit(maxsplit=1)[1])
    assert unspent > 4 * promised.ALPHA, "the looks would have passed, had nothing been spent"


@KINDS
def test_as_many_pass_as_was_foretold(kind: str):
    found = promised.powerful(kind, 200, slack=0.06)
    assert found.is_kept, found


@KINDS
def test_intervals_hold_the_true_lead(kind: str):
    found = promised.covering(kind, 60, slack=0.05)
    assert found.is_kept, found


@KINDS
def test_a_loss_of_the_whole_margin_hardly_ever_passes_a_guard(kind: str):
    found = promised.guarded(kind, 60, slack=0.05)
    assert found.is_kept, found


def test_the_gate_passes_what_the_tests_show_and_nothing_else():
    """The judgement of whole scorecards is that of the statistics that the promises are about."""
    rng = np.random.default_rng(3)
    policy = Policy(abstention_margin=None, floor=0)
    outcomes = {judged(100, 0.06, rng, policy) for _ in range(40)}
    assert outcomes == {("pass", True), ("inconclusive", False), ("fail", False)}


def judged(n: int, lead: float, rng: np.random.Generator, policy: Policy) -> tuple[str, bool]:
    pairs = draws.answers(n, lead, rng)
    cards: list[Scorecard] = [
        in_clusters(card([float(one) for one in scores], []), 1)
        for scores in (pairs.ours, pairs.theirs)
    ]
    judgement = gate.judge({HOLDOUT: cards[0]}, {HOLDOUT: cards[1]}, policy)
    shown = promised.inference.superiority(pairs)[1] <= promised.FIRST
    return judgement.outcome, shown
