"""Parse large bodies in separate processes, so that no client delays another."""

import asyncio
import gc
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import BinaryIO

from components.receive import payloads
from components.receive.client_tokens import Token
from components.receive.payloads import Envelope, SpoolLine
from components.receive.settings import RefusedError

NICE = 10
"""Where there are too few cores, whoever answers small requests goes first."""


def task_line(envelope: Envelope, content: bytes) -> bytes:
    """Write the line that goes before ``content``."""
    head = {
        "kind": envelope.kind,
        "content_type": envelope.content_type,
        "token": envelope.token.model_dump_json(),
        "size": len(content),
    }
    return json.dumps(head).encode() + b"\n"


def parse_answer(head: dict[str, object]) -> RefusedError | tuple[int, int]:
    """Read an answer's line: the refusal, or the size of what follows and the number of records."""
    match head:
        case {"status": int(status), "reason": str(reason)}:
            return RefusedError(status, reason)
        case {"size": int(size), "count": int(count)}:
            return size, count
        case _:
            raise ValueError(f"reading a reader's answer: it has the keys {', '.join(head)}")


def serve_tasks(tasks: BinaryIO, answers: BinaryIO) -> None:
    """Read bodies until there are no more."""
    gc.disable()  # it looks at all of a large body again and again: 16 MiB took 2 to 9 s, not 0.5 s
    gc.freeze()
    while head := tasks.readline():
        found = json.loads(head)
        made = _read(found, tasks.read(found["size"]))
        if isinstance(made, RefusedError):
            answers.write(json.dumps({"status": made.status, "reason": made.reason}).encode())
            answers.write(b"\n")
        else:
            answers.write(b'{"size":%d,"count":%d}\n' % (len(made.line), made.count))
            answers.write(made.line)
        answers.flush()
        del made
        gc.collect()  # of what came since the freeze: next to nothing


def _read(head: dict[str, str], content: bytes) -> SpoolLine | RefusedError:
    token = Token.model_validate_json(head["token"])
    envelope = Envelope(head["kind"], head["content_type"], token)  # type: ignore[arg-type]
    try:
        return payloads.read_body(envelope, content)
    except RefusedError as refused:
        return refused.with_traceback(None)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # they go to a whole group of processes
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    serve_tasks(sys.stdin.buffer, sys.stdout.buffer)


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

    async def read(self, envelope: Envelope, content: bytes) -> SpoolLine:
        """Read a body, as ``entry.read`` does.

        Raises:
            RefusedError: As there; 503 where the process that read it has ended.
        """
        if len(content) <= SMALL_BYTES:
            return payloads.read_body(envelope, content)
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
        sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE, limit=BUFFERED_BYTES
    )


async def _ask(process: Process, envelope: Envelope, content: bytes) -> SpoolLine | RefusedError:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(task_line(envelope, content))
    process.stdin.write(content)
    await process.stdin.drain()
    made = parse_answer(json.loads(await process.stdout.readuntil()))
    if isinstance(made, RefusedError):
        return made
    size, count = made
    return SpoolLine(await process.stdout.readexactly(size), count)
