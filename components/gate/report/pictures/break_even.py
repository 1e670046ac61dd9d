"""Draw what a request costs over the utilization, and where production costs the same."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from components.costs import BreakEven
from components.pages import charts

LEAST = 0.005
"""The lowest utilization that is drawn, unless what is marked lies lower."""

FACTORS = (0.1, 0.25, 0.5, 2.0)
"""Other prices of production that are drawn, as multiples of the assumed one."""


def draw(found: BreakEven, path: Path, *, currency: str) -> None:
    """Write a PNG: the challenger's price falls with the utilization, production's does not.

    Args:
        found: Both prices, and the assumed utilization.
        path: Where it goes.
        currency: What the prices are in.
    """
    figure, axes = charts.sheet(4.4, left=0.12, right=0.92)
    least = min(LEAST, found.utilization / 2, found.least_utilization / 2)
    shares = np.geomspace(least, 1, 200)
    ours, theirs = 1000 * found.full / shares, 1000 * found.production
    bottom = min(ours[-1], theirs * FACTORS[0]) / 2
    top = max(ours[0], theirs * FACTORS[-1]) * 2
    _scale(axes, 100 * least, (bottom, top))
    axes.fill_between(
        100 * shares, ours, top, color=charts.GRID, alpha=0.5, label="the challenger is cheaper"
    )
    axes.plot(100 * shares, ours, color=charts.NEW, lw=2.5, label="challenger")
    _draw_production(axes, theirs)
    assumed, price = 100 * found.utilization, 1000 * found.full / found.utilization
    axes.axvline(assumed, color=charts.THERE, lw=1, ls=":")
    _mark(axes, assumed, price, f"{price:.3g} at {assumed:.3g}%", charts.NEW)
    if found.least_utilization <= 1:
        equal = 100 * found.least_utilization
        _mark(axes, equal, theirs, f"equal at {equal:.3g}%", charts.INK)
    axes.set_xlabel(
        f"utilization, % of the machine's paid time (assumed: {assumed:g})",
        color=charts.INK,
        size=9,
    )
    axes.set_ylabel(f"{currency} for 1,000 requests", color=charts.INK, size=9)
    figure.legend(loc="upper right", ncols=3, frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)


def _scale(axes: Axes, left: float, heights: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, 100)
    axes.set_ylim(*heights)
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_plainly))
    axes.grid(color=charts.GRID, lw=0.8)


def _plainly(value: float, _: int | None) -> str:
    return f"{value:g}"


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
    """Put a dot with its name, to its left where it is far right."""
    across, _ = axes.transAxes.inverted().transform(axes.transData.transform((share, price)))
    is_right = bool(across > 0.6)
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
