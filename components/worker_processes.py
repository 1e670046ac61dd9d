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
from typing import BinaryIO

NICE = 10  # lower priority, so that small requests come first on a machine with few cores

_COUNT, _SIZE = struct.Struct("<I"), struct.Struct("<Q")
_BUFFERED_BYTES = 2**20
_LOADED = b"loaded\n"


class WorkerEndedError(Exception):
    """A process ended during a call, as one does that the system kills for its memory.

    ``code`` is ``None`` if the processes were closed.
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
        seconds: A call that takes longer ends with its process; none does if left out. What a
            process takes to load is none of it.
        keeps_spare: Whether one more is started with the last one that is used, for modules that
            take long to load and whose processes often end.
    """

    def __init__(
        self,
        module: str,
        most: int,
        seconds: float | None = None,
        *,
        keeps_spare: bool = False,
    ) -> None:
        self._module, self._seconds, self._keeps_spare = module, seconds, keeps_spare
        self._starting: asyncio.Task[None] | None = None
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
            if self._keeps_spare and not self._idle and self._starting is None:
                self._starting = asyncio.create_task(self._start_spare())
            try:
                self._require_open()
                taken()
                async with asyncio.timeout(self._seconds):
                    answer = await _exchange(process, task)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                await process.wait()
                self._require_open()
                raise WorkerEndedError(process.returncode) from error
            except BaseException:  # or else it would answer the next call with this one's result
                _kill(process)
                raise
            finally:
                self._busy.discard(process)
            self._idle.append(process)
        return answer

    async def close(self) -> None:
        """Kill the processes; calls under way, and later ones, raise ``WorkerEndedError``."""
        self._is_closed = True
        for process in (*self._idle, *self._busy):
            _kill(process)
            await process.wait()
        if self._starting is not None:
            await asyncio.wait([self._starting])

    def _require_open(self) -> None:
        if self._is_closed:
            raise WorkerEndedError(None)

    async def _loaded_process(self) -> Process:
        process = self._idle_process()
        if process is None and self._starting is not None:
            await asyncio.wait([self._starting])
            process = self._idle_process()
        return process or await self._start()

    def _idle_process(self) -> Process | None:
        while self._idle:
            process = self._idle.pop()
            assert process.stdin is not None
            if process.returncode is None and not process.stdin.is_closing():
                return process
        return None

    async def _start_spare(self) -> None:
        with suppress(OSError, WorkerEndedError):  # else the next call starts one
            self._idle.insert(0, await self._start())  # those that were used come first
        self._starting = None

    async def _start(self) -> Process:
        self._require_open()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, stdin=PIPE, stdout=PIPE, limit=_BUFFERED_BYTES
        )
        self._busy.add(process)
        try:
            self._require_open()  # it may have been closed meanwhile
            assert process.stdout is not None
            await process.stdout.readexactly(len(_LOADED))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await process.wait()
            self._require_open()
            raise WorkerEndedError(process.returncode) from error
        except BaseException:
            _kill(process)
            raise
        finally:
            self._busy.discard(process)
        return process


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _exchange(process: Process, task: Sequence[bytes]) -> list[bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    # At once: after a write that fails, uvloop refuses another one as a defect of the program.
    process.stdin.writelines([_head(task), *task])
    await process.stdin.drain()
    (count,) = _COUNT.unpack(await process.stdout.readexactly(_COUNT.size))
    sizes = await process.stdout.readexactly(count * _SIZE.size)
    return [await process.stdout.readexactly(size) for (size,) in _SIZE.iter_unpack(sizes)]


def _head(parts: Sequence[bytes]) -> bytes:
    return _COUNT.pack(len(parts)) + b"".join(_SIZE.pack(len(part)) for part in parts)


def serve_calls(
    function: Callable[[list[bytes]], Sequence[bytes]],
    *,
    cpu_seconds: float = 0.0,
    memory_bytes: int | None = None,
) -> None:
    """Answer the calls of the parent process until it ends.

    A call that takes more than ``cpu_seconds`` of the processor, unless they are 0, ends this
    process by ``SIGPROF``, also in the midst of another language's code; of more than
    ``memory_bytes`` of addresses it gets none.
    """
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    gc.disable()  # it scans a large body again and again: 16 MiB took 2 to 9 s instead of 0.5 s
    gc.freeze()
    sys.stdout.buffer.write(_LOADED)
    sys.stdout.buffer.flush()
    while task := _read(sys.stdin.buffer):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        answer = function(task)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        sys.stdout.buffer.write(_head(answer))
        sys.stdout.buffer.writelines(answer)
        sys.stdout.buffer.flush()
        del task, answer
        gc.collect()  # cheap: only objects created since the freeze


def _read(tasks: BinaryIO) -> list[bytes]:
    if not (count := tasks.read(_COUNT.size)):
        return []
    sizes = tasks.read(_COUNT.unpack(count)[0] * _SIZE.size)
    return [tasks.read(size) for (size,) in _SIZE.iter_unpack(sizes)]
