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
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from typing import BinaryIO

from components.receive import payloads
from components.receive.client_tokens import Token
from components.receive.payloads import Envelope, SpoolLine
from components.receive.settings import RefusedError

NICE = 10  # lower priority, so that small requests come first on a machine with few cores


SMALL_BYTES = 16 * 2**10
"""Bodies up to this size take at most 3 ms, and on average less than in another process."""

PROCESSES = 2
BUFFERED_BYTES = 2**20
RETRY_SECONDS = 1


def serve_tasks(tasks: BinaryIO, answers: BinaryIO) -> None:
    """Parse bodies from ``tasks`` and write their answers, until ``tasks`` ends."""
    gc.disable()  # it scans a large body again and again: 16 MiB took 2 to 9 s instead of 0.5 s
    gc.freeze()
    while line := tasks.readline():
        head = json.loads(line)
        token = Token.model_validate_json(head["token"])
        envelope = Envelope(head["kind"], head["content_type"], token, head["received_at"])
        try:
            result = payloads.read_body(envelope, tasks.read(head["size"]))
        except RefusedError as refused:
            answer = {"status": refused.status, "reason": refused.reason}
            answers.write(json.dumps(answer).encode() + b"\n")
        else:
            answer = asdict(replace(result, line=b"")) | {"line": len(result.line)}
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.write(result.line)
            del result
        answers.flush()
        gc.collect()  # cheap: only objects created since the freeze


class Readers:
    """Parses bodies, large ones in other processes; belongs to one event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(PROCESSES)
        self._idle: list[Process] = []
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[str] = Counter()

    async def read(self, envelope: Envelope, content: bytes) -> SpoolLine:
        """Do as ``payloads.read_body``; also refuse with 503 if the process has ended."""
        if len(content) <= SMALL_BYTES:
            return payloads.read_body(envelope, content)
        async with self._turn(envelope.token.client_id), self._free:
            process = self._idle_process() or await _start()
            try:
                result = await _request(process, envelope, content)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                await process.wait()
                raise RefusedError(
                    503,
                    f"the process that read the body of {len(content)} bytes ended with "
                    f"{process.returncode}; send less at once",
                    retry_after=RETRY_SECONDS,
                ) from error
            except BaseException:  # or else it would answer the next request with these records
                _kill(process)
                raise
            self._idle.append(process)
        if isinstance(result, RefusedError):
            raise result
        return result

    async def close(self) -> None:
        """Kill the processes, all of which must be idle."""
        for process in self._idle:
            _kill(process)
            await process.wait()

    def _idle_process(self) -> Process | None:
        while self._idle:
            process = self._idle.pop()
            assert process.stdin is not None
            if process.returncode is None and not process.stdin.is_closing():
                return process
        return None

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


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _request(
    process: Process, envelope: Envelope, content: bytes
) -> SpoolLine | RefusedError:
    assert process.stdin is not None
    assert process.stdout is not None
    head = {
        "kind": envelope.kind,
        "content_type": envelope.content_type,
        "token": envelope.token.model_dump_json(),
        "received_at": envelope.received_at,
        "size": len(content),
    }
    # At once: after a write that fails, uvloop refuses another one as a defect of the program.
    process.stdin.writelines([json.dumps(head).encode() + b"\n", content])
    await process.stdin.drain()
    answer = json.loads(await process.stdout.readuntil())
    if "status" in answer:
        return RefusedError(answer["status"], answer["reason"])
    return SpoolLine(**answer | {"line": await process.stdout.readexactly(answer["line"])})


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    serve_tasks(sys.stdin.buffer, sys.stdout.buffer)
