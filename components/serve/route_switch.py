"""Change the routes: first their file, then the reference that requests read."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from components.serve.routes import Current, Routes


class RouteSwitch:
    """Makes one change of the routes at a time; belongs to one event loop."""

    def __init__(self, path: Path, current: Current) -> None:
        self.path, self._current = path, current
        self._lock = asyncio.Lock()
        self.locks = defaultdict[str, asyncio.Lock](asyncio.Lock)
        """By workload: held while versions of it are loaded and proved, or withdrawn."""

    @property
    def routes(self) -> Routes:
        """The routes in use."""
        return self._current.routes

    async def flip(self, change: Callable[[Routes], Routes]) -> None:
        """Write changed routes, then use them."""
        async with self._lock:
            table = change(self.routes)
            if table != self.routes:
                await asyncio.to_thread(table.write, self.path)
                self._current.routes = table
