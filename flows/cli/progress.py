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

from components.schema import Progress as Said
from flows.jobs import runner
from flows.stages import Stage

QUIET_SECONDS = 15.0  # without a terminal, a running stage says a line this often


class ProgressScreen:
    """Draws the stages of a turn; used as a context manager, so that the cursor comes back."""

    def __init__(self, console: Console, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._console = console
        self._quiet_seconds = quiet_seconds
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}", style="dim"),
            console=console,
        )
        self._rows: dict[str, TaskID] = {}
        self._finished: set[str] = set()
        self._clocks: dict[str, tuple[float, int]] = {}
        self._spoke = time.monotonic()

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
        """Bring the screen up to date with what the turn wrote."""
        for stage in stages:
            said = runner.newest_progress(Path(stage.job)) if stage.job else None
            if self._console.is_terminal:
                self._draw(stage, said)
            self._speak(stage, said)

    def _draw(self, stage: Stage, progress: Said | None) -> None:
        if stage.name not in self._rows:
            self._rows[stage.name] = self._bars.add_task(stage.name, total=None, said="")
        row = self._rows[stage.name]
        if stage.seconds is not None:
            total = progress.total if progress and not stage.reused else 1
            self._bars.update(row, total=total, completed=total, said=stage_outcome(stage))
        elif progress:
            self._bars.update(
                row, total=progress.total, completed=progress.done, said=progress_text(progress)
            )

    def _speak(self, stage: Stage, progress: Said | None) -> None:
        """Without a terminal: say each stage's end, and a running one's progress now and then."""
        if self._console.is_terminal or stage.name in self._finished:
            return
        if stage.seconds is not None:
            self._finished.add(stage.name)
            line = f"{stage.name:<9} {stage.seconds:7.1f} s  {stage_outcome(stage)}"
            self._console.print(line, soft_wrap=True)
        elif progress and time.monotonic() - self._spoke >= self._quiet_seconds:
            self._spoke = time.monotonic()
            self._console.print(
                f"{stage.name:<9} {progress_text(progress)}, {progress.done} of {progress.total} "
                f"{progress.unit}"
                f"{self._remaining(progress)}",
                soft_wrap=True,
            )

    def _remaining(self, progress: Said) -> str:
        """Say what the stage expects, or estimate from its pace since this screen saw it move."""
        if SECONDS_LEFT in progress.figures:
            return f", about {progress.figures[SECONDS_LEFT]:.0f} s left"
        now = time.monotonic()
        since, from_done = self._clocks.setdefault(progress.stage, (now, progress.done))
        if progress.done < from_done:  # it began again, from a checkpoint
            self._clocks[progress.stage] = (now, progress.done)
        moved = progress.done - from_done
        if moved <= 0 or moved < progress.total * LEAST_CHANGE:
            return ""
        left = (progress.total - progress.done) * (now - since) / moved
        return f", about {left:.0f} s left"


def stage_outcome(stage: Stage) -> str:
    """Say what came of a finished stage."""
    return f"{stage.said} (done before)" if stage.reused else stage.said


LEAST_CHANGE = 0.02
"""How much of its work a stage must be seen to do: the first pieces wait for models to load."""

SHORT_FORMS = {
    "learning_rate": "lr {:.2g}",
    "grad_norm": "grad {:.2g}",
    "tokens_per_second": "{:.0f} tokens/s",
    "peak_memory_gb": "{:.2f} GB",
    "validation_loss": "validation {:.3g}",
}
"""How figures are written where there is little room; others by name, with three digits."""

SECONDS_LEFT = "seconds_left"  # the figure that has a place of its own


def progress_text(progress: Said) -> str:
    """Write what is being done, and its figures, in a few words."""
    shown = [
        SHORT_FORMS.get(name, name + " {:.3g}").format(value)
        for name, value in progress.figures.items()
        if name != SECONDS_LEFT
    ]
    return " ".join([progress.stage, *shown])
