"""Draw scorecards: each metric's share with its 95 % interval, one colour a model."""

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.drawing import FURTHER, INK, NEW, OTHER, PAPER, THERE
from components.scorecard import Score, Scorecard

COLOURS = (THERE, NEW, OTHER, FURTHER)
Z95 = 1.959964


def draw(scorecards: Mapping[str, Scorecard], path: Path) -> None:
    """Write a PNG, 1050 pixels wide and readable at 700, on white so that any theme can show it.

    Args:
        scorecards: By the name each model has in the legend, at most four; the opponent first, all
            of one task.
        path: Where the PNG goes.
    """
    metrics = next(iter(scorecards.values())).metrics
    figure = Figure(figsize=(7, 1.3 + 0.55 * len(metrics)), dpi=150, facecolor=PAPER)
    axes = figure.add_subplot(facecolor=PAPER)
    colours = dict(zip(scorecards, COLOURS, strict=False))
    for place, (name, card) in enumerate(scorecards.items()):
        shift = (place - (len(scorecards) - 1) / 2) * 0.26
        _dots(axes, card, shift, label=name, colour=colours[name])
    _frame(axes, next(iter(scorecards.values())))
    figure.legend(loc="upper right", ncols=len(scorecards), frameon=False, labelcolor=INK)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    figure.savefig(path, metadata={"Software": None})


def _dots(axes: Axes, card: Scorecard, shift: float, *, label: str, colour: str) -> None:
    axes.plot([], [], "o", color=colour, ms=7, label=label)
    for row, metric in enumerate(card.metrics):
        score, height = card.scores[metric], row + shift
        if score.value is None:
            axes.text(1, height, "not measured", color=colour, va="center", size=9)
            continue
        low, high = wilson(score)
        ends = [100 * low, 100 * high]
        axes.plot(ends, [height] * 2, color=colour, lw=2.5, solid_capstyle="round", clip_on=False)
        axes.plot(100 * score.value, height, "o", color=colour, ms=7, clip_on=False)
        axes.text(103, height, f"{score.value:.0%}", color=colour, va="center", size=10)


def _frame(axes: Axes, card: Scorecard) -> None:
    names = [f"{metric.replace('_', ' ')}\nn = {card.scores[metric].n}" for metric in card.metrics]
    axes.set_yticks(range(len(names)), names, color=INK, size=10)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-1, 101)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)], color=INK)
    axes.grid(axis="x", color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("share of requests, with 95 % interval (Wilson)", color=INK, size=9)


def wilson(score: Score) -> tuple[float, float]:
    """Give the 95 % interval of a share (Wilson 1927, eq. 4; no correction for continuity)."""
    if score.value is None or score.n == 0:
        return 0.0, 1.0
    n, share = score.n, score.value
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    middle, scale = share + Z95**2 / (2 * n), 1 + Z95**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
