"""The number of threads that torch computes fastest with now.

Torch starts a thread per core, and all of them wait for the slowest after each operation. On a busy
machine that made an evaluation several times slower than a single thread, and the references of an
adapter at nf4 more than seven times. So the thread count is measured. Imported late, since it loads
torch.
"""

import math
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from statistics import median

import torch  # noqa: TID253 - this module is itself imported late

TIMED_SHAPE = (64, 576, 1536)
"""Rows, and a small model's layer: 57 million multiplications, a millisecond or so."""

TIMES = 24  # products that are timed together, so that waiting threads show

ROUNDS = 3  # rounds over all thread counts; the medians are compared

WORTH = 0.9
"""The relative time below which fewer threads are chosen: a virtual machine's two cores are
sometimes one for a second or more, which must not cost a minute at half the speed."""

VALID_FOR = 60.0
"""Seconds for which a choice is valid: the machine's load changes, and there are many short tasks.
"""


def fastest(seconds: Mapping[int, float]) -> int:
    """Choose the thread count by its time: the largest, unless a smaller one is clearly faster."""
    chosen = max(seconds)
    for count in sorted(seconds, reverse=True):
        if seconds[count] < WORTH * seconds[chosen]:
            chosen = count
    return chosen


class Threads:
    """The fastest thread count, measured again after ``VALID_FOR`` seconds."""

    def __init__(self) -> None:
        self._fastest, self._timed_at = 1, -math.inf

    @contextmanager
    def chosen(self) -> Generator[int]:
        """Use the fastest thread count, at most torch's current one, which is restored at the end.

        Timing takes a fifth of a second with two threads.
        """
        allowed = torch.get_num_threads()
        try:
            if allowed > 1:
                if time.monotonic() - self._timed_at > VALID_FOR:
                    self._fastest, self._timed_at = fastest(_timed(allowed)), time.monotonic()
                torch.set_num_threads(self._fastest)
            yield torch.get_num_threads()
        finally:
            torch.set_num_threads(allowed)


def _timed(most: int) -> dict[int, float]:
    # ``most``, half of it, a quarter, down to one
    counts = [most >> halvings for halvings in range(most.bit_length())]
    rows, inner, outer = TIMED_SHAPE
    inputs, weight = torch.ones(rows, inner), torch.ones(outer, inner)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            torch.set_num_threads(count)
            torch.nn.functional.linear(inputs, weight)
            started = time.perf_counter()
            for _ in range(TIMES):
                torch.nn.functional.linear(inputs, weight)
            taken[count].append(time.perf_counter() - started)
    return {count: median(seconds) for count, seconds in taken.items()}
