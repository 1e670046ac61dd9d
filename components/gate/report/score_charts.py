"""Charts of scores: by model, differences with intervals, slices, history of turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.gate.judgement import Slice
from components.pages import charts
from components.scorecard import Scorecard, share_interval

Kind: TypeAlias = Literal["target", "guard", "shown"]

EFFECT_LEGEND: dict[Kind, tuple[str, str]] = {
    "target": (charts.NEW, "target: must be better"),
    "guard": (charts.OTHER, "guard: must not be worse"),
    "shown": (charts.THERE, "report only"),
}


@dataclass(frozen=True, slots=True)
class Effect:
    """One lead of the challenger, as a share: positive where it is better.

    ``bound`` is the value that the interval must lie above: zero or minus the policy's margin;
    ``None`` for a figure that is only reported. ``difference`` is ``None`` if not measured.
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
        """Label with the number of requests, and of clusters if known."""
        return charts.size(self.n, self.clusters)


def draw_differences(effects: Sequence[Effect], path: Path) -> None:
    """Write a PNG with a row for each effect, in their order."""
    figure, axes = charts.sheet(1.3 + 0.42 * len(effects), right=0.87)
    charts.rows(axes, [f"{charts.shortened(shown.name)}\n{shown.size}" for shown in effects])
    axes.set_xlim(*_limits(effects))
    axes.axvline(0, color=charts.INK, lw=1)
    for row, effect in enumerate(effects):
        _row(axes, row, effect)
    axes.set_xlabel("lead of the challenger, in points, with interval", color=charts.INK, size=9)
    for kind, (colour, meaning) in EFFECT_LEGEND.items():
        if any(effect.kind == kind for effect in effects):
            axes.plot([], [], "o-", color=colour, lw=2.5, ms=6, label=meaning)
    axes.plot([], [], "|", color=charts.INK, ms=12, mew=1.5, label="must lie right of this")
    figure.legend(loc="upper center", ncols=2, frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)


def _row(axes: Axes, row: int, effect: Effect) -> None:
    colour, _ = EFFECT_LEGEND[effect.kind]
    if effect.difference is None:
        axes.text(0, row, " not measured", color=colour, va="center", size=9)
        return
    label, transform = f"{100 * effect.difference:+.1f}", axes.get_yaxis_transform()
    axes.text(1.02, row, label, color=colour, va="center", size=9, transform=transform)
    if effect.low is not None and effect.high is not None:
        ends = [100 * effect.low, 100 * effect.high]
        axes.plot(ends, [row, row], color=colour, lw=2.5, solid_capstyle="round")
    axes.plot(100 * effect.difference, row, "o", color=colour, ms=7)
    if effect.bound is not None:
        axes.plot(100 * effect.bound, row, "|", color=charts.INK, ms=18, mew=1.5)


def _limits(effects: Sequence[Effect]) -> tuple[float, float]:
    # with zero and some space on either side
    seen = [
        100 * value
        for effect in effects
        for value in (effect.difference, effect.low, effect.high, effect.bound)
        if value is not None
    ]
    low, high = min([-5.0, *seen]), max([5.0, *seen])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


MAX_SLICES = 14  # more slices than this would be too small to read; the largest are shown


def draw_slices(slices: Sequence[Slice], path: Path, *, opponent: str) -> None:
    """Write a PNG with a row for each of the largest slices, in their order."""
    named = {f"{part.name}: {part.value}": part for part in slices}
    largest = sorted(named, key=lambda name: (-named[name].n, name))[:MAX_SLICES]
    shown = {name: part for name, part in named.items() if name in largest}
    figure, axes = charts.sheet(1.3 + 0.42 * len(shown))
    sizes = [charts.size(part.n, part.clusters) for part in shown.values()]
    names = map(charts.shortened, shown)
    charts.rows(axes, [f"{name}\n{size}" for name, size in zip(names, sizes, strict=True)])
    reach = max(1.0, *(max(part.wins, part.losses) for part in shown.values()))
    axes.set_xlim(-1.25 * reach, 1.25 * reach)
    axes.axvline(0, color=charts.INK, lw=1)
    gap = 0.03 * reach
    for row, part in enumerate(shown.values()):
        axes.barh(row, -part.losses, height=0.55, color=charts.THERE)
        axes.barh(row, part.wins, height=0.55, color=charts.NEW)
        label = f"{part.losses} worse" if part.is_worse else str(part.losses)
        weight = "bold" if part.is_worse else "normal"
        axes.text(-part.losses - gap, row, label, ha="right", va="center", size=9, weight=weight)
        axes.text(part.wins + gap, row, str(part.wins), ha="left", va="center", size=9)
    ticks = [tick for tick in axes.get_xticks() if abs(tick) <= reach and tick == int(tick)]
    axes.set_xticks(ticks, [str(abs(int(tick))) for tick in ticks])
    axes.set_xlabel("requests that only one of the two got right", color=charts.INK, size=9)
    axes.plot([], [], "s", color=charts.THERE, ms=8, label=f"only the {opponent}")
    axes.plot([], [], "s", color=charts.NEW, ms=8, label="only the challenger")
    figure.legend(loc="upper center", ncols=2, frameon=False, labelcolor=charts.INK, fontsize=9)
    charts.save(figure, path)


MODEL_COLOURS = (charts.THERE, charts.NEW, charts.OTHER, charts.FURTHER)


def draw_scores(scorecards: Mapping[str, Scorecard], path: Path) -> None:
    """Write a PNG of all scores, a row for each metric (``charts`` has the size).

    ``scorecards`` are those of at most four models by name, of one task, the opponent's first.
    """
    metrics = next(iter(scorecards.values())).metrics
    figure = Figure(
        figsize=(charts.WIDTH, 1.3 + 0.55 * len(metrics)), dpi=charts.DPI, facecolor=charts.PAPER
    )
    axes = figure.add_subplot(facecolor=charts.PAPER)
    colours = dict(zip(scorecards, MODEL_COLOURS, strict=False))
    for place, (name, card) in enumerate(scorecards.items()):
        shift = (place - (len(scorecards) - 1) / 2) * 0.26
        _dots(axes, card, shift, label=name, colour=colours[name])
    _score_frame(axes, next(iter(scorecards.values())))
    figure.legend(loc="upper right", ncols=len(scorecards), frameon=False, labelcolor=charts.INK)
    charts.fit(figure, top=0.92)
    charts.save(figure, path)


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


def _score_frame(axes: Axes, card: Scorecard) -> None:
    sizes = {metric: charts.size(score.n, score.clusters) for metric, score in card.scores.items()}
    names = [f"{metric.replace('_', ' ')}\n{sizes[metric]}" for metric in card.metrics]
    axes.set_yticks(range(len(names)), names, color=charts.INK, size=10)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-1, 101)
    axes.set_xticks(
        range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)], color=charts.INK
    )
    axes.grid(axis="x", color=charts.GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("mean of the requests, with 95 % interval", color=charts.INK, size=9)


MAX_TURNS = 20  # older turns are not drawn


@dataclass(frozen=True, slots=True)
class Past:
    """One turn's scores, as shares with intervals; comparable only within a holdout version."""

    day: str
    holdout_version: str
    outcome: str
    challenger: float | None
    low: float | None
    high: float | None
    opponent: float | None


def draw_history(turns: Sequence[Past], path: Path, *, metric: str) -> None:
    """Write a PNG with a column for each of the last turns, the oldest first.

    Lines join the turns of one holdout version; scores of different versions are not comparable.
    """
    shown = list(turns)[-MAX_TURNS:]
    figure, axes = charts.sheet(3.8, left=0.12)
    for column, turn in enumerate(shown):
        _column(axes, column, turn)
    _join(axes, shown)
    _history_frame(figure, axes, shown, metric)
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
        groupby(columns, key=lambda numbered: numbered[1].holdout_version)
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


def _history_frame(figure: Figure, axes: Axes, shown: Sequence[Past], metric: str) -> None:
    axes.set_xlim(-0.6, max(2.0, len(shown) - 0.4))
    axes.set_ylim(-4, 110)
    axes.set_yticks(range(0, 101, 20))
    slant = 0 if len(shown) <= 7 else 45
    axes.set_xticks(range(len(shown)), [turn.day for turn in shown], rotation=slant, size=8)
    axes.grid(axis="y", color=charts.GRID, lw=0.8)
    axes.set_ylabel(f"{metric.replace('_', ' ')}, %", color=charts.INK, size=9)
    axes.set_xlabel("turn", color=charts.INK, size=9)
    axes.plot([], [], "o", color=charts.NEW, ms=8, label="challenger that passed")
    axes.plot([], [], "o", color=charts.NEW, mfc=charts.PAPER, mew=2, ms=8, label="that did not")
    axes.plot([], [], "D", color=charts.THERE, ms=6, label="opponent")
    figure.legend(loc="upper center", ncols=3, frameon=False, labelcolor=charts.INK, fontsize=9)
