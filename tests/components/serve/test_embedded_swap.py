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
from components.serve.routes import Current
from components.serve.settings import SwapSettings
from components.serve.staged_version import StagedVersion
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.components.serve.test_swap import replicas_of, until
from tests.support import tiny
from tests.support.staged_adapters import stage_adapter


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny.build(folder / "base")
    return folder


@pytest.fixture(scope="module")
def versions(serve: Path) -> list[StagedVersion]:
    return [stage_adapter(serve, serve / "base", "support", number) for number in (1, 2, 3)]


@asynccontextmanager
async def embedded(serve: Path, base: Path) -> AsyncGenerator[tuple[AdapterSwap, EmbeddedProcess]]:
    process = EmbeddedProcess("embedded", EmbeddedOptions(base, "fp32", slots=4, threads=1))
    swap = AdapterSwap(
        serve, {}, Current(), SwapSettings(drain_seconds=5, proof_timeout_seconds=60)
    )
    await swap.start()
    watching = asyncio.create_task(swap.run())
    try:
        await process.start()
        await swap.add_replica(process.client, None)
        yield swap, process
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await swap.close()
        await process.stop()


async def answer(process: EmbeddedProcess, staged: StagedVersion) -> str:
    generation = Generation("Hello", max_tokens=8)
    return "".join([p.text async for p in process.client.complete(staged.model, generation)])


def test_real_adapters_are_proved_swapped_restarted_and_unloaded(
    serve: Path, versions: list[StagedVersion]
):
    async def scenario() -> None:
        async with embedded(serve, serve / "base") as (swap, process):
            first, second, third = versions
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
            [proof] = [made for served, made in await swap.prove_all() if served.version == "3"]
            assert proof.objection is None
            assert proof.from_reference < 1e-4 < proof.from_base
            before = await answer(process, third)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: replicas_of(swap) == (), 30)
            await until(lambda: replicas_of(swap) == ("embedded",), 60)
            assert await answer(process, third) == before
            assert await swap.withdraw("support", ["3"], "erased") == []
            assert swap.current.routes["support"].champion.version == "2"

    asyncio.run(scenario())


def test_adapter_with_the_references_of_another_is_refused(serve: Path, tmp_path: Path):
    async def scenario() -> None:
        base = serve / "base"
        wrong, right = (stage_adapter(tmp_path, base, "support", number) for number in (1, 4))
        right.references().write(wrong.references_path)
        async with embedded(tmp_path, base) as (swap, _):
            with pytest.raises(SwapRefusedError, match="from its reference"):
                await swap.follow(wrong)
            await swap.follow(right)

    asyncio.run(scenario())


def test_engine_that_can_not_start_is_said(tmp_path: Path):
    async def scenario() -> None:
        process = EmbeddedProcess("embedded", EmbeddedOptions(tmp_path / "no-base"))
        try:
            with pytest.raises(UpstreamError, match="ended with code"):
                await process.start()
        finally:
            await process.stop()

    asyncio.run(scenario())


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
