"""The lead by traffic: what recurs counts as often as it was asked, what doesn't is bet on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from components.gate import judge
from components.gate.judgement import Judgement
from components.gate.paired_scores import PairedScores, TrafficScores
from components.gate.policy import Policy
from components.scorecard import HOLDOUT
from tests.support.cards import card
from tests.support.holdout_draws import independent

POLICY = Policy(abstention_margin=None, floor=0)
UNGUARDED = Policy(abstention_margin=None, floor=0, traffic_margin=None)


def judged(leads: Sequence[float], asked: Sequence[int], policy: Policy = POLICY) -> Judgement:
    """Judge a challenger by its lead on each request, 1, 0 or -1, and how often it was asked."""
    ours, theirs = (card([float(sign * lead > 0) for lead in leads], []) for sign in (1, -1))
    times: Mapping[str, int] = {
        sample.example_id: count for sample, count in zip(ours.samples, asked, strict=True)
    }
    return judge.judge({HOLDOUT: replace(ours, asked=times)}, {HOLDOUT: theirs}, policy)


def zipf(seed: int, lost: int, share: float = 0.4) -> tuple[list[float], list[int]]:
    """Draw a holdout of 500 questions, asked 4,000 times by Zipf's law, and a challenger's leads.

    It loses the most frequent ones and leads by 20 points on the others.
    """
    rng = np.random.default_rng(seed)
    ranks = 1 + np.flatnonzero(rng.random(500) < share)
    asked = np.maximum(1, np.round(4_000 / ranks / (1 / np.arange(1, 501)).sum())).astype(int)
    place = rng.random(len(ranks))
    leads = np.where(ranks <= lost, -1.0, (place < 0.25) * 1.0 - (place > 0.95))
    return leads.tolist(), asked.tolist()


def test_losing_the_ten_most_frequent_of_500_questions_does_not_pass():
    holdouts = [zipf(seed, lost=10) for seed in range(40)]
    by_requests = [judged(*drawn, UNGUARDED).outcome == "pass" for drawn in holdouts]
    by_traffic = [judged(*drawn).outcome == "pass" for drawn in holdouts]
    assert sum(by_requests) >= 36
    assert sum(by_traffic) <= 1


def test_a_lead_on_all_questions_alike_passes_by_traffic_too():
    passed = [judged(*zipf(seed, lost=0)).outcome == "pass" for seed in range(40)]
    assert sum(passed) >= 30


@pytest.mark.parametrize(
    ("lead", "outcome"),
    [
        pytest.param(-1.0, "fail", id="lost"),
        pytest.param(0.0, "pass", id="kept"),
        pytest.param(1.0, "pass", id="won"),
    ],
)
def test_one_request_that_is_most_of_the_traffic_decides_by_what_was_measured(
    lead: float, outcome: str
):
    """It is 60 % of all traffic, the other 120 requests were asked once."""
    leads = [lead, *[1.0] * 30, *[-1.0] * 6, *[0.0] * 84]
    judgement = judged(leads, [180, *[1] * 120])
    assert judgement.outcome == outcome, judgement.reasons
    assert judged(leads, [180, *[1] * 120], UNGUARDED).outcome == "pass"


def test_the_judgement_has_both_scores_and_the_lost_traffic_in_its_reason():
    judgement = judged([-1.0, *[1.0] * 30, *[0.0] * 90], [200, *[1] * 120])
    target, by_traffic = judgement.comparisons
    assert target.difference == pytest.approx(29 / 121)
    assert by_traffic.difference == pytest.approx(-170 / 320)
    assert by_traffic.opponent == pytest.approx(200 / 320)
    assert judgement.reasons[0].startswith(
        "worse on correct_name by traffic: -53.1 points on 121 requests in 121 clusters, each "
        "counting as often as it was asked"
    )


def test_requests_asked_once_each_are_judged_by_requests_only():
    assert len(judged([1.0] * 40 + [0.0] * 40, [1] * 80).comparisons) == 1


@pytest.mark.parametrize("skew", [0.0, 0.04])
def test_a_loss_of_the_margin_by_traffic_is_hardly_ever_passed(skew: float):
    """Of 150 questions 10 recur and lose nothing; the others lose more the more they are asked."""
    rng, passed, draws = np.random.default_rng(5), 0, 400
    for _ in range(draws):
        rare = rng.choice([1, 2, 3], 140, p=[0.6, 0.3, 0.1])
        weights = np.array([1, 2, 3]) * [0.6, 0.3, 0.1]
        tilt = skew * (np.array([1, 2, 3]) - (weights * [1, 2, 3]).sum() / weights.sum())
        head = 10 * 20
        mean = -0.05 * (head + 140 * weights.sum()) / (140 * weights.sum())
        lead = mean - tilt[rare - 1]
        place = rng.random(140)
        leads = (place < (0.3 + lead) / 2) * 1.0 - (place > 1 - (0.3 - lead) / 2)
        scores = TrafficScores(
            independent(
                np.maximum([*leads, *[0.0] * 10], 0), np.maximum([*-leads, *[0.0] * 10], 0)
            ),
            np.array([*rare, *[20] * 10], dtype=np.float64),
        )
        passed += scores.evidence(-0.05, 0.025) <= 0.025
    assert passed / draws <= 0.025 + 2 * (0.025 * 0.975 / draws) ** 0.5


def test_of_a_conversation_that_does_not_recur_no_more_than_the_cap_counts():
    """As of clusters by requests: 60 turns, each asked once, count as two."""
    clusters = np.array([0] * 60 + [*range(1, 61)])
    lost = PairedScores(np.zeros(120), np.array([1.0] * 60 + [0.0] * 60), clusters)
    assert TrafficScores(lost, np.ones(120)).difference == pytest.approx(-2 / 62)
