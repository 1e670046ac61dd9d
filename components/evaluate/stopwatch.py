"""Time how long a model answers: from its first word of progress to its last.

What lm-eval does before and after, such as making its data set, is no part of it: the first model
of an evaluation would pay for all. Nor is what else is measured of the same requests, such as the
likelihood of each label: a model that serves only writes answers.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from components import machine
from components.schema import Progress


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: of the clock, and of the CPU time that was used up to it; in seconds."""

    wall: float
    cpu: float


@dataclass(slots=True)
class Stopwatch:
    """Passes progress on, and keeps when it came; a new pass over the requests begins at zero."""

    report: Callable[[Progress], None]
    passes: list[list[Mark]] = field(default_factory=list[list[Mark]])
    workers: list[psutil.Process] = field(default_factory=machine.workers)

    def __call__(self, progress: Progress) -> None:
        """Pass a line of progress on."""
        if progress.done == 0 or not self.passes:
            self.passes.append([])
        self.passes[-1].append(Mark(time.perf_counter(), machine.cpu_seconds(self.workers)))
        self.report(progress)

    @property
    def answering(self) -> Mark:
        """The wall time and the CPU time of the first pass; zeros before its second line."""
        if not self.passes:
            return Mark(0.0, 0.0)
        first, last = self.passes[0][0], self.passes[0][-1]
        return Mark(last.wall - first.wall, last.cpu - first.cpu)
