"""Draw what each turn's challenger and its opponent scored, turn by turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.pages import charts

MOST = 20
"""The last turns are shown."""


@dataclass(frozen=True, slots=True)
class Past:
    """One turn's scores, as shares with intervals; compared only within a holdout version."""

    day: str
    holdout_version: str
    outcome: str
    challenger: float | None
    low: float | None
    high: float | None
    opponent: float | None


def draw(turns: Sequence[Past], path: Path, *, metric: str) -> None:
    """Write a PNG with a column for each of the last turns, the oldest first.

    Lines join the turns of one holdout version: across versions scores are not compared.
    """
    shown = list(turns)[-MOST:]
    figure, axes = charts.sheet(3.8, left=0.12)
    for column, turn in enumerate(shown):
        _column(axes, column, turn)
    _join(axes, shown)
    _frame(figure, axes, shown, metric)
    charts.save(figure, path)


def _column(axes: Axes, column: int, turn: Past) -> None:
    if turn.opponent is not None:
        axes.plot(column, 100 * turn.opponent, "D", color=charts.THERE, ms=6)
    if turn.challenger is None:
        axes.text(column, 2, "not\nmeasured", color=charts.NEW, ha="center", size=9)
        return
    if turn.low is not None and turn.high is not None:
        axes.plot([column] * 2, [100 * turn.low, 100 * turn.high], color=charts.NEW, lw=2.5)
    face = charts.NEW if turn.outcome == "pass" else charts.PAPER
    axes.plot(column, 100 * turn.challenger, "o", color=charts.NEW, mfc=face, mew=2, ms=8)


def _join(axes: Axes, shown: Sequence[Past]) -> None:
    columns = enumerate(shown)
    for place, (version, together) in enumerate(
        groupby(columns, key=lambda one: one[1].holdout_version)
    ):
        run = [(column, turn.challenger) for column, turn in together]
        measured = [(column, 100 * score) for column, score in run if score is not None]
        axes.plot(
            [c for c, _ in measured], [s for _, s in measured], color=charts.NEW, lw=1, zorder=1
        )
        if place:
            axes.axvline(run[0][0] - 0.5, color=charts.THERE, lw=1, ls=":")
        name = charts.shortened(version.partition("-")[0], 10)
        axes.text(run[0][0] - 0.4, 103, f"holdout {name}", color=charts.THERE, size=8)


def _frame(figure: Figure, axes: Axes, shown: Sequence[Past], metric: str) -> None:
    axes.set_xlim(-0.6, max(2.0, len(shown) - 0.4))
    axes.set_ylim(-4, 110)
    axes.set_yticks(range(0, 101, 20))
    slant = 0 if len(shown) <= 7 else 45
    axes.set_xticks(range(len(shown)), [one.day for one in shown], rotation=slant, size=8)
    axes.grid(axis="y", color=charts.GRID, lw=0.8)
    axes.set_ylabel(f"{metric.replace('_', ' ')}, %", color=charts.INK, size=9)
    axes.set_xlabel("turn", color=charts.INK, size=9)
    axes.plot([], [], "o", color=charts.NEW, ms=8, label="challenger that passed")
    axes.plot([], [], "o", color=charts.NEW, mfc=charts.PAPER, mew=2, ms=8, label="that did not")
    axes.plot([], [], "D", color=charts.THERE, ms=6, label="opponent")
    figure.legend(loc="upper center", ncols=3, frameon=False, labelcolor=charts.INK, fontsize=9)
