"""Work ahead of whoever takes the results, in a thread."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def ahead(items: Iterator[Item], most: int) -> Generator[Iterator[Item]]:
    """Let a thread go through ``items``, up to ``most`` of them ahead; what it raises is raised."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield _in_order(items, thread, most)


def _in_order(items: Iterator[Item], thread: ThreadPoolExecutor, most: int) -> Iterator[Item]:
    coming = deque(thread.submit(next, items, None) for _ in range(most))
    while (item := coming.popleft().result()) is not None:
        coming.append(thread.submit(next, items, None))
        yield item
