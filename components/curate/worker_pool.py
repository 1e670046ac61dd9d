"""Spread pure work over the cores; a single row can neither end nor stall a curation."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing.connection import wait
from types import FrameType
from typing import TypeVar

UNJUDGEABLE = "unjudgeable"
"""The verdict on a row that a rule could not be asked about."""

ROW_SECONDS = 10.0
"""Processor time that one row may take: a thousand times what a long conversation takes. Of wall
time a busy machine would need more, and other rows would get the verdict."""

AGAIN_SECONDS = 1.0
"""A library may swallow the error, so it is raised again."""

NO_FAULT_OF_A_ROW = (ImportError, OSError)

_OURS = "components.curate."


class RowTimeoutError(Exception):
    """A row took more processor time than it may."""


class UnencodableTextError(ValueError):
    """A text that holds half a character, which no other program could read."""


@contextmanager
def limited(seconds: float = ROW_SECONDS) -> Generator[None]:
    """Raise ``RowTimeoutError`` within the block once it has taken so much processor time.

    Only the main thread can be interrupted; in another one there is no limit (``crew`` takes care
    that rows are judged in a main thread).
    """
    if not is_limitable():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def is_limitable() -> bool:
    """Tell whether a row can be interrupted in this thread."""
    return threading.current_thread() is threading.main_thread()


def reason(error: Exception) -> str:
    """Name an error and where in curation it was raised: ``TypeError in rules.calls.unknown_tool``.

    It quotes nothing of the row.

    Raises:
        Exception: The error itself, if no row can have caused it.
    """
    if isinstance(error, NO_FAULT_OF_A_ROW):
        raise error
    place, step = "", error.__traceback__
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        if module.startswith(_OURS) and module != __name__:
            place = f"{module.removeprefix(_OURS)}.{step.tb_frame.f_code.co_name}"
        step = step.tb_next
    return f"{type(error).__name__} in {place}" if place else type(error).__name__


def require_text(*texts: str | None) -> None:
    """Check that texts can be handed to Arrow, DuckDB and files.

    Raises:
        UnencodableTextError: One of them holds half a character.
    """
    try:
        for text in texts:
            if text is not None and not text.isascii():
                text.encode()
    except UnicodeEncodeError as error:
        raise UnencodableTextError(f"character {error.start} is half a character") from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise RowTimeoutError(f"took more than {ROW_SECONDS:g} s of processor time")


Given = TypeVar("Given")
Made = TypeVar("Made")

BATCH = 250
WORTH_A_POOL = 4000
"""Fewer items are done before the processes of a crew have started."""

AHEAD = 3
"""Batches under way for each process: enough that none waits, few enough to hold."""


def map_in_processes(
    work: Callable[[list[Given]], list[Made]],
    items: Iterable[Given],
    *,
    processes: int | None = None,
    worth: int = WORTH_A_POOL,
) -> Iterator[Made]:
    """Do the work, batch by batch, in processes of their own where there is enough of it.

    Args:
        work: A pure function that can be pickled, as what it takes and gives must be.
        items: What to do; read as it is needed.
        processes: How many; as many as this process may use cores, if ``None``.
        worth: Up to so many items are done right here, if in a main thread, where work that takes
            for ever can be interrupted.
    """
    processes = processes or len(os.sched_getaffinity(0))
    remaining = iter(items)
    first = list(islice(remaining, worth))
    batches = _batches(chain(first, remaining))
    if is_limitable() and (processes == 1 or len(first) < worth):
        for batch in batches:
            yield from work(batch)
    else:
        yield from _in_processes(work, batches, processes)


def _in_processes(
    work: Callable[[list[Given]], list[Made]], batches: Iterator[list[Given]], processes: int
) -> Iterator[Made]:
    # Not forked: this process has threads and an open warehouse.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        try:
            under_way: deque[Future[list[Made]]] = deque()
            for batch in batches:
                under_way.append(pool.submit(work, batch))
                if len(under_way) >= AHEAD * processes:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _batches(items: Iterator[Given]) -> Iterator[list[Given]]:
    while batch := list(islice(items, BATCH)):
        yield batch


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
