import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from components.curate import worker_pool

SLOW = """
import time
from components.curate import worker_pool
from tests.components.curate.test_worker_pool import sleep
if __name__ == "__main__":
    print("begins", flush=True)
    list(worker_pool.map_in_processes(sleep, range(10_000), processes=2, min_items=1))
"""


def doubled(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


def broken(numbers: list[int]) -> list[int]:
    return [1 // number for number in numbers]


def where(numbers: list[int]) -> list[int]:
    return [os.getpid() for _ in numbers]


def sleep(numbers: list[int]) -> list[int]:
    time.sleep(60)
    return numbers


@pytest.mark.parametrize("processes", [1, 2])
def test_results_are_in_input_order(processes: int) -> None:
    made = worker_pool.map_in_processes(doubled, range(2000), processes=processes, min_items=10)
    assert list(made) == list(range(0, 4000, 2))


def test_few_items_run_in_this_process_and_many_in_a_pool() -> None:
    assert set(worker_pool.map_in_processes(where, range(9), processes=2, min_items=10)) == {
        os.getpid()
    }
    assert os.getpid() not in set(
        worker_pool.map_in_processes(where, range(1000), processes=2, min_items=10)
    )


def test_an_error_in_a_worker_is_raised_and_ends_the_pool() -> None:
    with pytest.raises(ZeroDivisionError):
        list(worker_pool.map_in_processes(broken, range(1000), processes=2, min_items=10))
    assert not multiprocessing.active_children()


def test_items_are_read_lazily() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield number

    made = worker_pool.map_in_processes(doubled, items(), processes=2, min_items=10)
    next(made)
    assert taken < 10_000


def test_a_killed_process_leaves_no_workers_behind() -> None:
    root = Path(__file__).parents[3]
    begun = subprocess.Popen([sys.executable, "-c", SLOW], cwd=root, stdout=subprocess.PIPE)
    assert begun.stdout is not None
    begun.stdout.readline()
    crew_of_it = workers(psutil.Process(begun.pid))
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    _, alive = psutil.wait_procs(crew_of_it, timeout=20)
    assert not alive


def workers(parent: psutil.Process) -> list[psutil.Process]:
    """Wait until its two workers have started."""
    while len(children := parent.children(recursive=True)) < 2:
        assert parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE
        time.sleep(0.1)
    return children
