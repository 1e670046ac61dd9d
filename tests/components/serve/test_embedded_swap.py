"""The embedded engine as a child: real adapters are loaded, proved, swapped and unloaded."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from components.serve.engines.embedded_process import EmbeddedOptions, EmbeddedProcess
from components.serve.engines.serving_engine import Generation, UpstreamError
from components.serve.settings import SwapSettings, SwapTimes
from components.serve.staged_version import StagedVersion
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.support import tiny
from tests.support.staged_adapters import PROMPT, stage_adapter, stage_word_adapter, word_of
from tests.support.swap_load import hundred_swaps, running_swap, until


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny.build(folder / "base")
    return folder


@asynccontextmanager
async def embedded(
    serve: Path, base: Path, *names: str
) -> AsyncGenerator[tuple[AdapterSwap, list[EmbeddedProcess]]]:
    """Run a swap of embedded engines with these names."""
    options = EmbeddedOptions(base, "fp32", slots=4, threads=1)
    processes = [EmbeddedProcess(name, options) for name in names or ("embedded",)]
    settings, times = SwapSettings(min_ready=1), SwapTimes(drain=20, longest_proof=60)
    async with running_swap(serve, {}, settings, times) as swap:
        try:
            await asyncio.gather(*(process.start() for process in processes))
            for process in processes:
                await swap.replicas.add(process.client, None)
            yield swap, processes
        finally:
            for process in processes:
                await process.stop()


class SelfRestarting:
    """An embedded engine that is killed; it starts again on its own."""

    def __init__(self, process: EmbeddedProcess) -> None:
        self._process = process

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)

    def start(self) -> None:
        pass


async def answer(process: EmbeddedProcess, staged: StagedVersion) -> str:
    generation = Generation("Hello", max_tokens=8)
    return "".join([p.text async for p in process.client.complete(staged.model, generation)])


@pytest.mark.slow
def test_real_adapters_are_proved_refused_swapped_and_unloaded(serve: Path):
    async def scenario() -> None:
        async with embedded(serve, serve / "base") as (swap, [process]):
            first, second, third = versions
            right = first.references()
            third.references().write(first.references_path)
            with pytest.raises(SwapRefusedError, match="from its reference"):
                await swap.follow(first)
            right.write(first.references_path)
            for staged in versions:
                await swap.follow(staged)
            await until(lambda: not first.folder.exists(), 20)  # unloaded, and deleted
            with pytest.raises(UpstreamError, match="404"):
                await answer(process, first)
            route = swap.current.routes["support"]
            assert (route.champion.model, route.previous and route.previous.model) == (
                third.model,
                second.model,
            )
            [proof] = swap.replicas.proofs(third.model)
            assert proof.objection is None
            assert proof.from_reference < 1e-4 < proof.from_base
            assert await answer(process, third) != await answer(process, second)
            assert await swap.withdraw("support", ["3"], "erased") == []
            assert swap.current.routes["support"].champion.version == "2"

    versions = [stage_adapter(serve, serve / "base", "support", number) for number in (1, 2, 3)]
    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_hundred_swaps_of_two_engines_and_ten_thousand_answers(serve: Path, tmp_path: Path):
    async def scenario() -> None:
        async with embedded(tmp_path, serve / "base", "embedded", "embedded-2") as (swap, both):
            await hundred_swaps(swap, versions, word_of, SelfRestarting(both[1]), PROMPT)

    versions = [
        stage_word_adapter(tmp_path, serve / "base", "support", number) for number in range(1, 102)
    ]
    asyncio.run(scenario())


@pytest.mark.slow
def test_engine_that_can_not_start_is_said(tmp_path: Path):
    async def scenario() -> None:
        process = EmbeddedProcess("embedded", EmbeddedOptions(tmp_path / "no-base"))
        try:
            with pytest.raises(UpstreamError, match="ended with code"):
                await process.start()
        finally:
            await process.stop()

    asyncio.run(scenario())


@pytest.mark.slow
def test_engine_ends_with_the_gateway_even_when_that_is_killed(serve: Path):
    code = (
        "import asyncio, pathlib, sys\n"
        "from components.serve.engines.embedded_process import EmbeddedOptions, EmbeddedProcess\n"
        "async def main():\n"
        "    process = EmbeddedProcess('e', EmbeddedOptions(pathlib.Path(sys.argv[1]), 'fp32'))\n"
        "    await process.start()\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    gateway = subprocess.Popen(
        [sys.executable, "-c", code, str(serve / "base")], stdout=subprocess.PIPE, text=True
    )
    assert gateway.stdout is not None
    engine = psutil.Process(int(gateway.stdout.readline()))
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    deadline = time.monotonic() + 30
    while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
