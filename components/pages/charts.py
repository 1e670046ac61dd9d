"""The style of charts: 1050 pixels wide, readable at 700, on white, so that they suit any theme."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, PAPER, GRID = "#222222", "#ffffff", "#dddddd"

# Grey for what exists, orange for what is new, then blue: distinct in light and dark, and for
# people who can't tell red from green.
THERE, NEW, OTHER = "#66757a", "#d35400", "#2471a3"

WIDTH = 7.0  # inches

DPI = 150


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
