"""Candidates are compared by what the gate judges, where enough validation rows measure it."""

from pathlib import Path

import pytest

from components.evaluate import holdout_task
from components.scorecard import VALIDATION
from components.train.search import run, schedule
from components.train.search.run import TrialOrder, TrialOutcome, TrialPlacement
from components.train.search.schedule import SearchMetric, SearchMetricError, SearchPlan
from tests.support import holdouts, search_courses


def chosen(rows: int, *tried: str, metric: str | None = "correct_name") -> SearchMetric:
    return schedule.choose_metric(metric, rows, tried, higher_is_better=True)


def test_the_target_is_compared_where_enough_rows_measure_it():
    found = chosen(schedule.FEWEST, "call_margin")
    assert (found.metric, found.rows) == ("correct_name", schedule.FEWEST)


@pytest.mark.parametrize(
    ("rows", "metric", "why"),
    [
        pytest.param(19, "name", "19 validation rows measure name, and it wants 20", id="few"),
        pytest.param(0, None, "the target is not measured on the workload's own", id="elsewhere"),
    ],
)
def test_otherwise_the_loss_stands_in_for_settings_that_it_shows_and_others_are_refused(
    rows: int, metric: str | None, why: str
):
    found = chosen(rows, "learning_rate", metric=metric)
    assert found.metric is None
    assert why in found.why
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
    """Search among candidates of which each row costs the same and scores the same."""
    by = SearchMetric(metric="right", rows=search_courses.ROWS, higher_is_better=higher_is_better)

    def train(orders: list[TrialOrder]) -> list[TrialOutcome]:
        assert {one.metric for one in orders} == {"right"}
        numbers = [one.entry.recipe.r - 1 for one in orders]
        return [
            search_courses.outcome(one, losses[number]).model_copy(
                update={"scores": dict.fromkeys(range(search_courses.ROWS), scores[number])}
            )
            for one, number in zip(orders, numbers, strict=True)
        ]

    return run.run_search(made(len(scores), by), train).places  # pyright: ignore[reportArgumentType]


def made(candidates: int, by: SearchMetric) -> SearchPlan:
    given = search_courses.courses([[10] * 90] * candidates)
    return schedule.make_search_plan(
        given, search_courses.search(tokens=9_000), search_courses.key_of, measure=by
    )


def test_the_best_score_wins_although_its_loss_is_the_worst():
    found = places([0.2, 0.9, 0.5], [1.0, 3.0, 2.0])
    assert [one.entry.key for one in found] == ["r2", "r3", "r1"]
    assert found[0].outcome.score == pytest.approx(0.9)


def test_where_less_is_better_the_lowest_score_wins():
    found = places([0.2, 0.9, 0.5], [1.0, 1.0, 1.0], higher_is_better=False)
    assert found[0].entry.key == "r1"


def test_a_plan_from_before_targets_were_compared_goes_on_by_the_loss():
    old = made(2, SearchMetric()).model_dump(mode="json", exclude={"measure"})
    assert SearchPlan.model_validate(old).measure.metric is None
