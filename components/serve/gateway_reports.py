"""What a gateway shows of itself, here and to other machines: its status."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial

from components.schema import Json
from components.serve import seen_gateways
from components.serve.daemon_call import in_daemon
from components.serve.seen_gateways import SeenChampion, SeenGateway
from components.serve.serve_places import ServePlaces
from components.serve.swap import AdapterSwap
from components.store import manifest
from components.store.shared_files import SharedFiles, StoreError

LOG = logging.getLogger(__name__)

STATUS_SECONDS = 1.0  # how often a change of the status is looked for
LONGEST_STATUS_SECONDS = 10.0  # how old the file may be without a change
LEAVE_SECONDS = 2.0  # that the end of a gateway waits for the object store


class GatewayReports:
    """The file, and the object of a store, in which people see a gateway.

    Args:
        swap: What serves.
        places: Where the files are.
        store: Where other machines look; without it none does.
        status: Returns the status as it is now.
    """

    def __init__(
        self,
        swap: AdapterSwap,
        places: ServePlaces,
        store: SharedFiles | None,
        status: Callable[[], dict[str, Json]],
    ) -> None:
        self._swap, self._places, self._store, self._status = swap, places, store, status

    def work(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        """Return what has to run meanwhile."""
        shared = [self._show_others] if self._store is not None else []
        return [*shared, self._write_status]

    async def _write_status(self) -> None:
        written, at = "", 0.0
        while True:
            status = self._status()
            text = json.dumps(status, indent=2) + "\n"
            same = json.dumps({**status, "knowledge_age_seconds": None})
            if same != written or time.monotonic() - at > LONGEST_STATUS_SECONDS:
                await asyncio.to_thread(manifest.write_atomically, self._places.status, text)
                written, at = same, time.monotonic()
            await asyncio.sleep(STATUS_SECONDS)

    async def _show_others(self) -> None:
        """Write into the store what this gateway serves, so that others know that it runs."""
        store, is_away = self._store, False
        assert store is not None
        gateway = seen_gateways.ensure_id(self._places.folder)
        while True:
            served = self._swap.current.routes
            shown = SeenGateway(
                gateway,
                socket.gethostname(),
                time.time(),
                {workload: SeenChampion.of(served[workload].champion) for workload in served},
                {
                    f"{workload}@{refusal.version}": refusal.reason
                    for workload, refusal in self._swap.refusals.items()
                },
            )
            try:
                with store.reaching("showing this gateway"):
                    await in_daemon(partial(seen_gateways.write, store, shown))
            except StoreError as error:
                if not is_away:
                    LOG.warning("other machines can't see this gateway: %s", error)
                is_away = True
            else:
                is_away = False
            await asyncio.sleep(LONGEST_STATUS_SECONDS)

    async def leave(self) -> None:
        """Let others know that this gateway has ended, if the store is there to tell them."""
        store, gateway = self._store, seen_gateways.read_id(self._places.folder)
        if store is None or gateway is None:
            return
        forget = in_daemon(partial(seen_gateways.forget, store, gateway))
        with suppress(StoreError, TimeoutError), store.reaching("leaving"):
            await asyncio.wait_for(forget, LEAVE_SECONDS)
