"""A plan is checked before it starts, and says what its traffic can show."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from components.extensions.canary import count_evidence, rollout_order
from components.extensions.canary.count_evidence import ArmCounts
from components.extensions.canary.rollout_order import HOUR, KindRule, RolloutPlan, ShareStep
from components.serve.rollout_settings import BadKind

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
    weights = sum(rule.weight for rule in PLAN.kinds) + rollout_order.DRAWS_WEIGHT
    assert weights == pytest.approx(1.0)


def test_a_window_longer_than_the_canary_shows_nothing():
    rule = KindRule("disliked", 0.2, window_seconds=100 * HOUR)
    plan = replace(PLAN, kinds=(rule,))
    assert plan.with_decisive_kinds(1000, {"disliked": 0.1}).decisive == ()
    assert plan.windows == {"disliked": 100 * HOUR}


@pytest.mark.parametrize(
    ("an_hour", "decisive"),
    [
        pytest.param(1, (), id="too-thin"),
        pytest.param(200, ("slow",), id="frequent-kinds-decide"),
        pytest.param(1000, ("invalid", "slow"), id="more-traffic-decides-more"),
    ],
)
def test_frequent_kinds_decide_and_rare_ones_only_roll_back(
    an_hour: float, decisive: tuple[str, ...]
):
    risks: dict[BadKind, float] = {"slow": 0.05, "invalid": 0.02, "disliked": 0.002}
    assert PLAN.with_decisive_kinds(an_hour, risks).decisive == decisive


@pytest.mark.parametrize("number", [60, 150, 250])
def test_kinds_decide_that_are_shown_in_four_of_five_canaries_like_the_champion(number: int):
    random = np.random.default_rng(number)
    canary = random.binomial(number, 0.5, 2_000).tolist()
    counts = ({0.5: ArmCounts(each, number - each)} for each in canary)
    bound = -math.log(PLAN.alpha)
    shown = np.mean([count_evidence.log_evidence_below(each, 1.5) >= bound for each in counts])
    steps = (ShareStep(0.5, HOUR),)
    plan = replace(PLAN, steps=steps, deadline_seconds=10 * HOUR, kinds=(KindRule("slow", 0.9),))
    is_decisive = bool(plan.with_decisive_kinds(number, {"slow": 0.1}).decisive)
    assert is_decisive == (shown >= 0.8)
