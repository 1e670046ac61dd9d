"""Draw the scores of models with their intervals, one colour a model."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.gate.shares import share_interval
from components.pages.charts import (
    DPI,
    FURTHER,
    GRID,
    INK,
    NEW,
    OTHER,
    PAPER,
    THERE,
    WIDTH,
    save,
    size,
)
from components.scorecard import Scorecard

COLOURS = (THERE, NEW, OTHER, FURTHER)


def draw(scorecards: Mapping[str, Scorecard], path: Path) -> None:
    """Write a PNG, 1050 pixels wide and readable at 700, on white so that any theme can show it.

    Args:
        scorecards: By the name each model has in the legend, at most four; the opponent first, all
            of one task.
        path: Where the PNG goes.
    """
    metrics = next(iter(scorecards.values())).metrics
    figure = Figure(figsize=(WIDTH, 1.3 + 0.55 * len(metrics)), dpi=DPI, facecolor=PAPER)
    axes = figure.add_subplot(facecolor=PAPER)
    colours = dict(zip(scorecards, COLOURS, strict=False))
    for place, (name, card) in enumerate(scorecards.items()):
        shift = (place - (len(scorecards) - 1) / 2) * 0.26
        _dots(axes, card, shift, label=name, colour=colours[name])
    _frame(axes, next(iter(scorecards.values())))
    figure.legend(loc="upper right", ncols=len(scorecards), frameon=False, labelcolor=INK)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    save(figure, path)


def _dots(axes: Axes, card: Scorecard, shift: float, *, label: str, colour: str) -> None:
    axes.plot([], [], "o", color=colour, ms=7, label=label)
    for row, metric in enumerate(card.metrics):
        score, height = card.scores[metric], row + shift
        if score.value is None:
            axes.text(1, height, "not measured", color=colour, va="center", size=9)
            continue
        if ends := share_interval(card, metric):
            between = [100 * min(max(end, 0), 1) for end in ends]
            axes.plot(
                between, [height] * 2, color=colour, lw=2.5, solid_capstyle="round", clip_on=False
            )
        axes.plot(100 * score.value, height, "o", color=colour, ms=7, clip_on=False)
        axes.text(103, height, f"{score.value:.0%}", color=colour, va="center", size=10)


def _frame(axes: Axes, card: Scorecard) -> None:
    sizes = {metric: size(score.n, score.clusters) for metric, score in card.scores.items()}
    names = [f"{metric.replace('_', ' ')}\n{sizes[metric]}" for metric in card.metrics]
    axes.set_yticks(range(len(names)), names, color=INK, size=10)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-1, 101)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)], color=INK)
    axes.grid(axis="x", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("mean of the requests, with 95 % interval", color=INK, size=9)
