"""One job at a time holds a GPU; a waiting job reports the holder, a killed one frees it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

MODULES = Path(__file__).parent / "modules"

Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    """Start processes that each need GPUs; those still alive at the end are killed."""
    with ExitStack() as stack:

        def holder(doing: str, count: int = 1, devices: tuple[str, ...] = ("gpu-a",)) -> Process:
            program = [sys.executable, str(MODULES / "holder.py")]
            command = [*program, str(tmp_path / "leases"), str(count), doing, *devices]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            )
            stack.callback(process.kill)
            return process

        yield holder


def says(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def named(process: Process, doing: str) -> str:
    return f"pid {process.pid} on {socket.gethostname()} running {doing}"


def test_a_waiting_job_reports_the_holder_of_the_gpu_and_gets_it_when_that_is_killed(
    start: Start,
) -> None:
    first = start("train a")
    assert says(first) == "holds gpu-a"
    second = start("train b")
    assert says(second) == f"waiting for GPU 0, held by {named(first, 'train a')}"
    kill(first)
    assert says(second) == "holds gpu-a"


def test_another_gpu_is_taken_where_one_is_free(start: Start) -> None:
    both = ("gpu-a", "gpu-b")
    assert says(start("train a", devices=both)) == "holds gpu-a"
    assert says(start("train b", devices=both)) == "holds gpu-b"


@pytest.mark.slow
def test_a_job_that_needs_all_gpus_is_not_overtaken(start: Start) -> None:
    both = ("gpu-a", "gpu-b")
    first = start("evaluate a", devices=both)
    assert says(first) == "holds gpu-a"
    greedy = start("train b", count=2, devices=both)
    assert says(greedy) == f"waiting for GPU 0, held by {named(first, 'evaluate a')}"
    late = start("evaluate c", devices=both)
    assert says(late) == f"waiting for a GPU, after {named(greedy, 'train b')}"
    kill(first)
    assert says(greedy) == "holds gpu-a gpu-b"
    kill(greedy)
    line = says(late)
    while line.startswith("waiting"):
        line = says(late)
    assert line == "holds gpu-a"


@pytest.mark.slow
def test_a_killed_job_in_the_queue_makes_room_for_the_next(start: Start) -> None:
    first = start("train a")
    assert says(first) == "holds gpu-a"
    second = start("train b")
    assert "held by" in says(second)
    third = start("train c")
    assert f"after {named(second, 'train b')}" in says(third)
    kill(second)
    assert says(third) == f"waiting for GPU 0, held by {named(first, 'train a')}"


def test_a_program_that_replaces_the_holder_keeps_the_gpu(start: Start, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from flows.jobs import launch\n"
        "with launch.hold_gpus(Path(sys.argv[1]), ['gpu-a'], 1, 'train a', print):\n"
        "    os.execvp('sh', ['sh', '-c', 'echo replaced; exec sleep 60'])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "leases")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert says(program) == "replaced"
            second = start("train b")
            assert says(second) == f"waiting for GPU 0, held by {named(program, 'train a')}"
        finally:
            program.kill()
    assert says(second) == "holds gpu-a"
