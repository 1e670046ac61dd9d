"""Draw the share of thumbs up, day by day and model by model, with its interval."""

from collections.abc import Sequence
from pathlib import Path

from components.monitor import live
from components.monitor.live import Day
from components.pages import charts

COLOURS = (charts.NEW, charts.THERE, charts.OTHER, charts.FURTHER)


def draw(days: Sequence[Day], path: Path) -> None:
    """Write a PNG with a column a day for the busiest models, as many as there are colours."""
    figure, axes = charts.sheet(3.4, left=0.1)
    columns = sorted({one.day for one in days})
    shown = [one.model_name for one in live.by_model(days)][: len(COLOURS)]
    for place, (model, colour) in enumerate(zip(shown, COLOURS, strict=False)):
        shift = 0.16 * (place - (len(shown) - 1) / 2)
        for one in (day for day in days if day.model_name == model):
            rate = live.approval(one)
            if rate is None:
                continue
            x = columns.index(one.day) + shift
            axes.plot([x, x], [100 * rate.low, 100 * rate.high], color=colour, lw=2)
            axes.plot(x, 100 * rate.value, "o", color=colour, ms=5)
        axes.plot([], [], "o", color=colour, label=charts.shortened(model, 40))
    axes.set_ylim(-4, 104)
    axes.set_xlim(-0.7, max(1.0, len(columns) - 0.3))
    step = max(1, len(columns) // 10)
    axes.set_xticks(range(0, len(columns), step), [day[5:] for day in columns[::step]])
    axes.set_ylabel("thumbs up, %", color=charts.INK, size=9)
    axes.grid(axis="y", color=charts.GRID, lw=0.8)
    if shown:
        figure.legend(loc="upper center", ncols=2, frameon=False, fontsize=8)
    charts.save(figure, path)
