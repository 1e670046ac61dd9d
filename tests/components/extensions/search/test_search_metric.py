"""Candidates are compared by the gate's target if enough validation rows measure it."""

from pathlib import Path

import pytest

from components.evaluate import holdout_task
from components.extensions.search import run, schedule
from components.extensions.search.run import TrialOrder, TrialOutcome, TrialPlacement
from components.extensions.search.schedule import SearchMetric, SearchMetricError, SearchPlan
from components.scorecard import VALIDATION
from tests.support import holdouts, search_courses


def chosen(rows: int, *tried: str, metric: str | None = "correct_name") -> SearchMetric:
    return schedule.choose_metric(metric, rows, tried, higher_is_better=True)


def test_the_target_is_compared_if_enough_rows_measure_it():
    measure = chosen(schedule.FEWEST, "call_margin")
    assert (measure.metric, measure.rows) == ("correct_name", schedule.FEWEST)


@pytest.mark.parametrize(
    ("rows", "metric", "why"),
    [
        pytest.param(
            19, "name", "19 validation rows measure name, at least 20 are required", id="few"
        ),
        pytest.param(0, None, "the target is not measured on the workload's own", id="elsewhere"),
    ],
)
def test_otherwise_the_loss_is_compared_and_settings_it_can_not_rate_are_refused(
    rows: int, metric: str | None, why: str
):
    measure = chosen(rows, "learning_rate", metric=metric)
    assert measure.metric is None
    assert why in measure.why
    with pytest.raises(SearchMetricError, match=f"over call_margin, irrelevant_share: {why}"):
        chosen(rows, "irrelevant_share", "r", "call_margin", metric=metric)


@pytest.mark.parametrize(
    ("metric", "count"), [("correct", 3), ("name_and_arguments", 2), ("abstention", 1)]
)
def test_only_requests_that_measure_the_target_count(tmp_path: Path, metric: str, count: int):
    snapshot = holdouts.build(tmp_path, validation=holdouts.CASES)
    assert holdout_task.count_measured(snapshot, "tool_calls", metric, VALIDATION) == count


def places(
    scores: list[float], losses: list[float], *, higher_is_better: bool = True
) -> list[TrialPlacement]:
    """Search among candidates whose rows all have the same loss and the same score."""
    by = SearchMetric(metric="right", rows=search_courses.ROWS, higher_is_better=higher_is_better)

    def train(orders: list[TrialOrder]) -> list[TrialOutcome]:
        assert {order.metric for order in orders} == {"right"}
        numbers = [order.entry.recipe.r - 1 for order in orders]
        return [
            search_courses.outcome(order, losses[number]).model_copy(
                update={"scores": dict.fromkeys(range(search_courses.ROWS), scores[number])}
            )
            for order, number in zip(orders, numbers, strict=True)
        ]

    return run.run_search(made(len(scores), by), train).places  # pyright: ignore[reportArgumentType]


def made(candidates: int, by: SearchMetric) -> SearchPlan:
    courses = search_courses.courses([[10] * 90] * candidates)
    return schedule.make_search_plan(
        courses, search_courses.search(tokens=9_000), search_courses.key_of, measure=by
    )


def test_the_best_score_wins_even_with_the_worst_loss():
    ranked = places([0.2, 0.9, 0.5], [1.0, 3.0, 2.0])
    assert [place.entry.key for place in ranked] == ["r2", "r3", "r1"]
    assert ranked[0].outcome.score == pytest.approx(0.9)


def test_the_lowest_score_wins_if_lower_is_better():
    ranked = places([0.2, 0.9, 0.5], [1.0, 1.0, 1.0], higher_is_better=False)
    assert ranked[0].entry.key == "r1"


def test_a_plan_without_a_measure_resumes_by_the_loss():
    old = made(2, SearchMetric()).model_dump(mode="json", exclude={"measure"})
    assert SearchPlan.model_validate(old).measure.metric is None
