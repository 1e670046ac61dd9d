"""Time how long a model answers: from its first word of progress to its last.

What lm-eval does before and after, such as making its data set, is no part of it: the first model
of an evaluation would pay for all.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from components.schema import Progress


@dataclass(slots=True)
class Stopwatch:
    """Passes progress on, and keeps when it came."""

    report: Callable[[Progress], None]
    marks: list[float] = field(default_factory=list[float])

    def __call__(self, progress: Progress) -> None:
        """Pass a line of progress on."""
        self.marks.append(time.perf_counter())
        self.report(progress)

    @property
    def seconds(self) -> float:
        """How long it took; zero before the second line."""
        return self.marks[-1] - self.marks[0] if self.marks else 0.0
