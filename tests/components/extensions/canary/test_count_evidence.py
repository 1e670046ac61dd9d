"""Evidence about two arms' risks: its algebra, its edges, and its rates in simulated canaries."""

import functools
import itertools
import math

import numpy as np
import pytest

from components.extensions.canary import count_evidence
from components.extensions.canary.count_evidence import ArmCounts, ShareCounts
from tests.support import canary_traffic
from tests.support.canary_traffic import CanaryTraffic, Floats

ALPHA = 0.05
RUNS = 1_500
MOST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)


def evidence(counts: ShareCounts, ratio: float = 1.0, *, below: bool = False) -> float:
    against = count_evidence.log_evidence_below if below else count_evidence.log_evidence_above
    return math.exp(against(counts, ratio))


def uneven(counts: ShareCounts) -> float:
    return math.exp(count_evidence.log_evidence_uneven(counts))


def likelihood(events: list[tuple[float, bool]], ratio: float) -> float:
    canary = [share * ratio / (share * ratio + 1 - share) for share, _ in events]
    drawn = zip(canary, events, strict=True)
    return math.prod(q if is_canary else 1 - q for q, (_, is_canary) in drawn)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5])
def test_it_is_the_weighted_mean_of_likelihood_ratios(ratio: float):
    events = [(0.01, False), (0.1, True), (0.1, False), (0.5, True), (0.5, True)]
    counts = {0.01: ArmCounts(0, 1), 0.1: ArmCounts(1, 1), 0.5: ArmCounts(2, 0)}
    base = likelihood(events, ratio)
    bets = list(zip(count_evidence.RATIOS, count_evidence.WEIGHTS, strict=True))
    above = sum(weight * likelihood(events, ratio * bet) / base for bet, weight in bets)
    below = sum(weight * likelihood(events, ratio / bet) / base for bet, weight in bets)
    assert evidence(counts, ratio) == pytest.approx(above)
    assert evidence(counts, ratio, below=True) == pytest.approx(below)


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("ratio", [0.7, 1.0, 2.0])
def test_its_expectation_is_one_if_the_ratio_is_true(ratio: float, *, below: bool):
    shares = (0.01, 0.1, 0.5, 0.9)
    mean = 0.0
    for arms in itertools.product((False, True), repeat=4):
        events = list(zip(shares, arms, strict=True))
        counts = {share: ArmCounts(arm, not arm) for share, arm in events}
        mean += likelihood(events, ratio) * evidence(counts, ratio, below=below)
    assert mean == pytest.approx(1.0)


def test_its_expectation_is_at_most_one_if_the_canary_is_better():
    for ratio in (0.1, 0.5, 0.99):
        mean = sum(
            likelihood([(0.3, arm)], ratio) * evidence({0.3: ArmCounts(arm, not arm)})
            for arm in (False, True)
        )
        assert mean < 1


def test_the_check_of_draws_has_an_expectation_of_one():
    mean = sum(
        likelihood([(0.1, arm)], 1.0) * uneven({0.1: ArmCounts(arm, not arm)})
        for arm in (False, True)
    )
    assert mean == pytest.approx(1.0)


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param({}, id="nothing"),
        pytest.param({0.1: ArmCounts()}, id="zeros"),
        pytest.param({0.0: ArmCounts(5, 9), 1.0: ArmCounts(9, 5)}, id="nothing-drawn"),
    ],
)
def test_without_drawn_events_there_is_no_evidence(counts: ShareCounts):
    assert evidence(counts) == evidence(counts, below=True) == pytest.approx(1.0)
    assert count_evidence.ratio_interval(counts, 0.05, 0.05) == (0.0, None)


def test_an_arm_that_a_share_leaves_nothing_is_certainly_wrong():
    assert uneven({0.0: ArmCounts(1, 9)}) == math.inf
    assert uneven({1.0: ArmCounts(9, 1), 0.5: ArmCounts(1, 1)}) == math.inf
    assert uneven({0.0: ArmCounts(0, 9), 1.0: ArmCounts(9, 0)}) == pytest.approx(1.0)


def test_all_events_in_one_arm_are_weighed_without_overflow():
    worst = {0.1: ArmCounts(canary=10_000)}
    assert count_evidence.log_evidence_above(worst, 1.0) > 700
    low, high = count_evidence.ratio_interval(worst, 0.05, 0.05)
    assert (low > 1_000, high) == (True, None)
    low, high = count_evidence.ratio_interval({0.1: ArmCounts(0, 10_000)}, 0.05, 0.05)
    assert low == 0.0
    assert high is not None
    assert high < 0.02


def test_a_few_events_of_the_canary_alone_roll_back_at_a_small_share():
    assert evidence({0.01: ArmCounts(canary=3)}) > 20
    assert evidence({0.1: ArmCounts(canary=2)}) < 20 < evidence({0.1: ArmCounts(canary=4)})


@pytest.mark.parametrize(
    "counts", [{0.1: ArmCounts(9, 20)}, {0.1: ArmCounts(3, 30), 0.5: ArmCounts(40, 44)}]
)
def test_the_interval_ends_where_the_evidence_reaches_its_bound(counts: ShareCounts):
    low, high = count_evidence.ratio_interval(counts, 0.025, 0.05)
    assert high is not None
    assert low < high
    assert evidence(counts, low) == pytest.approx(40, rel=1e-3)
    assert evidence(counts, high, below=True) == pytest.approx(20, rel=1e-3)
    assert evidence(counts, low * 1.1) < 40 < evidence(counts, low / 1.1)


TRAFFIC = CanaryTraffic(risk=0.03, canary_delay=6.0, champion_delay=6.0)


def test_few_canaries_like_the_champion_are_rolled_back_however_often_they_are_looked_at():
    events = canary_traffic.simulate(TRAFFIC, RUNS, 1)
    false = (canary_traffic.rolled_back(events, ALPHA)[0] > 0).mean()
    assert 0.005 < false <= MOST


def test_a_test_that_expects_half_of_the_events_has_more_false_alarms():
    # the negative control: what the shares are needed for
    events = canary_traffic.simulate(CanaryTraffic(0.03, shares=np.full(48, 0.6)), RUNS, 2)
    counts = (*events.cumulative()[:2], np.array([0.5]))
    wrong = canary_traffic.log_evidence(counts, lambda c: count_evidence.log_evidence_above(c, 1.0))
    assert (events.first(wrong >= -math.log(ALPHA))[0] > 0).mean() > 2 * MOST
    assert (canary_traffic.rolled_back(events, ALPHA)[0] > 0).mean() <= MOST


@pytest.mark.slow
def test_late_feedback_under_the_share_at_its_arrival_would_let_worse_versions_pass():
    margin = 1.5
    traffic = CanaryTraffic(0.08, margin, canary_delay=12.0, champion_delay=12.0)
    events = canary_traffic.simulate(traffic, RUNS, 3)
    arrival: Floats = traffic.shares[events.arrival.astype(np.int64)]
    wrong = canary_traffic.log_evidence(
        events.cumulative(arrival), lambda counts: count_evidence.log_evidence_below(counts, margin)
    )
    assert (events.first(wrong >= -math.log(ALPHA))[0] > 0).mean() > 2 * MOST
    assert canary_traffic.held(events, ALPHA, margin).mean() <= MOST


def test_windows_bear_delays_that_depend_on_the_arm():
    traffic = CanaryTraffic(0.1, shares=np.full(48, 0.5), canary_delay=0.2, champion_delay=4.0)
    at_once = canary_traffic.simulate(traffic, RUNS // 3, 4)
    assert (canary_traffic.rolled_back(at_once, ALPHA)[0] > 0).mean() > 2 * MOST
    closed = canary_traffic.simulate(traffic, RUNS // 3, 4, window=24.0)
    assert 0.005 < (canary_traffic.rolled_back(closed, ALPHA)[0] > 0).mean() <= MOST


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_false_alarms_are_exactly_at_most_alpha(share: float):
    chance = canary_traffic.exact_stops(share, 1.0, ALPHA, 400)[-1]
    assert 0.01 < chance <= ALPHA
    assert canary_traffic.exact_stops(share, 0.7, ALPHA, 400)[-1] < chance


@pytest.mark.parametrize(
    ("share", "ratio", "weight", "events"),
    [
        pytest.param(0.1, 3, 0.6, 40, id="invalid-three-times-at-10-percent"),
        pytest.param(0.1, 10, 0.08, 14, id="errors-ten-times-at-10-percent"),
        pytest.param(0.5, 2, 0.08, 110, id="slow-twice-at-50-percent"),
        pytest.param(0.5, 2, 0.11, 100, id="disliked-twice-at-50-percent"),
    ],
)
def test_worse_versions_are_found_within_so_many_events(
    share: float, ratio: float, weight: float, events: int
):
    chances = canary_traffic.exact_stops(share, ratio, ALPHA * weight, events)
    assert chances[events // 2 - 1] < 0.5 < chances[-1]


def test_a_broken_assignment_is_found_and_a_sound_one_rarely_called_broken():
    random = np.random.default_rng(6)

    @functools.cache
    def is_uneven(n: int, k: int) -> bool:
        return count_evidence.log_evidence_uneven({0.1: ArmCounts(k, n - k)}) >= -math.log(ALPHA)

    def is_reached(true: float) -> bool:
        canary = (random.random(4_000) < true).cumsum().tolist()
        return any(map(is_uneven, range(10, 4_001, 10), canary[9::10]))

    for true, least, most in ((0.1, 0.0, 0.1), (0.13, 0.95, 1.0), (0.07, 0.95, 1.0)):
        assert least <= np.mean([is_reached(true) for _ in range(200)]) <= most
