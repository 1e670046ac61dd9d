"""Call a function of bytes in other processes, so that no client's work delays another's."""

import asyncio
import gc
import os
import resource
import signal
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import BinaryIO

NICE = 10  # lower priority, so that small requests come first on a machine with few cores

_COUNT, _SIZE = struct.Struct("<I"), struct.Struct("<Q")
_BUFFERED_BYTES = 2**20
_LOADED = b"loaded\n"
_ENDED, _CODE = 2**32 - 1, struct.Struct("<i")  # instead of the parts of an answer

LOAD_SECONDS = 60.0
"""A process that has not loaded after so long is ended."""

INTERRUPT_SECONDS = 1.0
"""A process that does not give a task up in this time is ended."""


class WorkerEndedError(Exception):
    """A process ended during a call, as one does that the system kills for its memory.

    ``code`` is ``None`` if that is not the task's fault: they were closed, or did not load.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the process ended with {code}")
        self.code = code


class ClientTurns:
    """Lets each client do one thing at a time; belongs to one event loop."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncGenerator[None]:
        """Wait until nothing else of a client is in such a block."""
        self._waiting[client] += 1
        try:
            async with self._locks[client]:
                yield
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client], self._locks[client]


class WorkerProcesses:
    """Processes that run a module, which calls ``serve_calls``; belongs to one event loop.

    Args:
        module: Its name.
        most: How many processes there may be at once. They start when they are needed.
        seconds: A call that takes longer ends with its process, or with the process of the task if
            each has one; none does if left out. What a process takes to load is none of it.
    """

    def __init__(self, module: str, most: int, seconds: float | None = None) -> None:
        self._module, self._seconds = module, seconds
        self._free = asyncio.Semaphore(most)
        self._idle: list[Process] = []
        self._busy = set[Process]()  # those that load among them
        self._is_closed = False
        self._turns = ClientTurns()

    async def call(
        self, client: str, *task: bytes, taken: Callable[[], None] = lambda: None
    ) -> list[bytes]:
        """Return what the module's function returns; the calls of a client wait for each other.

        ``taken`` is called when a process that has loaded takes the task.

        Raises:
            WorkerEndedError: The process ended.
            TimeoutError: The call took too long.
        """
        async with self._turns.turn(client), self._free:
            process = await self._loaded_process()
            self._busy.add(process)
            try:
                self._require_open()
                taken()
                exchange = asyncio.create_task(_exchange(process, task))
                try:
                    async with asyncio.timeout(self._seconds):
                        return await asyncio.shield(exchange)
                finally:
                    await _interrupt(process, exchange)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                await process.wait()
                self._require_open()
                raise WorkerEndedError(process.returncode) from error
            finally:
                self._busy.discard(process)
                self._idle.append(process)

    async def close(self) -> None:
        """Kill the processes; calls under way, and later ones, raise ``WorkerEndedError``."""
        self._is_closed = True
        for process in (*self._idle, *self._busy):
            _kill(process)
            await process.wait()

    def _require_open(self) -> None:
        if self._is_closed:
            raise WorkerEndedError(None)

    async def _loaded_process(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            assert process.stdin is not None
            if process.returncode is None and not process.stdin.is_closing():
                return process
        return await self._start()

    async def _start(self) -> Process:
        self._require_open()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, stdin=PIPE, stdout=PIPE, limit=_BUFFERED_BYTES
        )
        self._busy.add(process)
        try:
            self._require_open()  # it may have been closed meanwhile
            assert process.stdout is not None
            async with asyncio.timeout(LOAD_SECONDS):
                await process.stdout.readexactly(len(_LOADED))
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            _kill(process)
            await process.wait()
            raise WorkerEndedError(None) from error
        except BaseException:
            _kill(process)
            raise
        finally:
            self._busy.discard(process)
        return process


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _interrupt(process: Process, exchange: "asyncio.Task[list[bytes]]") -> None:
    """Have a process give up a task that nobody waits for, or end it."""
    if exchange.done():
        return
    try:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGUSR1)
        await asyncio.wait([exchange], timeout=INTERRUPT_SECONDS)
    finally:
        if not exchange.done():
            _kill(process)
        [outcome] = await asyncio.gather(exchange, return_exceptions=True)
        if not isinstance(outcome, list | WorkerEndedError):
            await process.wait()


async def _exchange(process: Process, task: Sequence[bytes]) -> list[bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    # At once: after a write that fails, uvloop refuses another one as a defect of the program.
    process.stdin.writelines([_head(task), *task])
    await process.stdin.drain()
    (count,) = _COUNT.unpack(await process.stdout.readexactly(_COUNT.size))
    if count == _ENDED:
        (code,) = _CODE.unpack(await process.stdout.readexactly(_CODE.size))
        raise WorkerEndedError(code)
    sizes = await process.stdout.readexactly(count * _SIZE.size)
    return [await process.stdout.readexactly(size) for (size,) in _SIZE.iter_unpack(sizes)]


def _head(parts: Sequence[bytes]) -> bytes:
    return _COUNT.pack(len(parts)) + b"".join(_SIZE.pack(len(part)) for part in parts)


def serve_calls(
    function: Callable[[list[bytes]], Sequence[bytes]],
    *,
    memory_bytes: int | None = None,
    cpu_seconds: float | None = None,
) -> None:
    """Answer the calls of the parent process until it ends.

    A call gets no more than ``memory_bytes`` of addresses. With ``cpu_seconds`` each is answered in
    a fork, which has loaded what takes long; one that takes more of the processor ends by
    ``SIGPROF``, also in the midst of another language's code.
    """
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    gc.disable()  # it scans a large body again and again: 16 MiB took 2 to 9 s instead of 0.5 s
    gc.freeze()
    answered = function if cpu_seconds is None else partial(_forked, function, cpu_seconds)
    _write(_LOADED)
    while task := _read(sys.stdin.buffer):
        answer = answered(task)
        _write(*([answer] if isinstance(answer, bytes) else [_head(answer), *answer]))
        del task, answer
        gc.collect()  # cheap: only objects created since the freeze


def _forked(
    function: Callable[[list[bytes]], Sequence[bytes]], cpu_seconds: float, task: list[bytes]
) -> bytes:
    """Return what a call's fork writes."""
    reads, writes = os.pipe()
    if not (pid := os.fork()):
        try:
            # Of the caller's sockets uvloop leaves copies open, by which it would not see that the
            # other process has ended.
            os.dup2(writes, sys.stdout.fileno())
            os.close(sys.stdin.fileno())
            os.closerange(3, 2**20)
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            answer = function(task)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            _write(_head(answer), *answer)
            os._exit(0)
        finally:
            os._exit(1)
    signal.signal(signal.SIGUSR1, lambda _number, _frame: os.kill(pid, signal.SIGKILL))
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return _COUNT.pack(_ENDED) + _CODE.pack(code) if code else answer


def _write(*parts: bytes) -> None:
    sys.stdout.buffer.writelines(parts)
    sys.stdout.buffer.flush()


def _read(tasks: BinaryIO) -> list[bytes]:
    if not (count := tasks.read(_COUNT.size)):
        return []
    sizes = tasks.read(_COUNT.unpack(count)[0] * _SIZE.size)
    return [tasks.read(size) for (size,) in _SIZE.iter_unpack(sizes)]
