"""The style of charts: 1050 pixels wide, readable at 700, on white, so that they suit any theme."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, PAPER, GRID = "#222222", "#ffffff", "#dddddd"

# Grey for existing models, orange for new ones, then blue and violet: distinct in light and dark,
# and for people who can't tell red from green.
THERE, NEW, OTHER, FURTHER = "#66757a", "#d35400", "#2471a3", "#7d3c98"

WIDTH = 7.0  # inches

DPI = 150


def sheet(height: float, left: float = 0.3, right: float = 0.95) -> tuple[Figure, Axes]:
    """Return a figure with one frameless plot.

    Args:
        height: The figure's height in inches.
        left: The plot's left edge as a share of the width, after the names of rows.
        right: Its right edge, as a share of the width.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((left, 0.62 / height, right - left, 1 - 1.12 / height), facecolor=PAPER)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a plot, the first on top."""
    axes.set_yticks(range(len(names)), names, color=INK, size=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color=GRID, lw=0.8)


def shortened(name: str, length: int = 27) -> str:
    """Shorten a name from outside; escape dollar signs, which would start a formula."""
    clean = "".join(c if c.isprintable() else " " for c in name).replace("$", r"\$")
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def fit(figure: Figure, top: float = 1) -> None:
    """Let the figure's one plot, its labels included, fill the figure up to ``top``, a share."""
    with _boxes_for_missing_glyphs():
        figure.tight_layout()  # its rect would measure each label twice
    figure.subplots_adjust(top=top - (1 - figure.subplotpars.top))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, or an SVG by the path's suffix; equal pictures are equal files."""
    with _boxes_for_missing_glyphs():
        if path.suffix == ".svg":
            with rc_context({"svg.hashsalt": "flywheel"}):
                figure.savefig(path, metadata={"Date": None})
        else:  # savefig draws twice, the first time for a layout engine, which no chart has
            FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


@contextmanager
def _boxes_for_missing_glyphs() -> Generator[None]:
    """Draw boxes for a script that the font lacks without a warning for each of its characters.

    The font stays matplotlib's own, so that equal pictures are equal files on all machines; the
    tables beside charts have the names.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


def size(n: int, clusters: int | None) -> str:
    """Return a label with the number of requests and of their independent clusters."""
    return f"n = {n}" if clusters is None else f"n = {n} in {clusters} clusters"
