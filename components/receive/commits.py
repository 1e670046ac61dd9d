"""Group commit: requests that arrive while the disk is busy share the next fsync."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from components import spool
from components.receive.limits import Limits
from components.receive.refusal import RefusedError

RETRY_SECONDS = 5
MEASURE_SECONDS = 2.0


class Commits:
    """Writes segments, one after the other; it belongs to one event loop.

    A receiver has two: what is written to one segment waits for all that came before it there.
    """

    def __init__(self, folder: Path, limits: Limits, observe: Callable[[float, int], None]) -> None:
        """Recover what a killed receiver left in ``folder``, and be ready to write.

        Args:
            folder: The spool.
            limits: When segments are sealed, and when the spool is full.
            observe: Is told of each commit: its seconds and its bytes.
        """
        self._writer = spool.Writer(folder)
        spool.recover(folder)
        self._folder = folder
        self._limits = limits
        self._observe = observe
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._disk = ThreadPoolExecutor(1, "disk")
        self._task = asyncio.create_task(self._run())
        self.failure: str | None = None
        """What went wrong at the last commit; ``None`` when it went well."""
        self.tried_at = time.monotonic()
        """When the last commit began."""
        self.spooled_bytes = spool.stored_bytes(folder)
        self._measured = time.monotonic()

    def require_room(self) -> None:
        """Check that a request can be taken now.

        Raises:
            RefusedError: 503 where the writer has ended, or too much waits for collect.
        """
        if self._task.done():
            raise _unavailable("the writer of this receiver has ended; start it again")
        if self.spooled_bytes >= self._limits.spooled_bytes:
            raise _unavailable(
                f"{self.spooled_bytes} bytes wait for `flywheel collect`, and the spool may hold "
                f"{self._limits.spooled_bytes}"
            )

    async def commit(self, line: bytes) -> None:
        """Return once ``line`` is on the disk.

        Raises:
            RefusedError: 503 where it could not be written.
        """
        self.require_room()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, written))
        self._arrived.set()
        await written

    async def close(self) -> None:
        """Commit what waits and seal the segment."""
        self._is_closing = True
        self._arrived.set()
        await self._task
        self._disk.shutdown()

    async def _run(self) -> None:
        """Write group after group; the next one gathers while the disk is busy with this one."""
        on_disk = asyncio.get_running_loop().run_in_executor
        try:
            while self._waiting or not self._is_closing:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience()):
                        await self._arrived.wait()
                self._arrived.clear()
                if self._waiting:
                    group, self._waiting = self._waiting, []
                    await on_disk(self._disk, self._write, [line for line, _ in group])
                    self._settle(group)
                if self._patience() == 0:
                    await on_disk(self._disk, self._keep_house)
            await on_disk(self._disk, self._writer.seal)
        finally:
            self.failure = self.failure or "the writer has ended"
            self._settle(self._waiting)

    def _patience(self) -> float:
        """Seconds until there is something to do even if nothing arrives."""
        if self._writer.size >= self._limits.segment_bytes:
            return 0.0
        until_measured = self._measured + MEASURE_SECONDS - time.monotonic()
        until_old = self._limits.segment_seconds - self._writer.age
        return max(0.0, min(until_measured, until_old))

    def _write(self, lines: Sequence[bytes]) -> None:
        began, self.tried_at = time.perf_counter(), time.monotonic()
        try:
            self._writer.commit(lines)
        except OSError as error:
            self.failure = f"writing to the spool {self._folder} failed: {error}"
            return
        self.failure = None
        self._observe(time.perf_counter() - began, sum(len(line) for line in lines))

    def _settle(self, group: Sequence[tuple[bytes, asyncio.Future[None]]]) -> None:
        for _, written in group:
            if written.done():  # its client has gone
                continue
            if self.failure is None:
                written.set_result(None)
            else:
                written.set_exception(_unavailable(self.failure))

    def _keep_house(self) -> None:
        """Seal a segment that is large or old enough, and measure the spool now and then."""
        is_large = self._writer.size >= self._limits.segment_bytes
        try:
            if is_large or self._writer.age >= self._limits.segment_seconds:
                self._writer.seal()
            if time.monotonic() - self._measured >= MEASURE_SECONDS:
                self._measured = time.monotonic()
                self.spooled_bytes = spool.stored_bytes(self._folder)
        except OSError as error:
            self.failure = f"keeping the spool {self._folder} in order failed: {error}"


def _unavailable(reason: str) -> RefusedError:
    return RefusedError(503, reason, retry_after=RETRY_SECONDS)
