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
from components.curate.worker_pool import RowTimeoutError, WorkerKilledError

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


def doubled_here(numbers: list[int]) -> list[tuple[int, int]]:
    return [(2 * number, os.getpid()) for number in numbers]


def sleep(numbers: list[int]) -> list[int]:
    time.sleep(60)
    return numbers


@pytest.mark.parametrize(
    ("count", "processes"),
    [
        pytest.param(9, 2, id="few"),
        pytest.param(1000, 1, id="no-other-process"),
        pytest.param(1000, 2, id="in-a-pool"),
    ],
)
def test_results_are_in_input_order_and_a_pool_is_for_many_items(
    count: int, processes: int
) -> None:
    made = worker_pool.map_in_processes(
        doubled_here, range(count), processes=processes, min_items=10
    )
    results, places = zip(*made, strict=True)
    assert results == tuple(range(0, 2 * count, 2))
    assert (os.getpid() not in places) is (count > 10 and processes > 1)


def test_an_error_in_a_worker_is_raised_and_ends_the_pool() -> None:
    with pytest.raises(ZeroDivisionError):
        list(worker_pool.map_in_processes(broken, range(1000), processes=2, min_items=10))
    assert not multiprocessing.active_children()


def killed(numbers: list[int]) -> list[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    return numbers


def test_a_killed_worker_ends_the_work_with_what_happened_and_what_helps() -> None:
    with pytest.raises(WorkerKilledError) as raised:
        list(worker_pool.map_in_processes(killed, range(1000), processes=2, min_items=10))
    assert "judging rows: one of 2 processes was killed, as the system does" in str(raised.value)
    assert "Do the same again with more memory" in str(raised.value)
    assert not multiprocessing.active_children()


GIB = 1 << 30


@pytest.mark.parametrize(
    ("cores", "memory", "expected"),
    [
        pytest.param(32, 4 * GIB, 8, id="many-cores-in-a-small-container"),
        pytest.param(32, 64 * GIB, 32, id="a-large-machine"),
        pytest.param(2, 2 * GIB, 2, id="a-laptop"),
        pytest.param(8, 0, 1, id="no-memory"),
    ],
)
def test_a_pool_has_a_process_a_core_if_the_memory_is_enough(
    cores: int, memory: int, expected: int
) -> None:
    assert worker_pool.usable_processes(cores, memory) == expected


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


def test_each_slow_row_is_interrupted_and_what_follows_is_not() -> None:
    for _ in range(2):
        with pytest.raises(RowTimeoutError), worker_pool.limited(0.05):
            compute_for(10)
        compute_for(0.1)


def compute_for(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
