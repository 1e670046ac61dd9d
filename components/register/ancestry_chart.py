"""Draw a version's ancestry as PNG or SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from components.pages import charts
from components.register.ancestry import (
    Ancestry,
    RowCounts,
    RowSource,
    ScorecardSummary,
    TrainingRecord,
)

MOST_BOXES = 5
"""Boxes beside each other; what is more is told in the last one."""

HEIGHT, STEP, LINE = 0.7, 1.08, 0.19
"""Of a box, from one row of boxes to the next, and from line to line, in inches."""

LETTER = 0.073
"""The width of a letter of the small text, in inches."""


@dataclass(frozen=True, slots=True)
class ChartBox:
    """One thing in the picture.

    ``leads_to`` are the places, in the row above, of what came of it.
    """

    title: str
    lines: tuple[str, ...] = ()
    colour: str = charts.THERE
    leads_to: tuple[int, ...] = (0,)


def draw_ancestry(found: Ancestry, path: Path) -> None:
    """Write a PNG or an SVG, as the path's suffix says; equal ancestries give equal files."""
    rows = list(_rows(found))
    height = STEP * len(rows) + 0.1
    figure = Figure(figsize=(charts.WIDTH, height), dpi=charts.DPI, facecolor=charts.PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, charts.WIDTH)
    axes.set_ylim(0, height)
    axes.axis("off")
    for number, row in enumerate(rows):
        y = height - STEP * (number + 0.5) - 0.05
        for x, box in zip(_places(row), row, strict=True):
            if number > 0:
                _arrows(axes, x, y, [_places(rows[number - 1])[one] for one in box.leads_to])
            _box(axes, x, y, box, len(row))
    charts.save(figure, path)


def _rows(found: Ancestry) -> Iterator[list[ChartBox]]:
    """Give the boxes that stand beside each other, from the version down."""
    version = found.version
    standing = ", ".join(found.aliases) or version.decision or "waits for a decision"
    yield [ChartBox(f"{version.name} version {version.number}", (standing,), charts.NEW)]
    words = [
        ChartBox(
            f"{one.decision} by {one.approver or 'a name since erased'}", (_day(one.decided_at),)
        )
        for one in found.words
    ]
    yield _cut(words or [ChartBox("nobody has decided yet")])
    reason = next(iter(found.reasons), "")
    every = tuple(range(len(_cut(words)) or 1))
    yield [ChartBox(f"evidence {version.evidence}", (found.outcome, reason), leads_to=every)]
    cards = _cut(
        [
            ChartBox(f"{one.whose}: scorecard", (one.key, f"{one.task}, {_requests(one)}"))
            for one in found.scorecards
        ]
    )
    if cards:
        yield cards
    measured = [
        min(number, len(cards) - 1)
        for number, one in enumerate(found.scorecards)
        if one.adapter == version.adapter
    ]
    leads_to = tuple(dict.fromkeys(measured)) if cards else (0,)
    for learned in found.learned:
        yield from _training(learned, leads_to)
        leads_to = ()


def _training(learned: TrainingRecord, leads_to: tuple[int, ...]) -> Iterator[list[ChartBox]]:
    made_from = learned.made_from
    base = f"base {made_from.base if made_from else 'unknown: its folder is gone'}"
    said = () if leads_to else ("the adapter above went on from it",)
    yield [ChartBox(f"adapter {learned.adapter}", (base, *said), charts.OTHER, leads_to)]
    holdout = f"holdout {learned.holdout_version}" if learned.rows else "its folder is gone"
    yield [ChartBox(f"snapshot {learned.snapshot}", (holdout,), charts.OTHER)]
    sides = [one for one in learned.rows if one.count]
    if not sides or not learned.sources:
        return
    yield [ChartBox(one.side, (f"{one.count:,} rows", *one.first_ids[:1])) for one in sides]
    kinds = list(dict.fromkeys(one.kind for one in learned.sources))
    yield [_traffic(kind, learned, sides) for kind in kinds]
    yield _cut([_source(one, kinds.index(one.kind)) for one in learned.sources])


def _traffic(kind: str, learned: TrainingRecord, sides: Sequence[RowCounts]) -> ChartBox:
    count = sum(one.row_count for one in learned.sources if one.kind == kind)
    told = ", ".join(f"{one.events:,} {one.kind}" for one in learned.feedback)
    leads_to = tuple(at for at, one in enumerate(sides) if getattr(one, kind))
    return ChartBox(f"{count:,} {kind}", (told,) if kind == "feedback" else (), leads_to=leads_to)


def _source(one: RowSource, kind: int) -> ChartBox:
    rows = f"{one.row_count:,} {one.kind}"
    if one.place is None:
        return ChartBox("gone", (rows, "erased, or of no file"), leads_to=(kind,))
    lines = "archived" if one.first_line is None else f"lines {one.first_line} to {one.last_line}"
    return ChartBox(Path(one.place).name, (rows, lines), leads_to=(kind,))


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _requests(one: ScorecardSummary) -> str:
    return "its folder is gone" if one.requests is None else f"{one.requests:,} requests"


def _cut(boxes: Sequence[ChartBox]) -> list[ChartBox]:
    """Tell of the boxes for which there is no place in the last one."""
    if len(boxes) <= MOST_BOXES:
        return list(boxes)
    rest = boxes[MOST_BOXES - 1 :]
    leads_to = tuple(dict.fromkeys(at for one in rest for at in one.leads_to))
    return [*boxes[: MOST_BOXES - 1], ChartBox(f"and {len(rest)} more", leads_to=leads_to)]


def _places(row: Sequence[ChartBox]) -> list[float]:
    return [charts.WIDTH * (number + 0.5) / len(row) for number in range(len(row))]


def _arrows(axes: Axes, x: float, y: float, ends: Sequence[float]) -> None:
    for end in ends:
        axes.annotate(
            "",
            xy=(end, y + STEP - HEIGHT / 2),
            xytext=(x, y + HEIGHT / 2),
            arrowprops={"arrowstyle": "-|>", "color": charts.THERE, "lw": 0.8, "shrinkA": 0},
        )


def _box(axes: Axes, x: float, y: float, box: ChartBox, beside: int) -> None:
    width = min(charts.WIDTH / beside - 0.14, 5.4)
    corner = (x - width / 2, y - HEIGHT / 2)
    patch = FancyBboxPatch(corner, width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.06")
    patch.set(facecolor=charts.PAPER, edgecolor=box.colour, linewidth=1.6)
    axes.add_patch(patch)
    lines = [line for line in box.lines if line]
    top = y + LINE * len(lines) / 2
    title = charts.shortened(box.title, int(width / LETTER / 1.3))
    _text(axes, x, top, title, size=8.5, weight="bold")
    for number, line in enumerate(lines, start=1):
        _text(axes, x, top - LINE * number, charts.shortened(line, int(width / LETTER)), size=7.5)


def _text(
    axes: Axes, x: float, y: float, text: str, *, size: float, weight: str = "normal"
) -> None:
    axes.text(x, y, text, size=size, weight=weight, color=charts.INK, ha="center", va="center")
