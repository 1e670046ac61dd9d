"""Draw a snapshot's card: verdicts, labels, times and lengths; equal figures, equal bytes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from components.dataset.figures import SIDES, Count, Figures
from components.dataset.rows import Lengths
from components.pages.charts import GRID, INK, NEW, OTHER, PAPER, THERE

COLOURS = {"train": OTHER, "validation": THERE, "holdout": NEW}
MOST_BARS = 20
BINS = 40
WIDE = 6
"""Times the shortest: where the longest row is longer, lengths are drawn on a logarithmic scale."""


def draw(figures: Figures, folder: Path) -> list[tuple[str, str]]:
    """Write the pictures that there are figures for; give each one's file name and title."""
    drawn = [
        _picture(folder, "verdicts", "What became of the interactions", _verdicts, figures),
        _picture(folder, "labels", "Labels by side", _labels, figures),
        _picture(folder, "times", "When they were logged", _times, figures),
    ]
    if any(lengths.prompts for lengths in figures.lengths.values()):
        drawn.append(_picture(folder, "lengths", "Tokens of each row", _lengths, figures))
    return drawn


def _picture(
    folder: Path, name: str, title: str, paint: Callable[[Axes, Figures], None], figures: Figures
) -> tuple[str, str]:
    """Draw one PNG, 1050 pixels wide, on white so that any theme can show it."""
    bars = {"verdicts": len(figures.verdicts), "labels": min(len(figures.labels), MOST_BARS) + 1}
    height = 1.2 + 0.24 * bars[name] if name in bars else 2.8
    figure = Figure(figsize=(7, height), dpi=150, facecolor=PAPER)
    axes = figure.add_subplot(facecolor=PAPER)
    paint(axes, figures)
    axes.tick_params(which="both", length=0, labelcolor=INK, labelsize=8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            loc="upper right", ncols=len(handles), frameon=False, labelcolor=INK, fontsize=8
        )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.25 / height if handles else 1))
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    return f"{name}.png", title


def _verdicts(axes: Axes, figures: Figures) -> None:
    names = sorted(figures.verdicts, key=lambda name: (name != "kept", -figures.verdicts[name]))
    counts = [figures.verdicts[name] for name in names]
    colours = [COLOURS["train"] if name == "kept" else COLOURS["validation"] for name in names]
    axes.barh(range(len(names)), counts, color=colours)
    for row, count in enumerate(counts):
        axes.text(count, row, f" {count:,}", va="center", color=INK, size=8)
    _rows(axes, [name.replace("_", " ") for name in names], "interactions")


def _labels(axes: Axes, figures: Figures) -> None:
    shown = figures.labels[:MOST_BARS]
    rest = figures.labels[MOST_BARS:]
    if rest:
        sums = (sum(getattr(one, side) for one in rest) for side in SIDES)
        shown = [*shown, Count(f"{len(rest):,} others", *sums)]
    _stack(axes.barh, shown, "left")
    _rows(axes, [_short(one.name) for one in shown], "examples")


def _times(axes: Axes, figures: Figures) -> None:
    _stack(axes.bar, figures.times, "bottom")
    step = max(1, len(figures.times) // 8)
    ticks = range(0, len(figures.times), step)
    axes.set_xticks(ticks, [figures.times[tick].name for tick in ticks], rotation=30, ha="right")
    axes.set_ylabel("examples", color=INK, size=8)
    axes.grid(axis="y", color=GRID, lw=0.8)


def _lengths(axes: Axes, figures: Figures) -> None:
    """Draw how long prompt and answer are together, by side."""
    totals = {side: _totals(figures.lengths, side) for side in SIDES if side in figures.lengths}
    every = np.concatenate(list(totals.values()))
    low, high = max(1, int(every.min())), int(every.max()) + 1
    is_wide = high > WIDE * low
    if is_wide:
        edges = np.unique(np.geomspace(low, high, BINS + 1).round())
    else:
        step = -(-(high - low) // BINS)
        edges = np.arange(low, high + step, step)
    bottom = np.zeros(len(edges) - 1)
    for side, lengths in totals.items():
        if len(lengths):
            counts, _ = np.histogram(lengths, edges)
            bars = axes.bar(edges[:-1], counts, np.diff(edges), bottom=bottom, align="edge")
            for bar in bars:
                bar.set_color(COLOURS[side])
            bars.set_label(side)
            bottom += counts
    if is_wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("tokens of prompt and answer", color=INK, size=8)
    axes.set_ylabel("examples", color=INK, size=8)
    axes.grid(axis="y", color=GRID, lw=0.8)


def _totals(lengths: Mapping[str, Lengths], side: str) -> NDArray[np.int64]:
    found = lengths[side]
    return np.array(found.prompts, np.int64) + np.array(found.answers, np.int64)


def _stack(bar: Callable[..., object], counts: Sequence[Count], base: str) -> None:
    """Draw one bar a count, its sides one after the other."""
    before = [0] * len(counts)
    for side in SIDES:
        heights = [int(getattr(one, side)) for one in counts]
        if any(heights):
            bar(range(len(counts)), heights, color=COLOURS[side], label=side, **{base: before})
        before = [low + height for low, height in zip(before, heights, strict=True)]


def _rows(axes: Axes, names: Sequence[str], unit: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.set_xlabel(unit, color=INK, size=8)
    axes.grid(axis="x", color=GRID, lw=0.8)


def _short(name: str) -> str:
    """Give a name that fits: not too long, and no dollar, which would start a formula."""
    clean = "".join(one if one.isprintable() else " " for one in name).replace("$", "\\$")
    return clean if len(clean) <= 36 else clean[:34] + " ..."
