"""Read bodies so that no client's delay another's: large ones in processes beside the receiver.

A body of 16 MiB can take seconds to read, most of them in one call that keeps all threads of its
process waiting. So what is larger than ``SMALL_BYTES`` is read by one of a few processes, and each
client has one of them at a time: who sends large bodies waits for his own. A process is started
when a body first needs it, and one that dies costs the request that it was reading.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from components.receive import entry, reader
from components.receive.entry import Entry, Envelope
from components.receive.refusal import RefusedError

SMALL_BYTES = 16 * 2**10
"""What is not larger takes 3 ms at most, and less than a process would need for it on average."""

PROCESSES = 2
BUFFERED_BYTES = 2**20
RETRY_SECONDS = 1


class Readers:
    """Reads bodies; it belongs to one event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(PROCESSES)
        self._idle: list[Process] = []
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[str] = Counter()

    async def read(self, envelope: Envelope, content: bytes) -> Entry:
        """Read a body, as ``entry.read`` does.

        Raises:
            RefusedError: As there; 503 where the process that read it has ended.
        """
        if len(content) <= SMALL_BYTES:
            return entry.read(envelope, content)
        async with self._turn(envelope.token.client_id), self._free:
            process = self._idle.pop() if self._idle else await _start()
            try:
                made = await _ask(process, envelope, content)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                await process.wait()
                raise RefusedError(
                    503,
                    f"the process that read the body of {len(content)} bytes ended with "
                    f"{process.returncode}; send less at once",
                    retry_after=RETRY_SECONDS,
                ) from error
            except BaseException:  # it would answer the next request with this one's records
                process.kill()
                raise
            self._idle.append(process)
        if isinstance(made, RefusedError):
            raise made
        return made

    async def close(self) -> None:
        """End the processes, none of which is busy any more."""
        for process in self._idle:
            process.kill()
            await process.wait()

    @asynccontextmanager
    async def _turn(self, client_id: str) -> AsyncGenerator[None]:
        self._waiting[client_id] += 1
        try:
            async with self._turns[client_id]:
                yield
        finally:
            self._waiting[client_id] -= 1
            if not self._waiting[client_id]:
                del self._waiting[client_id], self._turns[client_id]


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", reader.__name__, stdin=PIPE, stdout=PIPE, limit=BUFFERED_BYTES
    )


async def _ask(process: Process, envelope: Envelope, content: bytes) -> Entry | RefusedError:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(reader.task(envelope, content))
    process.stdin.write(content)
    await process.stdin.drain()
    made = reader.answer(json.loads(await process.stdout.readuntil()))
    if isinstance(made, RefusedError):
        return made
    size, count = made
    return Entry(await process.stdout.readexactly(size), count)
