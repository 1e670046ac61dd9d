"""Draw differences between challenger and opponent with their intervals, one a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from matplotlib.axes import Axes

from components.pages import charts

Kind: TypeAlias = Literal["target", "guard", "shown"]

COLOURS: dict[Kind, str] = {
    "target": charts.NEW,
    "guard": charts.OTHER,
    "shown": charts.THERE,
}

MEANINGS: dict[Kind, str] = {
    "target": "what the challenger must be better at",
    "guard": "what it may not be worse at",
    "shown": "only shown",
}


@dataclass(frozen=True, slots=True)
class Effect:
    """One difference, challenger less opponent, as a share of one.

    ``bound`` is what the interval must lie above: zero, or how much worse the policy allows; none
    where nothing is asked. Without a ``difference`` it was not measured.
    """

    name: str
    kind: Kind
    n: int
    difference: float | None
    low: float | None
    high: float | None
    bound: float | None = None
    clusters: int | None = None

    @property
    def size(self) -> str:
        """On how many requests it was measured, and in how many clusters where that is known."""
        return charts.size(self.n, self.clusters)


def draw(effects: Sequence[Effect], path: Path) -> None:
    """Write a PNG with a row for each effect, in their order."""
    figure, axes = charts.sheet(1.3 + 0.42 * len(effects), right=0.87)
    charts.rows(axes, [f"{charts.shortened(one.name)}\n{one.size}" for one in effects])
    axes.set_xlim(*_limits(effects))
    axes.axvline(0, color=charts.INK, lw=1)
    for row, effect in enumerate(effects):
        _row(axes, row, effect)
    axes.set_xlabel("challenger less opponent, in points, with interval", color=charts.INK, size=9)
    kinds: dict[Kind, None] = {one.kind: None for one in effects}
    for kind in kinds:
        axes.plot([], [], "o-", color=COLOURS[kind], lw=2.5, ms=6, label=MEANINGS[kind])
    axes.plot([], [], "|", color=charts.INK, ms=12, mew=1.5, label="must lie right of this")
    figure.legend(loc="upper center", ncols=2, frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)


def _row(axes: Axes, row: int, effect: Effect) -> None:
    colour = COLOURS[effect.kind]
    if effect.difference is None:
        axes.text(0, row, " not measured", color=colour, va="center", size=9)
        return
    said, beside = f"{100 * effect.difference:+.1f}", axes.get_yaxis_transform()
    axes.text(1.02, row, said, color=colour, va="center", size=9, transform=beside)
    if effect.low is not None and effect.high is not None:
        ends = [100 * effect.low, 100 * effect.high]
        axes.plot(ends, [row, row], color=colour, lw=2.5, solid_capstyle="round")
    axes.plot(100 * effect.difference, row, "o", color=colour, ms=7)
    if effect.bound is not None:
        axes.plot(100 * effect.bound, row, "|", color=charts.INK, ms=18, mew=1.5)


def _limits(effects: Sequence[Effect]) -> tuple[float, float]:
    """Say from where to where the axis goes: zero is in it, and a little of either side."""
    seen = [
        100 * value
        for one in effects
        for value in (one.difference, one.low, one.high, one.bound)
        if value is not None
    ]
    low, high = min([-5.0, *seen]), max([5.0, *seen])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)
