"""An order survives its tag, and nothing else is taken for one."""

import json
from dataclasses import replace
from typing import Any

import pytest

from components.extensions.canary import rollout_order
from components.extensions.canary.latency_limits import LatencyLimits
from components.extensions.canary.rollout_order import (
    HOUR,
    MAX_STEPS,
    RolloutOrder,
    RolloutOrderError,
    RolloutPlan,
    ShareStep,
)

PLAN = RolloutPlan(
    "support",
    "7",
    "6",
    (ShareStep(0.0, HOUR), ShareStep(0.1, HOUR), ShareStep(0.5, HOUR)),
    deadline_seconds=72 * HOUR,
    decisive=("invalid",),
)
LIMITS = LatencyLimits((64, 256), (100.0, 200.0, 400.0))
ORDER = RolloutOrder("0123456789ab", PLAN, LIMITS, "2026-11-27T16:00:00+00:00", shadow=0.2)


def changed(path: str, value: Any) -> str:
    content = json.loads(ORDER.to_text())
    place = content
    *parents, last = path.split(".")
    for parent in parents:
        place = place[int(parent) if parent.isdecimal() else parent]
    place[last] = value
    return json.dumps(content)


def test_an_order_survives_its_tag():
    assert rollout_order.read(ORDER.to_text()) == ORDER
    without = replace(ORDER, limits=None, shadow=0.0)
    assert rollout_order.read(without.to_text()) == without


def test_the_longest_plan_fits_into_a_tag():
    steps = tuple(ShareStep((1 + n) / 1003 / MAX_STEPS, 86399.123456) for n in range(MAX_STEPS))
    sizes = (64, 256, 1024, 4096, 16384)
    order = replace(
        ORDER,
        plan=replace(PLAN, workload="w" * 100, steps=steps, deadline_seconds=8_000_000.0),
        limits=LatencyLimits(sizes, (12345.678901234567,) * 6),
    )
    assert rollout_order.read(order.to_text()) == order


def test_a_longer_one_is_refused_before_it_starts():
    order = replace(ORDER, plan=replace(PLAN, workload="w" * 4_000))
    with pytest.raises(RolloutOrderError, match="fewer steps"):
        order.to_text()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="nothing-in-it"),
        pytest.param("[" * 3_999, id="nested-too-deep"),
        pytest.param(" " * 5_000 + "{}", id="too-long"),
        pytest.param(changed("id", "../../routes"), id="path-as-id"),
        pytest.param(changed("id", 12), id="number-as-id"),
        pytest.param(changed("wish", 1), id="unknown-field"),
        pytest.param(changed("shadow", float("nan")), id="not-a-number"),
        pytest.param(changed("shadow", 1.5), id="shadow-above-1"),
        pytest.param(changed("shadow", True), id="truth-as-number"),
        pytest.param(changed("started_at", "yesterday"), id="no-time"),
        pytest.param(changed("started_at", "2026-11-27T16:00:00"), id="no-time-zone"),
        pytest.param(changed("plan.version", "six"), id="no-version"),
        pytest.param(changed("plan.version", "6"), id="its-own-champion"),
        pytest.param(changed("plan.alpha", 10**400), id="huge-integer"),
        pytest.param(changed("plan.margin", float("inf")), id="infinite-margin"),
        pytest.param(changed("plan.deadline_seconds", 1e300), id="endless"),
        pytest.param(changed("plan.steps", [{"share": 0.1, "seconds": 1e300}] * 2), id="long-step"),
        pytest.param(changed("plan.steps", [{"share": 0, "seconds": 1}]), id="nobody"),
        pytest.param(
            changed("plan.steps", [{"share": n / 50, "seconds": 1} for n in range(50)]),
            id="many-steps",
        ),
        pytest.param(changed("plan.kinds.0.kind", "ugly"), id="unknown-kind"),
        pytest.param(changed("plan.kinds.0.weight", float("nan")), id="weight-not-a-number"),
        pytest.param(changed("plan.kinds.0.weight", 0.9), id="more-than-alpha"),
        pytest.param(changed("plan.kinds.0.harmless", -1), id="negative-ratio"),
        pytest.param(changed("plan.kinds.0.window_seconds", 0), id="empty-window"),
        pytest.param(changed("plan.decisive", ["ugly"]), id="unknown-decisive-kind"),
        pytest.param(changed("limits.milliseconds", [1]), id="limits-without-sizes"),
        pytest.param(changed("limits.sizes", [256, 64]), id="falling-sizes"),
    ],
)
def test_what_is_not_an_order_is_refused_with_a_reason(text: str):
    with pytest.raises(RolloutOrderError, match="reading a canary's order: "):
        rollout_order.read(text)
