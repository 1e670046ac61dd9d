"""The charts of a case: content and size."""

from pathlib import Path

import pytest
from matplotlib.image import imread

from components.costs import BreakEven
from components.gate.judgement import Slice
from components.gate.report import cost_charts, score_charts
from components.gate.report.cost_charts import Point, front
from components.gate.report.score_charts import Effect, Past

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
    def draw(folder: Path) -> list[Path]:
        folder.mkdir()
        paths = [
            folder / f"{name}.png" for name in ("forest", "slices", "pareto", "history", "even")
        ]
        score_charts.draw_differences(EFFECTS, paths[0])
        score_charts.draw_slices(SLICES, paths[1], opponent="champion (version 3)")
        cost_charts.draw_pareto([point("a", 1, 0.5)], paths[2], metric="correct", currency="USD")
        score_charts.draw_history(TURNS, paths[3], metric="correct")
        cost_charts.draw_break_even(BreakEven(0.0015, 0.00005, 0.5, 5000), paths[4], currency="USD")
        return paths

    first, second = draw(tmp_path / "one"), draw(tmp_path / "two")
    for path, other in zip(first, second, strict=True):
        assert imread(path).shape[1] == 1050
        assert path.read_bytes() == other.read_bytes()


def test_more_rows_make_a_taller_chart(tmp_path: Path) -> None:
    heights: list[int] = []
    for count in (1, 3):
        score_charts.draw_differences(EFFECTS[:count], tmp_path / "forest.png")
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
    cost_charts.draw_break_even(costs, tmp_path / "even.png", currency="USD")
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
