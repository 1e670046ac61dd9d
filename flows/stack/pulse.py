"""Whether a live process still works: a health check with a deadline, and several misses in a row.

Everything is counted in checks that were made, none in hours: after a suspended laptop or a clock
that was set, one check may fail, and the next one succeeds.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future

import psutil

EVERY = 3.0  # seconds between two checks of a service that works
DEADLINE = 3.0  # seconds in which a check is to be answered
HANGING_AFTER = 3  # misses in a row of a process that does not even compute
BUSY_AFTER = 40  # misses in a row of one that computes: two minutes
BUSY_SHARE = 0.01  # of a core: who takes more than that between two misses computes
WORKER_EVERY = 15.0  # seconds between two looks at a worker's heartbeats, which come every 30
WORKER_HANGING_AFTER = 10  # looks in a row without a new heartbeat


class Pulse:
    """The checks of one process, made in a thread so that no hanging server holds up the others."""

    def __init__(
        self,
        check: Callable[[], bool],
        *,
        every: float = EVERY,
        hanging_after: int = HANGING_AFTER,
        busy_after: int = BUSY_AFTER,
    ) -> None:
        self.misses = 0
        self._check = check
        self._every = every
        self.hanging_after = hanging_after
        self._busy_after = busy_after
        self._pending: Future[bool] | None = None
        self._next = 0.0
        self._seconds_computed = 0.0
        self._is_busy = False

    @property
    def is_lost(self) -> bool:
        """Whether the process is to be started again."""
        return self.misses >= (self._busy_after if self._is_busy else self.hanging_after)

    def look(self, pid: int, now: float, threads: Executor) -> None:
        """Take the answer of the last check, and begin another one when it is time; never waits.

        Args:
            pid: The process that is checked.
            now: Seconds on a clock that never goes back.
            threads: Where the check is made.
        """
        if self._pending is not None:
            if not self._pending.done():
                return
            self._note(self._pending.result(), pid)
            self._pending = None
        if now >= self._next:
            self._next = now + self._every
            self._pending = threads.submit(self._check)

    def _note(self, answered: bool, pid: int) -> None:
        before, self._seconds_computed = self._seconds_computed, seconds_computed(pid)
        if answered:
            self.misses, self._is_busy = 0, False
            return
        self.misses += 1
        self._is_busy = self._seconds_computed - before > BUSY_SHARE * DEADLINE


def seconds_computed(pid: int) -> float:
    """Return the processor time that a process and those below it have taken so far."""
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(map(_own_seconds, tree))


def _own_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system
