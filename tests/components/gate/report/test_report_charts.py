"""The charts of a case: content and size."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from components.costs import BreakEven
from components.gate.judgement import Slice
from components.gate.report import report_charts
from components.gate.report.report_charts import Effect, Past, Point, front
from components.pages import charts
from tests.support.cards import card

EFFECTS = (
    Effect("correct name", "target", 112, 0.3, 0.2, 0.4, 0.0),
    Effect("piqa: acc", "guard", 200, -0.01, -0.05, 0.03, -0.05),
    Effect("rouge $l$", "shown", 0, None, None, None),
)
SLICES = (
    Slice("client", "web", 80, 30, 4, 0.3, 0.2, 0.4, 1.0, is_worse=False),
    Slice("client", "\x1b$x$", 41, 2, 19, -0.4, -0.6, -0.2, 0.001, is_worse=True),
)
TURNS = (
    Past("01-01", "v1-a", "fail", None, None, None, 0.3),
    Past("01-02", "v2-b", "pass", 0.9, 0.8, 1.0, 0.3),
)


def test_every_chart_is_1050_pixels_wide_and_deterministic(tmp_path: Path) -> None:
    again = drawn()
    for name, chart in drawn().items():
        paths = [tmp_path / f"{name}-{time}.png" for time in ("first", "second")]
        charts.save(chart, paths[0])
        charts.save(again[name], paths[1])
        assert imread(paths[0]).shape[1] == 1050
        assert paths[0].read_bytes() == paths[1].read_bytes()


def drawn() -> dict[str, Figure]:
    costs, cards = BreakEven(0.0015, 0.00005, 0.5, 5000), [card([0.0, 1.0]), card([1.0, 1.0], [])]
    return {
        "differences": report_charts.draw_differences(EFFECTS),
        "slices": report_charts.draw_slices(SLICES, opponent="champion (version 3)"),
        "cost": report_charts.draw_pareto([point("a", 1, 0.5)], metric="correct", currency="USD"),
        "history": report_charts.draw_history(TURNS, metric="correct"),
        "break_even": report_charts.draw_break_even(costs, currency="USD"),
        "scores": report_charts.draw_scores(dict(zip(("base", "challenger"), cards, strict=True))),
    }


def test_more_rows_make_a_taller_chart(tmp_path: Path) -> None:
    heights: list[int] = []
    for count in (1, 3):
        charts.save(report_charts.draw_differences(EFFECTS[:count]), tmp_path / "forest.png")
        heights.append(imread(tmp_path / "forest.png").shape[0])
    assert heights[1] > heights[0] + 100


@pytest.mark.parametrize(
    "costs",
    [
        pytest.param(BreakEven(0.0015, 0.003, 0.5, 9), id="dearer-at-any-utilization"),
        pytest.param(BreakEven(0.0015, 1e-9, 1.0, 9), id="cheaper-at-any-utilization"),
        pytest.param(BreakEven(5.0, 4.9, 0.001, 9), id="hardly-used"),
    ],
)
def test_a_break_even_anywhere_can_be_drawn(costs: BreakEven, tmp_path: Path) -> None:
    charts.save(report_charts.draw_break_even(costs, currency="USD"), tmp_path / "even.png")
    assert imread(tmp_path / "even.png").shape[1] == 1050


def point(name: str, price: float, score: float) -> Point:
    return Point(name, price, score, None, None)


@pytest.mark.parametrize(
    ("points", "names"),
    [
        pytest.param([("cheap", 1, 0.5), ("dear", 2, 0.9)], "cheap dear", id="both-are-best"),
        pytest.param([("cheap", 1, 0.9), ("dear", 2, 0.5)], "cheap", id="dear-and-worse"),
        pytest.param([("cheap", 1, 0.9), ("dear", 2, 0.9)], "cheap", id="dear-and-as-good"),
        pytest.param([("worse", 1, 0.5), ("better", 1, 0.9)], "better", id="at-one-price"),
    ],
)
def test_the_front_has_the_best_score_at_each_price(
    points: list[tuple[str, float, float]], names: str
) -> None:
    assert " ".join(place.name for place in front([point(*place) for place in points])) == names
