"""Requests that a canary's version answers, too, for nobody; they end first when users come."""

import asyncio
from collections.abc import Callable, Coroutine

AT_ONCE = 4

QUIET_SECONDS = 0.004  # without a new request: a shadow that begins then delays hardly anybody
PATIENCE_SECONDS = 1.0


class ShadowRequests:
    """Shadows under way; belongs to one event loop.

    Args:
        busy_from: The open requests of users from which on there is no shadow.
        quiet_seconds: How long no request must have come when a shadow begins.
    """

    def __init__(self, busy_from: int, quiet_seconds: float = QUIET_SECONDS) -> None:
        self.busy_from, self._quiet_seconds = busy_from, quiet_seconds
        self._tasks: dict[asyncio.Task[None], Callable[[], None]] = {}  # what to do if it is shed
        self._last_arrival = 0.0

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(
        self,
        open_requests: int,
        work: Callable[[], Coroutine[None, None, None]],
        shed: Callable[[], None],
    ) -> None:
        """Begin a shadow between requests; call ``shed`` if users leave no room, now or later."""
        if open_requests >= self.busy_from or len(self._tasks) >= AT_ONCE:
            shed()
            return

        async def begin_in_quiet() -> None:
            if await self._is_quiet():
                await work()
            else:
                shed()

        task = asyncio.create_task(begin_in_quiet())
        self._tasks[task] = shed
        task.add_done_callback(self._tasks.pop)

    async def _is_quiet(self) -> bool:
        # return whether no request has come for a moment, before there is no patience left
        loop = asyncio.get_running_loop()
        began = self._last_arrival = loop.time()
        while loop.time() - began < PATIENCE_SECONDS:
            rest = self._last_arrival + self._quiet_seconds - loop.time()
            if rest <= 0:
                return True
            await asyncio.sleep(rest)
        return False

    def make_room(self, open_requests: int) -> None:
        """Note a user's request; end the newest shadow if there are as many of them as that."""
        self._last_arrival = asyncio.get_running_loop().time()
        if self._tasks and open_requests >= self.busy_from:
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
