"""NVIDIA NIM: a folder that its watcher reads at an interval; otherwise vLLM's API.

A watcher acknowledges nothing, so the list is polled until a deadline. Written after NIM's
documentation; NIM itself was never run against this.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from components.export.copy_adapter import CONFIG, WEIGHTS
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import (
    AnswerPiece,
    EngineNeeds,
    Generation,
    LoadedModel,
    Probe,
    UpstreamError,
)
from components.serve.engines.vllm_server import (
    CONTROL_SECONDS,
    VllmServer,
    invented_name_objections,
)

STAGE, GONE = ".stage", ".gone"  # siblings of the adapters: a rename needs the same file system

MARGIN_SECONDS = 5.0
POLL_SECONDS = 0.5


class NimServer:
    """One replica. ``source`` is its ``NIM_PEFT_SOURCE``; replicas may share it.

    ``refresh_seconds`` is its ``NIM_PEFT_REFRESH_INTERVAL``: an adapter that it does not list after
    two of them is refused.
    """

    def __init__(
        self,
        name: str,
        upstream: HttpUpstream,
        source: Path,
        *,
        refresh_seconds: float = 30.0,
        base: str | None = None,
        margin_seconds: float = MARGIN_SECONDS,
    ) -> None:
        self.name, self._http, self._source = name, upstream, source
        self.patience_seconds = 2 * refresh_seconds + margin_seconds
        self._vllm = VllmServer(name, upstream, base=base, oldest=None)

    @property
    def base(self) -> str:
        """The name of its base."""
        return self._vllm.base

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve; its room for adapters can't be read."""
        objections = [] if self._source.is_dir() else [f"there is no folder {self._source}"]
        await self._vllm.read_base()
        objections += await invented_name_objections(self._vllm)
        return objections

    async def process_identity(self) -> str:
        """Return the start time of its process; raise before its model is loaded."""
        # /v1/health/live is 200 before the model is loaded.
        await self._http.get_text("/v1/health/ready", patience_seconds=CONTROL_SECONDS)
        return await self._vllm.start_time("/v1/metrics")

    async def load(self, adapter: str, folder: Path) -> None:
        """Move a copy into the watched folder in one rename, and wait until it is listed."""
        await asyncio.to_thread(self._put, adapter, folder)
        if not await self._until_listed(adapter, is_expected=True):
            await asyncio.to_thread(self._remove, adapter)
            raise UpstreamError(
                504,
                f"loading {adapter}: {self.name} does not list it {self.patience_seconds:g} s "
                f"after its folder was put into {self._source}; is NIM_PEFT_REFRESH_INTERVAL set?",
                is_retryable=True,
            )

    async def list_loaded(self) -> list[LoadedModel]:
        """List the base and the adapters."""
        return await self._vllm.list_loaded()

    async def unload(self, adapter: str) -> None:
        """Move the folder away, and wait until it is not listed any more."""
        await asyncio.to_thread(self._remove, adapter)
        if not await self._until_listed(adapter, is_expected=False):
            raise UpstreamError(
                504,
                f"unloading {adapter}: {self.name} still lists it {self.patience_seconds:g} s "
                "after its folder was removed",
                is_retryable=False,
            )

    def complete(self, adapter: str, generation: Generation) -> AsyncGenerator[AnswerPiece]:
        """Stream an answer."""
        return self._vllm.complete(adapter, generation)

    async def score(self, adapter: str, probe: Probe) -> Sequence[float]:
        """Return the log-probabilities of the answer's tokens."""
        return await self._vllm.score(adapter, probe)

    async def close(self) -> None:
        """Close its connections."""
        await self._vllm.close()

    def _put(self, adapter: str, folder: Path) -> None:
        target = self._source / adapter
        if target.is_dir():
            return  # another replica of the same folder was first
        partial = self._source / STAGE / f"{adapter}.{self.name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in (CONFIG, WEIGHTS):  # NIM's folders hold these two
            shutil.copyfile(folder / name, partial / name)
            with (partial / name).open("rb") as file:
                os.fsync(file.fileno())
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(partial)

    def _remove(self, adapter: str) -> None:
        gone = self._source / GONE / f"{adapter}.{time.time_ns()}"
        gone.parent.mkdir(exist_ok=True)
        try:
            (self._source / adapter).rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone)

    async def _until_listed(self, adapter: str, *, is_expected: bool) -> bool:
        deadline = time.monotonic() + self.patience_seconds
        while time.monotonic() < deadline:
            models = await self._vllm.list_loaded()
            if any(model.name == adapter for model in models) == is_expected:
                return True
            await asyncio.sleep(min(POLL_SECONDS, self.patience_seconds / 20))
        return False
