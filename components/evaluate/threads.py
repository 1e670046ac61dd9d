"""Choose how many threads torch computes with: as many as are fastest here and now.

Torch takes a thread a core, and all of them wait for the slowest after each operation. On a machine
that others use, too, that made an evaluation several times slower than one thread alone.
Imported late, since it loads torch.
"""

import math
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from statistics import median

import torch  # noqa: TID253 - this module is itself imported late

SHAPE = (64, 576, 1536)
"""Rows, and a small model's layer: 57 million multiplications, a millisecond or so."""

TIMES = 24
"""Products in a row that are timed together, so that one that has to wait is seen."""

ROUNDS = 3
"""Of all counts in turn; their medians are compared."""

WORTH = 0.9
"""What fewer threads must bring a time down to, to be taken: a virtual machine's two cores are at
times one, for a second or more, and that must not cost a minute at half the speed."""

KEPT = 60.0
"""Seconds for which a choice holds: what else a machine does changes, and short tasks are many."""


def fastest(seconds: Mapping[int, float]) -> int:
    """Choose of the timed counts: all threads, unless fewer are clearly faster."""
    taken = max(seconds)
    for count in sorted(seconds, reverse=True):
        if seconds[count] < WORTH * seconds[taken]:
            taken = count
    return taken


class Threads:
    """How many threads are fastest, timed anew when that is a minute ago."""

    def __init__(self) -> None:
        self._fastest, self._timed_at = 1, -math.inf

    @contextmanager
    def chosen(self, device: torch.device) -> Generator[int]:
        """Compute with the fastest number, at most as many as torch has; then as before.

        Nothing is timed where the device is no CPU. It takes a fifth of a second with two threads.
        """
        allowed = torch.get_num_threads()
        try:
            if device.type == "cpu" and allowed > 1:
                if time.monotonic() - self._timed_at > KEPT:
                    self._fastest, self._timed_at = fastest(_timed(allowed)), time.monotonic()
                torch.set_num_threads(self._fastest)
            yield torch.get_num_threads()
        finally:
            torch.set_num_threads(allowed)


def _timed(most: int) -> dict[int, float]:
    """Time each of ``most`` threads, half of them, a quarter, down to one; in seconds."""
    counts = [most >> halvings for halvings in range(most.bit_length())]
    rows, inner, outer = SHAPE
    these, weight = torch.ones(rows, inner), torch.ones(outer, inner)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            torch.set_num_threads(count)
            torch.nn.functional.linear(these, weight)
            started = time.perf_counter()
            for _ in range(TIMES):
                torch.nn.functional.linear(these, weight)
            taken[count].append(time.perf_counter() - started)
    return {count: median(seconds) for count, seconds in taken.items()}
