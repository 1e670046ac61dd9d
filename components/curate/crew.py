"""Spread pure work over the machine's cores; what comes out is in the order of what went in."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import TypeVar

from components.curate import row_guard

Given = TypeVar("Given")
Made = TypeVar("Made")

BATCH = 250
WORTH_A_CREW = 4000
"""Fewer items are done before the processes of a crew have started."""

AHEAD = 3
"""Batches under way for each process: enough that none waits, few enough to hold."""


def spread(
    work: Callable[[list[Given]], list[Made]],
    items: Iterable[Given],
    *,
    processes: int | None = None,
    worth: int = WORTH_A_CREW,
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
    if row_guard.is_limitable() and (processes == 1 or len(first) < worth):
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
