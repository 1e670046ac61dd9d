"""Draw what models cost against how good they are, with the front that nothing else beats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from components.pages import charts

COLOURS = {"challenger": charts.NEW, "production": charts.OTHER}
"""By the first word of the name; every other model is there already."""

FAR = 20
"""Prices that differ by this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Point:
    """One model: the price of a thousand requests, and its score with its interval, if any."""

    name: str
    price: float
    score: float
    low: float | None
    high: float | None


def front(points: Sequence[Point]) -> list[Point]:
    """Give the points than which none is better at the same price or less; the cheapest first.

    It is the Pareto front of two aims (Miettinen 1999, "Nonlinear Multiobjective Optimization",
    definition 2.2.1).
    """
    best, found = float("-inf"), list[Point]()
    for one in sorted(points, key=lambda point: (point.price, -point.score, point.name)):
        if one.score > best:
            found.append(one)
            best = one.score
    return found


def draw(points: Sequence[Point], path: Path, *, metric: str, currency: str) -> None:
    """Write a PNG with a dot for each model.

    Args:
        points: At least one; those in front are joined.
        path: Where it goes.
        metric: What the score is.
        currency: What the prices are in.
    """
    figure, axes = charts.sheet(4.2, left=0.12)
    _scale(axes, points)
    _draw_front(axes, front(points))
    for one in sorted(points, key=lambda point: point.name == "challenger"):
        colour = _colour(one)
        if one.low is not None and one.high is not None:
            axes.plot([one.price] * 2, [100 * one.low, 100 * one.high], color=colour, lw=2.5)
        axes.plot(one.price, 100 * one.score, "o", color=colour, ms=9)
    _name(axes, points)
    axes.set_xlabel(f"{currency} for 1,000 requests", color=charts.INK, size=9)
    axes.set_ylabel(f"{metric.replace('_', ' ')}, %", color=charts.INK, size=9)
    axes.grid(color=charts.GRID, lw=0.8)
    figure.legend(loc="upper right", frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    prices = [one.price for one in points]
    if min(prices) > 0 and max(prices) / min(prices) >= FAR:
        axes.set_xscale("log")
        axes.set_xlim(min(prices) / 2, max(prices) * 4)
        axes.xaxis.set_major_formatter(FuncFormatter(_plainly))
    else:
        axes.set_xlim(0, 1.35 * max(prices) or 1)
    axes.set_ylim(-4, 108)
    axes.set_yticks(range(0, 101, 20))


def _is_right(axes: Axes, price: float) -> bool:
    """Tell whether a dot is so far right that its name goes to its left."""
    across, _ = axes.transAxes.inverted().transform(axes.transData.transform((price, 0)))
    return bool(across > 0.5)


def _colour(one: Point) -> str:
    return COLOURS.get(one.name.partition(",")[0], charts.THERE)


def _plainly(price: float, _: int | None) -> str:
    return f"{price:g}"


def _draw_front(axes: Axes, kept: Sequence[Point]) -> None:
    right = axes.get_xlim()[1]
    axes.plot(
        [*(one.price for one in kept), right],
        [*(100 * one.score for one in kept), 100 * kept[-1].score],
        color=charts.GRID,
        lw=5,
        drawstyle="steps-post",
        label="the best for each price",
    )


def _name(axes: Axes, points: Sequence[Point]) -> None:
    """Name the dots, best first, each below the one before so that none covers another."""
    below = math.inf
    for one in sorted(points, key=lambda point: (-point.score, point.name)):
        below = min(100 * one.score, below - 6)
        right = _is_right(axes, one.price)
        axes.annotate(
            f"{charts.shortened(one.name)}: {one.score:.0%} for {one.price:.3g}",
            (one.price, below),
            (-9 if right else 9, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            color=_colour(one),
            size=9,
            va="center",
            bbox={"facecolor": charts.PAPER, "edgecolor": "none", "pad": 1},
        )
