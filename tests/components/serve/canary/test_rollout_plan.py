"""A plan is checked before it starts, and says what its traffic can show."""

from dataclasses import replace
from typing import Any

import pytest

from components.serve.canary import rollout_forecast, rollout_plan
from components.serve.canary.rollout_forecast import ExpectedTraffic
from components.serve.canary.rollout_plan import (
    HOUR,
    KindRule,
    RolloutPlan,
    ShareStep,
)

STEPS = (ShareStep(0.01, 6 * HOUR), ShareStep(0.1, 18 * HOUR), ShareStep(0.5, HOUR))
PLAN = RolloutPlan("support", "7", "6", STEPS, deadline_seconds=72 * HOUR)


@pytest.mark.parametrize(
    ("hour", "share"), [(0.0, 0.01), (5.9, 0.01), (6.0, 0.1), (23.9, 0.1), (24.0, 0.5), (999, 0.5)]
)
def test_shares_rise_by_the_clock_and_the_last_one_stays(hour: float, share: float):
    assert PLAN.share_at(hour * HOUR) == share


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"steps": ()}, id="no-steps"),
        pytest.param({"steps": (ShareStep(0.5, 1), ShareStep(0.1, 1))}, id="falling"),
        pytest.param({"steps": (ShareStep(0.1, 1), ShareStep(0.1, 1))}, id="the-same-twice"),
        pytest.param({"steps": (ShareStep(0.0, 1),)}, id="nobody"),
        pytest.param({"steps": (ShareStep(0.5, 1), ShareStep(1.0, 1))}, id="everybody"),
        pytest.param({"steps": (ShareStep(0.5, 0),)}, id="no-time"),
        pytest.param({"deadline_seconds": 24 * HOUR}, id="deadline-before-the-last-step"),
        pytest.param({"alpha": 0.0}, id="no-alpha"),
        pytest.param({"alpha": 1.0}, id="any-alpha"),
        pytest.param({"margin": 1.1}, id="margin-that-is-harmless"),
        pytest.param({"kinds": (KindRule("cut", 0.5), KindRule("cut", 0.1))}, id="kind-twice"),
        pytest.param({"kinds": (KindRule("cut", 0.96),)}, id="more-than-alpha"),
        pytest.param({"kinds": (KindRule("cut", 0.0),)}, id="no-weight"),
        pytest.param({"kinds": (KindRule("cut", 0.5),), "decisive": ("slow",)}, id="not-judged"),
    ],
)
def test_plans_that_cannot_be_kept_are_refused(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="expected"):
        replace(PLAN, **changes)


def test_all_of_alpha_is_split():
    weights = sum(rule.weight for rule in PLAN.kinds) + rollout_plan.DRAWS_WEIGHT
    assert weights == pytest.approx(1.0)


def by_kind(an_hour: float, **risks: float) -> dict[str, rollout_forecast.KindForecast]:
    traffic = ExpectedTraffic(an_hour, risks)  # type: ignore[arg-type]
    return {each.kind: each for each in rollout_forecast.forecast(PLAN, traffic)}


def test_more_traffic_detects_smaller_ratios():
    thin, busy = by_kind(10, invalid=0.02)["invalid"], by_kind(1000, invalid=0.02)["invalid"]
    assert (thin.events, busy.events) == (pytest.approx(14.4), pytest.approx(1440))
    assert thin.detectable is not None
    assert busy.detectable is not None
    assert busy.detectable <= 1.5 < 3 < thin.detectable
    assert thin.hold_chance < 0.2 < 0.9 < busy.hold_chance


def test_a_heavier_kind_detects_more_than_a_lighter_one_of_the_same_risk():
    forecasts = by_kind(30, invalid=0.02, cut=0.02)
    heavy, light = forecasts["invalid"].detectable, forecasts["cut"].detectable
    assert heavy is not None
    assert light is not None
    assert heavy < light


def test_a_window_longer_than_the_canary_shows_nothing():
    rule = KindRule("disliked", 0.2, window_seconds=100 * HOUR)
    plan = replace(PLAN, kinds=(rule,))
    (each,) = rollout_forecast.forecast(plan, ExpectedTraffic(1000, {"disliked": 0.1}))
    assert (each.events, each.detectable, each.hold_chance) == (0.0, None, 0.0)
    assert plan.windows == {"disliked": 100 * HOUR}


def test_frequent_kinds_decide_and_rare_ones_only_roll_back():
    traffic = ExpectedTraffic(200, {"slow": 0.05, "invalid": 0.02, "disliked": 0.002})
    forecasts = rollout_forecast.forecast(PLAN, traffic)
    plan = rollout_forecast.with_decisive_kinds(PLAN, forecasts)
    assert plan.decisive == ("slow",)
    described = rollout_forecast.describe(forecasts, plan.margin)
    assert described[3] == (
        "slow: some 720 bad conversations until the deadline, 2 times as many would be found; "
        "less than 1.5 times as many can be shown"
    )
    assert "can't be shown" in described[0]
    assert described[1].startswith("error: some 0 bad conversations until the deadline, too few")


def test_traffic_too_thin_for_a_decision_has_no_decisive_kind():
    forecasts = rollout_forecast.forecast(PLAN, ExpectedTraffic(1, {"slow": 0.05}))
    assert rollout_forecast.with_decisive_kinds(PLAN, forecasts).decisive == ()
