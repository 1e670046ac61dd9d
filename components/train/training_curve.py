"""Draw a training's loss, validation loss and learning rate."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from components.pages import charts
from components.pages.charts import GRID, INK, NEW, OTHER, PAPER, THERE
from components.schema import Progress

LOSS_COLOUR, RATE_COLOUR, HELD_OUT_COLOUR = NEW, THERE, OTHER

SPAN = 20  # steps that the loss is smoothed over, roughly; fewer in a short training

Line = dict[int, float]  # values by step


def draw_curve(reports: Iterable[Progress], path: Path) -> None:
    """Write a PNG, 1050 pixels wide and readable at 700, on white so that any theme can show it.

    ``reports`` are a training's in order; a repeated step replaces the earlier one.
    """
    metrics: dict[str, Line] = {"loss": {}, "learning_rate": {}, "validation_loss": {}}
    for report in reports:
        for name in metrics.keys() & report.figures.keys():
            metrics[name][report.done] = report.figures[name]
    loss, rate, held = (dict(sorted(line.items())) for line in metrics.values())
    figure = Figure(figsize=(7, 4.4), dpi=150, facecolor=PAPER)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([*loss], [*loss.values()], color=LOSS_COLOUR, lw=0.8, alpha=0.35)
    smoothed = smooth_series([*loss.values()])
    upper.plot([*loss], smoothed, color=LOSS_COLOUR, lw=2, label="loss, smoothed")
    if held:
        steps, losses = [*held], [*held.values()]
        upper.plot(steps, losses, "o-", color=HELD_OUT_COLOUR, lw=1.2, ms=5, label="on validation")
        _name_lowest(upper, held)
    lower.plot([*rate], [*rate.values()], color=RATE_COLOUR, lw=1.5)
    _draw_frame(upper, "loss")
    _draw_frame(lower, "learning rate")
    upper.set_ylim(*_loss_limits([*loss.values()], [*held.values()]))
    lower.set_ylim(bottom=0)
    lower.set_xlabel("step", color=INK, size=9)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="upper right", ncols=2, frameon=False, labelcolor=INK)
    figure.align_ylabels([upper, lower])
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    charts.save(figure, path)


def smooth_series(values: Sequence[float]) -> list[float]:
    """Return the moving average, bias-corrected as in Adam (arXiv:1412.6980, section 3)."""
    span = min(SPAN, max(1, len(values) // 4))
    keep = 1 - 2 / (span + 1)
    total, weight, averages = 0.0, 0.0, list[float]()
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        averages.append(total / weight)
    return averages


def _loss_limits(loss: Sequence[float], held: Sequence[float]) -> tuple[float, float]:
    # a single batch's loss may exceed the axis
    highest = max([*smooth_series(loss), *held], default=1.0)
    return 0.0, 1.1 * highest if highest > 0 else 1.0


def _name_lowest(axes: Axes, held: Line) -> None:
    step = min(held, key=lambda value: (held[value], value))
    axes.annotate(
        f"{held[step]:.3f}",
        (step, held[step]),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        color=HELD_OUT_COLOUR,
        size=9,
    )


def _draw_frame(axes: Axes, name: str) -> None:
    axes.set_facecolor(PAPER)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=INK, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_ylabel(name, color=INK, size=9)
