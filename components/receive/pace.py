"""Receive the large bodies of one client no faster than leaves time for those of others."""

import asyncio

SETTLED_CLIENTS = 1000
"""Past which those that have nothing to wait for are forgotten."""


class Pace:
    """How far each client is ahead of its rate; it belongs to one event loop."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at: dict[str, float] = {}

    async def keep(self, client_id: str, size: int) -> None:
        """Return once the client has kept its rate with so many bytes more, on all connections."""
        now = asyncio.get_running_loop().time()
        if len(self._free_at) > SETTLED_CLIENTS:
            self._free_at = {name: at for name, at in self._free_at.items() if at > now}
        free_at = max(now, self._free_at.get(client_id, now)) + size / self._bytes_per_second
        self._free_at[client_id] = free_at
        await asyncio.sleep(free_at - now)
