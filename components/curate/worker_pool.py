"""Run pure work in a process pool; a single row can neither abort nor stall a curation."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing.connection import wait
from types import FrameType
from typing import TypeVar

from components.curate import ray_pool
from components.curate.ray_pool import RayPool
from components.models import machine

UNJUDGEABLE = "unjudgeable"  # the verdict on a row on which a rule raised an error
ROW_SECONDS = 10.0
"""CPU time per row: a thousand times that of a long conversation. Wall time would depend on the
machine's load and hit innocent rows."""

REPEAT_SECONDS = 1.0  # interval at which the timeout is raised again, as a library may swallow it

NOT_ROW_ERRORS = (ImportError, OSError)

_OURS = "components.curate."


class WorkerKilledError(RuntimeError):
    """A process that judges rows was killed."""


class RowTimeoutError(Exception):
    """Raised when a row exceeds its CPU time."""


class UnencodableTextError(ValueError):
    """Raised when a text holds a lone surrogate, which other programs can't read."""


class _Timer:
    """The timer of the rows of this process: of what it was set to and when, in CPU seconds."""

    seconds = 0.0
    set_at = 0.0
    is_row = False


@contextmanager
def limited(seconds: float = ROW_SECONDS, *, stays: bool = False) -> Generator[None]:
    """Raise ``RowTimeoutError`` in the block after ``seconds`` of CPU time, or a tenth fewer.

    If it ``stays``, the next row has the same timer.
    Only the main thread can be interrupted; other threads have no limit (``map_in_processes``
    judges rows in a main thread).
    """
    if not is_limitable():
        yield
        return
    now = time.process_time()
    # Rows share a timer: setting one for each took a twentieth of the time of judging.
    if _Timer.seconds != seconds or now - _Timer.set_at > seconds / 10:
        signal.signal(signal.SIGVTALRM, _interrupt)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, REPEAT_SECONDS)
        _Timer.seconds, _Timer.set_at = seconds, now
    _Timer.is_row = True
    try:
        yield
    finally:
        _Timer.is_row = False
        if not stays:  # no later program knows the signal, nor does Python at its end
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            _Timer.seconds = 0.0


def is_limitable() -> bool:
    """Return whether a row can be interrupted in this thread."""
    return threading.current_thread() is threading.main_thread()


def reason(error: Exception) -> str:
    """Return the error's type and place: ``TypeError in rules.structure.unknown_tool``.

    It quotes nothing of the row. Raises the error itself if no row can have caused it.
    """
    if isinstance(error, NOT_ROW_ERRORS):
        raise error
    place, step = "", error.__traceback__
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        if module.startswith(_OURS) and module != __name__:
            place = f"{module.removeprefix(_OURS)}.{step.tb_frame.f_code.co_name}"
        step = step.tb_next
    return f"{type(error).__name__} in {place}" if place else type(error).__name__


def require_text(*texts: str | None) -> None:
    """Raise ``UnencodableTextError`` for texts that Arrow, DuckDB and files can't hold."""
    try:
        for text in texts:
            if text is not None and not text.isascii():
                text.encode()
    except UnicodeEncodeError as error:
        raise UnencodableTextError(f"character {error.start} is a lone surrogate") from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Timer.seconds = 0.0  # the next row sets it again
    if _Timer.is_row:
        raise RowTimeoutError(f"took more than {ROW_SECONDS:g} s of processor time")


Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH = 250
MIN_POOL_ITEMS = 4000  # fewer items are done before a pool has started

BATCHES_AHEAD = 3
"""Batches in flight per process: enough that no process waits, few enough for memory."""

PROCESS_BYTES = 1 << 28
"""Memory of a process with its batches: 77 MiB at 2 kB a row, 92 MiB at 40 kB, and as much again
in this process; the rest is for longer rows."""

POOL_SHARE = 0.5  # of the available memory at most; DuckDB's tables grow in the rest


def map_in_processes(
    work: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    *,
    processes: int | None = None,
    min_items: int = MIN_POOL_ITEMS,
    ray: RayPool | None = None,
) -> Iterator[Result]:
    """Map ``work`` over batches of items, in a process pool if there are enough of them.

    Args:
        work: A pure function; it, its input and its result must be picklable.
        items: Read lazily.
        processes: Size of the pool; ``usable_processes`` if ``None``.
        min_items: Fewer items run in this process if it can interrupt endless work.
        ray: A cluster whose nodes do the work instead of a process pool.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or has nodes with other code.
        WorkerKilledError: A process of the pool was killed, as for want of memory.
    """
    processes = processes or usable_processes(machine.cores(), machine.available_memory())
    remaining = iter(items)
    first = list(islice(remaining, min_items))
    batches = _batches(chain(first, remaining))
    if is_limitable() and (len(first) < min_items or (processes == 1 and ray is None)):
        for batch in batches:
            yield from work(batch)
    elif ray is not None and len(first) >= min_items:
        yield from ray_pool.map_on_ray(work, batches, ray)
    else:
        yield from _in_processes(work, batches, processes)


def usable_processes(cores: int, memory: int) -> int:
    """Return how many processes a pool has: one a core, unless the available memory is too small.

    ``memory`` is in bytes.
    """
    return max(1, min(cores, int(POOL_SHARE * memory) // PROCESS_BYTES))


def _in_processes(
    work: Callable[[list[Item]], list[Result]], batches: Iterator[list[Item]], processes: int
) -> Iterator[Result]:
    # Spawned, not forked: this process has threads and an open warehouse.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        try:
            under_way: deque[Future[list[Result]]] = deque()
            for batch in batches:
                under_way.append(pool.submit(work, batch))
                if len(under_way) >= BATCHES_AHEAD * processes:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BrokenProcessPool as error:
            free = machine.available_memory() >> 20
            raise WorkerKilledError(
                f"judging rows: one of {processes} processes was killed, as the system does where "
                f"memory runs out ({free:,} MiB are available now). Do the same again with more "
                f"memory, some {PROCESS_BYTES >> 20} MiB for each process, or with fewer cores, "
                "such as `taskset --cpu-list 0,1 flywheel curate ...` or a container's CPU limit"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, BATCH)):
        yield batch


def _end_with_parent() -> None:
    """Exit when the parent process is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
