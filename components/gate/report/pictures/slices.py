"""Draw, for each slice of the traffic, the requests that only the one or the other got right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.pages import charts

MOST = 14
"""More slices than this would be too small to read; the largest are shown."""


@dataclass(frozen=True, slots=True)
class Tally:
    """One slice: how many requests, and who got how many right that the other did not.

    ``worse`` tells that the challenger is significantly worse on it.
    """

    name: str
    n: int
    wins: int
    losses: int
    worse: bool = False
    clusters: int | None = None


def draw(tallies: Sequence[Tally], path: Path, *, opponent: str) -> None:
    """Write a PNG with a row for each of the largest slices, in their order."""
    largest = sorted(tallies, key=lambda one: (-one.n, one.name))[:MOST]
    shown = [one for one in tallies if one in largest]
    figure, axes = charts.sheet(1.3 + 0.42 * len(shown))
    charts.rows(
        axes,
        [f"{charts.shortened(one.name)}\n{charts.size(one.n, one.clusters)}" for one in shown],
    )
    reach = max(1.0, *(max(one.wins, one.losses) for one in shown))
    axes.set_xlim(-1.25 * reach, 1.25 * reach)
    axes.axvline(0, color=charts.INK, lw=1)
    for row, one in enumerate(shown):
        axes.barh(row, -one.losses, height=0.55, color=charts.THERE)
        axes.barh(row, one.wins, height=0.55, color=charts.NEW)
        said = f" {one.losses}" + (" worse" if one.worse else "")
        kind = "bold" if one.worse else "normal"
        gap = 0.03 * reach
        axes.text(
            -one.losses - gap, row, said.strip(), ha="right", va="center", size=9, weight=kind
        )
        axes.text(one.wins + gap, row, str(one.wins), ha="left", va="center", size=9)
    ticks = [tick for tick in axes.get_xticks() if abs(tick) <= reach and tick == int(tick)]
    axes.set_xticks(ticks, [str(abs(int(tick))) for tick in ticks])
    axes.set_xlabel("requests that only one of the two got right", color=charts.INK, size=9)
    axes.plot([], [], "s", color=charts.THERE, ms=8, label=f"only the {opponent}")
    axes.plot([], [], "s", color=charts.NEW, ms=8, label="only the challenger")
    figure.legend(loc="upper center", ncols=2, frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)
