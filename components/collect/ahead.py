"""Work ahead of whoever takes the results, in threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def ahead(items: Iterator[Item], most: int) -> Generator[Iterator[Item]]:
    """Let a thread go through ``items``, up to ``most`` of them ahead; what it raises is raised."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield _in_order(lambda: thread.submit(next, items, None), most)


@contextmanager
def abreast(
    work: Callable[[Item], Result], items: Iterator[Item], workers: int
) -> Generator[Iterator[Result]]:
    """Let threads work on one item each; the results come in the order of ``items``.

    One more result than there are threads is held, so that a slow item doesn't keep the others.
    """
    with ThreadPoolExecutor(max_workers=workers) as threads:

        def begin() -> Future[Result] | None:
            item = next(items, None)
            return None if item is None else threads.submit(work, item)

        yield _in_order(begin, workers + 1)


def _in_order(
    begin: Callable[[], Future[Item] | Future[Item | None] | None], most: int
) -> Iterator[Item]:
    """Begin at once, before anyone asks for a result."""
    return _taken(deque(begin() for _ in range(most)), begin)


def _taken(
    coming: deque[Future[Item] | Future[Item | None] | None],
    begin: Callable[[], Future[Item] | Future[Item | None] | None],
) -> Iterator[Item]:
    while (future := coming.popleft()) is not None and (item := future.result()) is not None:
        coming.append(begin())
        yield item
