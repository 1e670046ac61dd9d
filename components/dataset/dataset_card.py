"""The dataset card of a snapshot (Markdown) and its charts."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from components.dataset.snapshot_figures import CARD, SIDES, Figures, SideCount
from components.pages import charts, templates
from components.pages.charts import GRID, INK, NEW, OTHER, PAPER, THERE
from components.schema import ALWAYS, ClientShares, Json

COLOURS = {"train": OTHER, "validation": THERE, "holdout": NEW}
MAX_BARS = 20
BINS = 40
WIDE = 6  # if the longest row exceeds this multiple of the shortest, the length axis is logarithmic


def draw(figures: Figures, folder: Path) -> list[tuple[str, str]]:
    """Write the charts that have at least two bars; return each chart's file name and title."""
    lengths = np.unique(np.concatenate([*_totals(figures).values()]))
    bars = [
        ("verdicts", "What became of the interactions", _verdicts, len(figures.snapshot.counts)),
        ("labels", "Labels by side", _labels, len(figures.labels)),
        ("times", "When they were logged", _times, len(figures.times)),
        ("lengths", "Tokens of each row", _lengths, len(lengths)),
    ]
    return [
        _picture(folder, name, title, paint, figures)
        for name, title, paint, count in bars
        if count > 1
    ]


def _picture(
    folder: Path, name: str, title: str, paint: Callable[[Axes, Figures], None], figures: Figures
) -> tuple[str, str]:
    """Draw one PNG, 1050 pixels wide, on white so that any theme can show it."""
    labels = min(len(figures.labels), MAX_BARS) + 1
    bars = {"verdicts": len(figures.snapshot.counts), "labels": labels}
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
    charts.fit(figure, top=1 - 0.25 / height if handles else 1)
    charts.save(figure, folder / f"{name}.png")
    return f"{name}.png", title


def _verdicts(axes: Axes, figures: Figures) -> None:
    verdicts = figures.snapshot.counts
    names = sorted(verdicts, key=lambda name: (name != "kept", -verdicts[name]))
    counts = [verdicts[name] for name in names]
    colours = [COLOURS["train"] if name == "kept" else COLOURS["validation"] for name in names]
    axes.barh(range(len(names)), counts, color=colours)
    for row, count in enumerate(counts):
        axes.text(count, row, f" {count:,}", va="center", color=INK, size=8)
    _rows(axes, [name.replace("_", " ") for name in names], "interactions")


def _labels(axes: Axes, figures: Figures) -> None:
    shown, rest = figures.labels[:MAX_BARS], figures.labels[MAX_BARS:]
    if rest:
        shown = [*shown, SideCount.total(f"{len(rest):,} others", rest)]
    _stack(axes.barh, shown, "left")
    _rows(axes, [_short(count.name) for count in shown], "examples")


def _times(axes: Axes, figures: Figures) -> None:
    _stack(axes.bar, figures.times, "bottom")
    step = max(1, len(figures.times) // 8)
    ticks = range(0, len(figures.times), step)
    axes.set_xticks(ticks, [figures.times[tick].name for tick in ticks], rotation=30, ha="right")
    axes.set_ylabel("examples", color=INK, size=8)
    axes.grid(axis="y", color=GRID, lw=0.8)


def _lengths(axes: Axes, figures: Figures) -> None:
    """Draw the histogram of prompt and answer tokens, stacked by side."""
    totals = _totals(figures)
    every = np.concatenate([*totals.values()])
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
            axes.stairs(
                bottom + counts, edges, baseline=bottom, fill=True, color=COLOURS[side], label=side
            )
            bottom = bottom + counts
    if is_wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("tokens of prompt and answer", color=INK, size=8)
    axes.set_ylabel("examples", color=INK, size=8)
    axes.grid(axis="y", color=GRID, lw=0.8)


def _totals(figures: Figures) -> dict[str, NDArray[np.int64]]:
    """Return the tokens of each row by side."""
    return {
        side: np.array(figures.lengths[side].prompts, np.int64)
        + np.array(figures.lengths[side].answers, np.int64)
        for side in SIDES
        if side in figures.lengths
    }


def _stack(bar: Callable[..., object], counts: Sequence[SideCount], base: str) -> None:
    """Draw one bar a count, its sides stacked."""
    before = [0] * len(counts)
    for side in SIDES:
        heights = [int(getattr(count, side)) for count in counts]
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
    # matplotlib reads a dollar sign as the start of a formula
    printable = "".join(character if character.isprintable() else " " for character in name)
    clean = printable.replace("$", "\\$")
    return clean if len(clean) <= 36 else clean[:34] + " ..."


REPLAY = "replay"  # the source of rows of other sets, which no log has
SPLITS = {"train": "train", "validation": "validation", "holdout": "test"}
"""Hugging Face's name of each side."""

MAX_ROWS = 25  # longer tables are cut; the Parquet files have the rest

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write(
    figures: Figures, *, workload_id: str, config: Mapping[str, Json], lineage: Mapping[str, str]
) -> None:
    """Write the card and its charts into a snapshot's folder.

    Its front matter is Hugging Face's, so that ``datasets.load_dataset`` opens the folder. It has
    no time and no path of this machine: equal snapshots have equal cards.

    Args:
        figures: The snapshot's, whose Parquet files are written.
        workload_id: The workload's id.
        config: The config that curated it.
        lineage: Hashes or versions of base template, tokenizer and prompt format, by name.
    """
    snapshot = figures.snapshot
    examples = sum(snapshot.sides.values())
    counts = snapshot.counts.items()
    text = templates.render(
        "components/dataset/card.md.j2",
        workload=workload_id,
        snapshot=snapshot,
        size=next((name for most, name in SIZES if examples < most), "n>1M"),
        splits=SPLITS,
        figures=figures,
        examples=examples,
        interactions=sum(snapshot.counts.values()),
        replayed=sum(source.all for source in figures.sources if source.name == REPLAY),
        logged=_span(figures.days) if figures.days else None,
        verdicts=sorted(counts, key=lambda row: (row[0] != "kept", -row[1], row[0])),
        spread_table=_spread_table,
        config=config,
        clients=ClientShares.model_validate(config.get("clients", {})),
        always=ALWAYS,
        lengths=[
            [f"{side}, {part}", *_quantiles(counts)]
            for side, lengths in figures.lengths.items()
            for part, counts in (("prompt", lengths.prompts), ("answer", lengths.answers))
            if counts
        ],
        pictures=draw(figures, snapshot.path),
        lineage=lineage,
        curated_with=json.dumps(config, indent=2, sort_keys=True),
    )
    (snapshot.path / CARD).write_text(text, encoding="utf-8")


def _span(days: tuple[str, str]) -> str:
    first, last = days
    return f"on {first}" if first == last else f"from {first} to {last}"


def _spread_table(title: str, counts: Sequence[SideCount]) -> str:
    sides = [side for side in SIDES if any(getattr(count, side) for count in counts)]
    shown, rest = counts[:MAX_ROWS], counts[MAX_ROWS:]
    rows = [
        [templates.code(count.name), *(f"{getattr(count, side):,}" for side in sides)]
        for count in shown
    ]
    if rest:
        others = SideCount.total(f"{len(rest):,} others", rest)
        rows.append([others.name, *(f"{getattr(others, side):,}" for side in sides)])
    return templates.table([title.lower().removesuffix("s"), *sides], rows)


def _quantiles(counts: Sequence[int]) -> list[str]:
    values = np.array(counts, np.int64)
    middle, most = np.quantile(values, [0.5, 0.95], method="nearest")
    figures = (values.sum(), round(float(values.mean())), middle, most, values.max())
    return [f"{int(figure):,}" for figure in figures]
