"""Show the stages of a turn: progress bars on a terminal, lines elsewhere."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from components.pages.visible_text import visible
from components.schema import Progress as JobProgress
from flows.jobs import runner
from flows.turn_progress import Stage

NARROW = 100  # up to this many columns bars are short, for the text's sake

QUIET_SECONDS = 15.0  # without a terminal, a running stage prints a line this often

# The smallest share of its work from which a stage's time is estimated: models load first.
LEAST_CHANGE = 0.02

# How figures are written where there is little room; others by name, with three digits.
SHORT_FORMS = {
    "batch": "batch {:.0f}",
    "step": "step {:.0f}",
    "learning_rate": "lr {:.2g}",
    "grad_norm": "grad {:.2g}",
    "tokens_per_second": "{:.0f} tokens/s",
    "peak_memory_gb": "{:.2f} GB",
    "validation_loss": "validation {:.3g}",
}

SECONDS_LEFT = "seconds_left"  # the figure that is printed apart


class ProgressScreen:
    """Draws the stages of a turn; a context manager, so that the cursor comes back."""

    def __init__(self, console: Console, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._console = console
        self._quiet_seconds = quiet_seconds
        # Only the text takes what is left, in several lines if need be; else all columns shrink.
        self._bars = Progress(
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(bar_width=28 if console.width > NARROW else 8),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn(
                "{task.fields[text]}", style="dim", markup=False, table_column=Column(ratio=1)
            ),
            console=console,
            expand=True,
        )
        self._rows: dict[str, TaskID] = {}
        self._finished: set[str] = set()
        self._clocks: dict[str, tuple[float, int]] = {}
        self._printed_at = time.monotonic()

    def __enter__(self) -> "ProgressScreen":
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def show(self, stages: Sequence[Stage]) -> None:
        """Update the screen with what the turn wrote."""
        for stage in stages:
            progress = runner.newest_progress(Path(stage.job)) if stage.job else None
            if self._console.is_terminal:
                self._draw(stage, progress)
            elif stage.name not in self._finished:
                self._print(stage, progress)

    def _draw(self, stage: Stage, progress: JobProgress | None) -> None:
        if stage.name not in self._rows:
            self._rows[stage.name] = self._bars.add_task(stage.name, total=None, text="")
        row = self._rows[stage.name]
        if stage.seconds is not None:
            total = progress.total if progress and not stage.reused else 1
            said = visible(stage_outcome(stage))  # a column prints its text past the console
            self._bars.update(row, total=total, completed=total, text=said)
        elif progress:
            self._bars.update(
                row, total=progress.total, completed=progress.done, text=progress_text(progress)
            )

    def _print(self, stage: Stage, progress: JobProgress | None) -> None:
        if stage.seconds is not None:
            self._finished.add(stage.name)
            line = f"{stage.name:<9} {stage.seconds:7.1f} s  {stage_outcome(stage)}"
            self._console.print(line, soft_wrap=True)
        elif progress and time.monotonic() - self._printed_at >= self._quiet_seconds:
            self._printed_at = time.monotonic()
            line = f"{stage.name:<9} {count_text(progress)}{self._remaining(progress)}"
            self._console.print(line, soft_wrap=True)

    def _remaining(self, progress: JobProgress) -> str:
        """Return the time that the stage expects, or an estimate from its pace on this screen."""
        if progress.done >= progress.total:
            return ""
        if SECONDS_LEFT in progress.figures:
            return f", about {progress.figures[SECONDS_LEFT]:.0f} s left"
        now = time.monotonic()
        since, from_done = self._clocks.setdefault(progress.stage, (now, progress.done))
        if progress.done < from_done:  # it restarted from a checkpoint
            self._clocks[progress.stage] = (now, progress.done)
        moved = progress.done - from_done
        if moved <= 0 or moved < progress.total * LEAST_CHANGE:
            return ""
        left = (progress.total - progress.done) * (now - since) / moved
        return f", about {left:.0f} s left"


def stage_outcome(stage: Stage) -> str:
    """Return the outcome of a finished stage."""
    return f"{stage.said} (done before)" if stage.reused else stage.said


def progress_text(progress: JobProgress) -> str:
    """Return the step of a job and its figures in a few words."""
    figures = [
        SHORT_FORMS.get(name, name + " {:.3g}").format(value)
        for name, value in progress.figures.items()
        if name != SECONDS_LEFT
    ]
    return " ".join([progress.stage, *figures]).removesuffix(":")


def count_text(progress: JobProgress) -> str:
    """Return the step of a job, its figures, and how much of it is done."""
    return f"{progress_text(progress)}, {progress.done} of {progress.total} {progress.unit}"
