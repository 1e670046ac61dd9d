"""What happens to a call when its process does not load, or takes too long."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from components import worker_processes
from components.worker_processes import WorkerEndedError, WorkerProcesses
from tests.support import napping_worker


def test_a_process_that_hangs_while_it_loads_has_a_deadline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_processes, "LOAD_SECONDS", 0.2)

    async def call() -> None:
        processes = WorkerProcesses("tests.support.hanging_worker", 1)
        with pytest.raises(WorkerEndedError) as ended:
            await processes.call("a", b"task")
        assert ended.value.code is None
        await processes.close()

    asyncio.run(asyncio.wait_for(call(), 60))  # for ever before


def test_a_call_that_takes_too_long_ends_without_the_process_that_has_loaded():
    async def call() -> tuple[list[bytes], ...]:
        processes = WorkerProcesses(napping_worker.__name__, 1, 0.5)
        before = await processes.call("a", b"0")
        for seconds in (b"600", b"600"):
            with pytest.raises(TimeoutError):
                await processes.call("a", seconds)
        with pytest.raises(WorkerEndedError):
            await processes.call("a", b"no number")
        after = await processes.call("a", b"0")
        await processes.close()
        return before, after

    before, after = asyncio.run(call())
    assert before == after  # the number of the process that loaded


def test_who_stops_waiting_leaves_the_process_to_others():
    async def call() -> None:
        processes = WorkerProcesses(napping_worker.__name__, 1)
        loaded = await processes.call("a", b"0")
        gone = asyncio.create_task(processes.call("a", b"600"))
        await asyncio.sleep(0.2)
        gone.cancel()
        assert await processes.call("b", b"0") == loaded
        await processes.close()

    asyncio.run(asyncio.wait_for(call(), 60))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_call_under_way_ends_with_the_processes(run: Callable[[Any], None]):
    async def call() -> None:
        processes = WorkerProcesses(napping_worker.__name__, 1)
        await processes.call("a", b"0")
        waits = asyncio.create_task(processes.call("a", b"60"))
        await asyncio.sleep(0.2)
        await processes.close()
        with pytest.raises(WorkerEndedError) as ended:
            await waits
        assert ended.value.code is None

    run(asyncio.wait_for(call(), 20))  # 60 s before
