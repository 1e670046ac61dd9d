"""Charts of costs: cost against quality with its Pareto front, and the break-even."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from components.costs import BreakEven
from components.pages import charts

POINT_COLOURS = {"challenger": charts.NEW, "production": charts.OTHER}
"""By the first word of the name; other models are grey."""

FAR = 20  # prices that differ by this factor are drawn on a logarithmic axis


@dataclass(frozen=True, slots=True)
class Point:
    """One model: the price of a thousand requests, and its score with its interval, if any."""

    name: str
    price: float
    score: float
    low: float | None
    high: float | None


def front(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front of price and score, the cheapest first.

    Source: Miettinen (1999, "Nonlinear Multiobjective Optimization", definition 2.2.1).
    """
    best, on_front = float("-inf"), list[Point]()
    for point in sorted(points, key=lambda point: (point.price, -point.score, point.name)):
        if point.score > best:
            on_front.append(point)
            best = point.score
    return on_front


def draw_pareto(points: Sequence[Point], path: Path, *, metric: str, currency: str) -> None:
    """Write a PNG with a dot for each model, at least one; those of the Pareto front are joined."""
    figure, axes = charts.sheet(4.2, left=0.12)
    _pareto_scale(axes, points)
    _draw_front(axes, front(points))
    for point in sorted(points, key=lambda point: point.name == "challenger"):
        colour = _colour(point)
        if point.low is not None and point.high is not None:
            axes.plot([point.price] * 2, [100 * point.low, 100 * point.high], color=colour, lw=2.5)
        axes.plot(point.price, 100 * point.score, "o", color=colour, ms=9)
    _name(axes, points)
    axes.set_xlabel(f"{currency} for 1,000 requests", color=charts.INK, size=9)
    axes.set_ylabel(f"{metric.replace('_', ' ')}, %", color=charts.INK, size=9)
    axes.grid(color=charts.GRID, lw=0.8)
    figure.legend(loc="upper right", frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)


def _pareto_scale(axes: Axes, points: Sequence[Point]) -> None:
    prices = [point.price for point in points]
    if min(prices) > 0 and max(prices) / min(prices) >= FAR:
        axes.set_xscale("log")
        axes.set_xlim(min(prices) / 2, max(prices) * 4)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.set_xlim(0, 1.35 * max(prices) or 1)
    axes.set_ylim(-4, 108)
    axes.set_yticks(range(0, 101, 20))


def _is_right(axes: Axes, point: tuple[float, float], limit: float) -> bool:
    across, _ = axes.transAxes.inverted().transform(axes.transData.transform(point))
    return bool(across > limit)


def _colour(point: Point) -> str:
    return POINT_COLOURS.get(point.name.partition(",")[0], charts.THERE)


def _draw_front(axes: Axes, kept: Sequence[Point]) -> None:
    right = axes.get_xlim()[1]
    axes.plot(
        [*(point.price for point in kept), right],
        [*(100 * point.score for point in kept), 100 * kept[-1].score],
        color=charts.GRID,
        lw=5,
        drawstyle="steps-post",
        label="the best for each price",
    )


def _name(axes: Axes, points: Sequence[Point]) -> None:
    """Label the dots, best first, each below the one before so that labels don't overlap."""
    below = math.inf
    for point in sorted(points, key=lambda point: (-point.score, point.name)):
        below = min(100 * point.score, below - 6)
        right = _is_right(axes, (point.price, 0), 0.5)
        axes.annotate(
            f"{charts.shortened(point.name)}: {point.score:.0%} for {point.price:.3g}",
            (point.price, below),
            (-9 if right else 9, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            color=_colour(point),
            size=9,
            va="center",
            bbox={"facecolor": charts.PAPER, "edgecolor": "none", "pad": 1},
        )


LEAST = 0.005  # the lowest utilization drawn, unless a mark lies lower

FACTORS = (0.1, 0.25, 0.5, 2.0)  # other prices of production drawn, as multiples of the assumed one


def draw_break_even(costs: BreakEven, path: Path, *, currency: str) -> None:
    """Write a PNG: the challenger's price falls with the utilization, production's does not."""
    figure, axes = charts.sheet(4.4, left=0.12, right=0.92)
    least = min(LEAST, costs.utilization / 2, costs.least_utilization / 2)
    shares = np.geomspace(least, 1, 200)
    ours, theirs = 1000 * costs.full / shares, 1000 * costs.production
    bottom = min(ours[-1], theirs * FACTORS[0]) / 2
    top = max(ours[0], theirs * FACTORS[-1]) * 2
    _break_even_scale(axes, 100 * least, (bottom, top))
    axes.fill_between(
        100 * shares, ours, top, color=charts.GRID, alpha=0.5, label="the challenger is cheaper"
    )
    axes.plot(100 * shares, ours, color=charts.NEW, lw=2.5, label="challenger")
    _draw_production(axes, theirs)
    assumed, price = 100 * costs.utilization, 1000 * costs.full / costs.utilization
    axes.axvline(assumed, color=charts.THERE, lw=1, ls=":")
    _mark(axes, assumed, price, f"{price:.3g} at {assumed:.3g}%", charts.NEW)
    if costs.least_utilization <= 1:
        equal = 100 * costs.least_utilization
        _mark(axes, equal, theirs, f"equal at {equal:.3g}%", charts.INK)
    axes.set_xlabel(
        f"utilization, % of the machine's paid time (assumed: {assumed:g})",
        color=charts.INK,
        size=9,
    )
    axes.set_ylabel(f"{currency} for 1,000 requests", color=charts.INK, size=9)
    figure.legend(loc="upper right", ncols=3, frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)


def _break_even_scale(axes: Axes, left: float, heights: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, 100)
    axes.set_ylim(*heights)
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(color=charts.GRID, lw=0.8)


def _draw_production(axes: Axes, price: float) -> None:
    axes.axhline(price, color=charts.OTHER, lw=2.5, label="production, x its assumed prices")
    for factor in (1.0, *FACTORS):
        if factor != 1:
            axes.axhline(price * factor, color=charts.OTHER, lw=0.8, ls="--")
        axes.annotate(
            f"x {factor:g}",
            (100, price * factor),
            (4, 0),
            textcoords="offset points",
            color=charts.OTHER,
            size=9,
            va="center",
            annotation_clip=False,
        )


def _mark(axes: Axes, share: float, price: float, text: str, colour: str) -> None:
    is_right = _is_right(axes, (share, price), 0.6)
    axes.plot(share, price, "o", color=colour, ms=8)
    axes.annotate(
        text,
        (share, price),
        (-9, -9) if is_right else (9, 9),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="center",
        color=colour,
        size=9,
        bbox={"facecolor": charts.PAPER, "edgecolor": "none", "pad": 1},
    )
