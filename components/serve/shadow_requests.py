"""Requests that a canary's version answers, too, for nobody; they end first when users come."""

import asyncio
from collections.abc import Callable, Coroutine

AT_ONCE = 4


class ShadowRequests:
    """Shadows under way; belongs to one event loop.

    Args:
        busy_from: The open requests of users from which on there is no shadow.
    """

    def __init__(self, busy_from: int) -> None:
        self._busy_from = busy_from
        self._tasks: dict[asyncio.Task[None], Callable[[], None]] = {}  # what to do if it is shed

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(
        self,
        open_requests: int,
        work: Callable[[], Coroutine[None, None, None]],
        shed: Callable[[], None],
    ) -> None:
        """Begin a shadow; call ``shed`` instead, or later, if users need the room."""
        if open_requests >= self._busy_from or len(self._tasks) >= AT_ONCE:
            shed()
            return
        task = asyncio.create_task(work())
        self._tasks[task] = shed
        task.add_done_callback(self._tasks.pop)

    def make_room(self, open_requests: int) -> None:
        """End the newest shadow if users send as many requests as that."""
        if self._tasks and open_requests >= self._busy_from:
            task, shed = self._tasks.popitem()
            self._tasks[task] = _nothing  # until it is done
            if task.cancel():
                shed()

    async def close(self) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _nothing() -> None:
    return
