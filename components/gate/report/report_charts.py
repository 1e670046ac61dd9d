"""Charts of a case: scores, differences, slices, history of turns, costs, the break-even."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from components.costs import BreakEven
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


def draw_differences(effects: Sequence[Effect]) -> Figure:
    """Draw a row for each effect, in their order."""
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
    return figure


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


def draw_slices(slices: Sequence[Slice], *, opponent: str) -> Figure:
    """Draw a row for each of the largest slices, in their order."""
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
    return figure


MODEL_COLOURS = (charts.THERE, charts.NEW, charts.OTHER, charts.FURTHER)


def draw_scores(scorecards: Mapping[str, Scorecard]) -> Figure:
    """Draw all scores, a row for each metric (``charts`` has the size).

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
    return figure


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


def draw_history(turns: Sequence[Past], *, metric: str) -> Figure:
    """Draw a column for each of the last turns, the oldest first.

    Lines join the turns of one holdout version; scores of different versions are not comparable.
    """
    shown = list(turns)[-MAX_TURNS:]
    figure, axes = charts.sheet(3.8, left=0.12)
    for column, turn in enumerate(shown):
        _column(axes, column, turn)
    _join(axes, shown)
    _history_frame(figure, axes, shown, metric)
    return figure


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


def draw_pareto(points: Sequence[Point], *, metric: str, currency: str) -> Figure:
    """Draw a dot for each model, at least one; those of the Pareto front are joined."""
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
    return figure


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


def draw_break_even(costs: BreakEven, *, currency: str) -> Figure:
    """Draw how the challenger's price falls with the utilization, while production's does not."""
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
    return figure


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
