"""Draw a version's ancestry as PNG or SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from components.pages import charts
from components.release.ancestry import (
    Ancestry,
    RowSource,
    ScorecardSummary,
    TrainingRecord,
)

MAX_BOXES = 5  # maximum boxes per row; the last one summarises the rest

HEIGHT, STEP, LINE = 0.7, 1.08, 0.19
"""The height of a box, the distance of rows of boxes, and the distance of lines, in inches."""

LETTER = 0.073  # the width of a letter of the small text, in inches


@dataclass(frozen=True, slots=True)
class ChartBox:
    """A box; ``leads_to`` are the positions, in the row above, of what was made from it."""

    title: str
    lines: tuple[str, ...] = ()
    colour: str = charts.THERE
    leads_to: tuple[int, ...] = (0,)


def draw_ancestry(ancestry: Ancestry, path: Path) -> None:
    """Write a PNG or an SVG by the path's suffix; equal ancestries produce equal files."""
    rows = list(_rows(ancestry))
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
                _arrows(axes, x, y, [_places(rows[number - 1])[above] for above in box.leads_to])
            _box(axes, x, y, box, len(row))
    charts.save(figure, path)


def _rows(ancestry: Ancestry) -> Iterator[list[ChartBox]]:
    version = ancestry.version
    status = ", ".join(ancestry.aliases) or version.decision or "waits for a decision"
    yield [ChartBox(f"{version.name} version {version.number}", (status,), charts.NEW)]
    words = [
        ChartBox(
            f"{d.decision} by {d.approver or 'a name since erased'}",
            (f"{d.decided_at:%Y-%m-%d %H:%M}",),
        )
        for d in ancestry.words
    ]
    yield _cut(words or [ChartBox("nobody has decided yet")])
    reason = next(iter(ancestry.reasons), "")
    every = tuple(range(len(_cut(words)) or 1))
    yield [ChartBox(f"evidence {version.evidence}", (ancestry.outcome, reason), leads_to=every)]
    cards = _cut(
        [
            ChartBox(f"{card.whose}: scorecard", (card.key, f"{card.task}, {_requests(card)}"))
            for card in ancestry.scorecards
        ]
    )
    if cards:
        yield cards
    measured = [
        min(number, len(cards) - 1)
        for number, card in enumerate(ancestry.scorecards)
        if card.adapter == version.adapter
    ]
    leads_to = tuple(dict.fromkeys(measured)) if cards else (0,)
    for learned in ancestry.learned:
        yield from _training(learned, leads_to)
        leads_to = ()


def _training(learned: TrainingRecord, leads_to: tuple[int, ...]) -> Iterator[list[ChartBox]]:
    made_from = learned.made_from
    base = f"base {made_from.base if made_from else 'unknown: its folder is gone'}"
    note = () if leads_to else ("warm start of the adapter above",)
    yield [ChartBox(f"adapter {learned.adapter}", (base, *note), charts.OTHER, leads_to)]
    holdout = f"holdout {learned.holdout_version}" if learned.rows else "its folder is gone"
    yield [ChartBox(f"snapshot {learned.snapshot}", (holdout,), charts.OTHER)]
    if not learned.rows or not learned.sources:
        return
    yield [ChartBox(s.side, (f"{s.row_count:,} rows", *s.first_ids[:1])) for s in learned.rows]
    kinds = list(dict.fromkeys(source.kind for source in learned.sources))
    yield [_traffic(kind, learned) for kind in kinds]
    yield _cut([_source(source, kinds.index(source.kind)) for source in learned.sources])


def _traffic(kind: str, learned: TrainingRecord) -> ChartBox:
    count = sum(source.row_count for source in learned.sources if source.kind == kind)
    events = ", ".join(f"{feedback.events:,} {feedback.kind}" for feedback in learned.feedback)
    leads_to = tuple(at for at, side in enumerate(learned.rows) if getattr(side, kind))
    return ChartBox(f"{count:,} {kind}", (events,) if kind == "feedback" else (), leads_to=leads_to)


def _source(source: RowSource, kind: int) -> ChartBox:
    rows = f"{source.row_count:,} {source.kind}"
    if source.place is None:
        return ChartBox("gone", (rows, "erased, or of no file"), leads_to=(kind,))
    first, last = source.first_line, source.last_line
    lines = "archived" if first is None else f"lines {first} to {last}"
    return ChartBox(Path(source.place).name, (rows, lines), leads_to=(kind,))


def _requests(card: ScorecardSummary) -> str:
    return "its folder is gone" if card.requests is None else f"{card.requests:,} requests"


def _cut(boxes: Sequence[ChartBox]) -> list[ChartBox]:
    if len(boxes) <= MAX_BOXES:
        return list(boxes)
    rest = boxes[MAX_BOXES - 1 :]
    leads_to = tuple(dict.fromkeys(at for box in rest for at in box.leads_to))
    return [*boxes[: MAX_BOXES - 1], ChartBox(f"and {len(rest)} more", leads_to=leads_to)]


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


def _box(axes: Axes, x: float, y: float, box: ChartBox, per_row: int) -> None:
    width = min(charts.WIDTH / per_row - 0.14, 5.4)
    corner = (x - width / 2, y - HEIGHT / 2)
    patch = FancyBboxPatch(corner, width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.06")
    patch.set(facecolor=charts.PAPER, edgecolor=box.colour, linewidth=1.6)
    axes.add_patch(patch)
    lines = [line for line in box.lines if line]
    top = y + LINE * len(lines) / 2
    title = charts.shortened(box.title, int(width / LETTER / 1.3))
    style: dict[str, Any] = {"color": charts.INK, "ha": "center", "va": "center"}
    axes.text(x, top, title, size=8.5, weight="bold", **style)
    for number, line in enumerate(lines, start=1):
        shown = charts.shortened(line, int(width / LETTER))
        axes.text(x, top - LINE * number, shown, size=7.5, weight="normal", **style)
