"""Threads work ahead of the consumer of their results."""

from collections.abc import Generator
from threading import Event

import pytest

from components.collect.writer import map_in_threads, prefetch

SOON = 20.0
"""Seconds after which work that has not begun never will."""


def test_work_begins_before_a_result_is_requested():
    begun = Event()

    def work(item: int) -> int:
        begun.set()
        return item

    with map_in_threads(work, iter([1, 2, 3]), 2) as results:
        assert begun.wait(SOON)
        assert [*results] == [1, 2, 3]


def test_items_are_produced_before_they_are_requested():
    begun = Event()

    def items() -> Generator[int]:
        begun.set()
        yield from (1, 2, 3)

    with prefetch(items(), 1) as results:
        assert begun.wait(SOON)
        assert [*results] == [1, 2, 3]


def test_an_error_in_a_thread_is_raised_when_its_result_is_taken():
    def items() -> Generator[int]:
        yield 1
        raise ValueError("the second")

    with prefetch(items(), 2) as results:
        assert next(results) == 1
        with pytest.raises(ValueError, match="the second"):
            next(results)
