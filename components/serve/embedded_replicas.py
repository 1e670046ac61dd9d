"""The embedded engine's processes: one for each base that a version needs, at its precision."""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from components.serve.engines.embedded_process import EmbeddedOptions, EmbeddedProcess
from components.serve.settings import ServeSettings
from components.serve.staged_version import StagedVersion
from components.serve.swap import AdapterSwap


class EmbeddedReplicas:
    """Replicas that a gateway starts and stops itself; none for another engine."""

    def __init__(self, settings: ServeSettings, swap: AdapterSwap) -> None:
        self._settings, self._swap = settings.engine, swap
        self._client_share = settings.limits.client_share
        self._processes: dict[tuple[str, str], EmbeddedProcess] = {}  # by base hash and precision
        self._started = 0
        self._locks = defaultdict[str, asyncio.Lock](asyncio.Lock)  # by base hash

    @property
    def names(self) -> set[str]:
        """The names of their engines."""
        return {process.client.name for process in self._processes.values()}

    def other_precision(self, staged: StagedVersion) -> str | None:
        """Return at which precision a version's base runs, if it is not the version's."""
        running = [precision for base, precision in self._processes if base == staged.base_hash]
        return running[0] if running and staged.precision not in running else None

    async def ensure(self, staged: StagedVersion) -> None:
        """Start the embedded engine for a version's base, unless it runs."""
        engine = self._settings
        if engine.kind != "embedded":
            return
        async with self._locks[staged.base_hash]:
            if any(base == staged.base_hash for base, _ in self._processes):
                return
            self._started += 1
            name = "embedded" if self._started == 1 else f"embedded-{self._started}"
            options = EmbeddedOptions(
                base=Path(staged.base),
                precision=staged.precision,
                slots=engine.slots,
                threads=engine.threads,
                max_loras=engine.max_loras,
                client_share=self._client_share,
            )
            process = EmbeddedProcess(name, options, patience_seconds=engine.first_byte_seconds)
            try:
                await process.start()
            except BaseException:
                await process.stop()
                raise
            self._processes[staged.base_hash, staged.precision] = process
            await self._swap.replicas.add(process.client, staged.base_hash)

    async def stop_others(self, used: Collection[str]) -> None:
        """Stop the processes of all bases but those with these hashes."""
        for key in [key for key in self._processes if key[0] not in used]:
            process = self._processes.pop(key)
            await self._swap.replicas.remove(process.client.name)
            await process.stop()

    async def close(self) -> None:
        """Stop all of them."""
        for process in self._processes.values():
            await process.stop()
