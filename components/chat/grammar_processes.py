"""Compile grammars of what clients sent in processes of their own, each client for its share."""

import asyncio
import math
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from signal import SIGPROF
from typing import Any

import orjson

from components import worker_processes
from components.chat import answer_grammar
from components.chat.schema_grammar import UnsupportedSchemaError
from components.worker_processes import ClientTurns, WorkerEndedError, WorkerProcesses

CPU_SECONDS = 2.0
"""A grammar that takes longer to compile is refused; nearly all take less than 0.05 s."""

WAIT_SECONDS = 5.0
"""As ``CPU_SECONDS``, by the clock: less than a gateway's end may take."""

QUICK_SECONDS = 0.25
"""What takes a process longer goes on beside what is quick, one at a time: only slow ones wait."""

MEMORY_BYTES = 768 * 2**20
"""The most addresses of a process; at rest it has some 150 MiB."""

BURST_SECONDS, SHARE = 10.0, 0.25
"""A client may have grammars compiled for so long at once, and for such a part of the time."""

MAX_KEPT = 512
LONGEST_REASON = 500  # characters: llguidance repeats what it was given


class SlowSchemaError(UnsupportedSchemaError):
    """Raised when compiling a grammar takes too long or too much memory."""


class BusyCompilerError(Exception):
    """Raised when a client has used its share, or the compiler ends.

    ``retry_after`` is in seconds.
    """

    def __init__(self, reason: str, retry_after: int, *, is_share: bool) -> None:
        super().__init__(reason)
        self.retry_after, self.is_share = retry_after, is_share


@dataclass(frozen=True, slots=True)
class _Refusal:
    kind: type[ValueError]
    reason: str


class GrammarProcesses:
    """Compiles and keeps grammars; belongs to one event loop."""

    def __init__(self) -> None:
        self._processes = WorkerProcesses(__name__, 2, WAIT_SECONDS)
        self._begin, self._go_on = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._turns = ClientTurns()
        self._shares = _Shares()
        self._kept: dict[bytes, str | _Refusal | None] = {}

    async def close(self) -> None:
        """End the processes; who waits for a grammar gets a ``BusyCompilerError``."""
        await self._processes.close()

    async def compile(self, client: str, task: bytes) -> str | None:
        """Return the grammar of a task, which is JSON; ``None`` if any text is an answer.

        A task has the arguments of a function of ``answer_grammar``: ``labels`` of ``of_labels``,
        ``grammar`` of ``of_text``, or those of ``of_request``; ``may_be_loose`` if the latter may
        leave out what is no grammar.

        Raises:
            UnsupportedSchemaError: It can't be a grammar.
            ValueError: It is malformed.
            BusyCompilerError: The client has used its share.
        """
        # Of a tool's long descriptions, which are in no grammar, only their hash is kept.
        key = blake2b(task, digest_size=16).digest()
        if key not in self._kept:
            async with self._turns.turn(client):
                if key not in self._kept:  # of the same client's request before
                    self._shares.require(client)
                    self._keep(key, await self._outcome(client, task))
        outcome = self._kept[key] = self._kept.pop(key)  # used last
        if isinstance(outcome, _Refusal):
            raise outcome.kind(outcome.reason)
        return outcome

    def _keep(self, key: bytes, outcome: str | _Refusal | None) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = outcome

    async def _outcome(self, client: str, task: bytes) -> str | _Refusal | None:
        try:
            kind, text = await self._call(client, task)
        except TimeoutError:
            return _slow(f"more than {WAIT_SECONDS:g} s")
        except WorkerEndedError as error:
            if error.code is None:
                raise BusyCompilerError(
                    "no process can compile a grammar now; send it again", 1, is_share=False
                ) from None
            if error.code == -SIGPROF:
                return _slow(f"more than {CPU_SECONDS:g} s")
            return _slow("too much memory")
        if kind in _KINDS:
            return _Refusal(_KINDS[kind], text.decode())
        return text.decode() if kind == b"grammar" else None

    async def _call(self, client: str, task: bytes) -> list[bytes]:
        async with self._begin:
            begun = asyncio.Event()
            work = asyncio.create_task(self._work(client, task, begun))
            try:
                await begun.wait()
                await asyncio.wait([work], timeout=QUICK_SECONDS)
            except asyncio.CancelledError:
                work.cancel()
                raise
            if work.done():
                return work.result()
            if must_begin_again := self._go_on.locked():
                work.cancel()
        async with self._go_on:
            if must_begin_again:
                return await self._work(client, task, asyncio.Event())
            return await work

    async def _work(self, client: str, task: bytes, begun: asyncio.Event) -> list[bytes]:
        began = math.inf  # who waits for a process to load, or for others, uses none of a share

        def begin() -> None:
            nonlocal began
            began = time.monotonic()
            begun.set()

        try:
            return await self._processes.call(client, task, taken=begin)
        finally:
            begun.set()  # also if it ended before
            self._shares.count(client, max(0.0, time.monotonic() - began))


def _slow(what: str) -> _Refusal:
    return _Refusal(
        SlowSchemaError,
        f"constraining an answer: compiling its schemas takes {what}; write fewer or simpler "
        "`pattern`s, and less under `allOf`",
    )


class _Shares:
    """The seconds that clients used lately."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float]] = {}  # seconds, and when

    def require(self, client: str) -> None:
        """Raise ``BusyCompilerError`` if a client has used its share."""
        used = self._now(client)
        if used > BURST_SECONDS:
            raise BusyCompilerError(
                f"compiling new schemas of {client or 'this client'} took all of its share; use "
                "simpler schemas, or the same ones again",
                math.ceil((used - BURST_SECONDS) / SHARE),
                is_share=True,
            )

    def count(self, client: str, seconds: float) -> None:
        """Add what a client used."""
        self._used[client] = self._now(client) + seconds, time.monotonic()
        if len(self._used) > MAX_KEPT:
            self._used = {each: self._used[each] for each in self._used if self._now(each)}

    def _now(self, client: str) -> float:
        used, at = self._used.get(client, (0.0, 0.0))
        return max(0.0, used - (time.monotonic() - at) * SHARE)


_KINDS: dict[bytes, type[ValueError]] = {
    b"unsupported": UnsupportedSchemaError,
    b"malformed": ValueError,
}


def _answer(task: list[bytes]) -> tuple[bytes, bytes]:
    """Return the kind of a task's outcome, and the grammar or the reason."""
    try:
        grammar = _compile(orjson.loads(task[0]))
    except UnsupportedSchemaError as error:
        return b"unsupported", _reason(error)
    except (ValueError, RecursionError) as error:
        return b"malformed", _reason(error)
    except MemoryError:
        os._exit(1)  # as for other languages' code, which ends the process
    return (b"free", b"") if grammar is None else (b"grammar", grammar.encode())


def _compile(task: dict[str, Any]) -> str | None:
    match task:
        case {"labels": list(labels)}:
            return answer_grammar.of_labels(labels)
        case {"grammar": str(grammar)}:
            return answer_grammar.of_text(grammar)
        case _:
            may_be_loose = task.pop("may_be_loose", False)
            of_request = partial(answer_grammar.of_request, **task)
    try:
        return of_request()
    except UnsupportedSchemaError:
        if not may_be_loose:
            raise
        return of_request(loosely=True)


def _reason(error: Exception) -> bytes:
    return str(error)[:LONGEST_REASON].encode(errors="replace")


if __name__ == "__main__":
    # What a library writes of a schema that it fails at would be in the gateway's log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    worker_processes.serve_calls(_answer, cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES)
