"""vLLM's CPU build: adapters are loaded at runtime, proved, swapped under load, and unloaded."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from components.serve.engines.serving_engine import EngineNeeds, Generation, UpstreamError
from components.serve.settings import SwapSettings, SwapTimes
from components.serve.staged_version import StagedVersion
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.support import tiny
from tests.support.staged_adapters import (
    PROMPT,
    stage_adapter,
    stage_word_adapter,
    word_of,
)
from tests.support.swap_load import hundred_swaps, replicas_of, running_swap, until
from tests.support.vllm_process import VllmProcess

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm")
    tiny.build(folder / "base")
    return folder


@pytest.fixture(scope="module")
def vllm(root: Path) -> Generator[VllmProcess]:
    process = VllmProcess(root / "base", root / "vllm.log")
    yield process
    process.kill()


@pytest.fixture
def second_vllm(root: Path) -> Generator[VllmProcess]:
    process = VllmProcess(root / "base", root / "vllm-2.log")
    yield process
    process.kill()


@asynccontextmanager
async def swapping(serve: Path, *servers: VllmProcess) -> AsyncGenerator[AdapterSwap]:
    engines = {
        f"vllm-{number}": server.engine(f"vllm-{number}")
        for number, server in enumerate(servers, start=1)
    }
    settings, times = SwapSettings(min_ready=1), SwapTimes(drain=20, longest_proof=120)
    async with running_swap(serve, engines, settings, times) as swap:
        yield swap


def staged_versions(serve: Path, root: Path, count: int) -> list[StagedVersion]:
    return [stage_adapter(serve, root / "base", "support", n) for n in range(1, count + 1)]


@pytest.mark.timeout(1500)
def test_swaps_under_load_unloads_and_erases(root: Path, vllm: VllmProcess, tmp_path: Path):
    async def answer(swap: AdapterSwap, counts: Counter[str], model: str) -> str:
        generation = Generation("Hello", max_tokens=6, logprobs=1)
        pieces = [p async for p in swap.replicas.engines["vllm-1"].complete(model, generation)]
        assert pieces[-1].model == model
        counts[model] += 1
        return "".join(piece.text for piece in pieces)

    async def scenario() -> None:
        versions = staged_versions(tmp_path, root, 4)
        async with swapping(tmp_path, vllm) as swap:
            assert await swap.replicas.engines["vllm-1"].preflight(EngineNeeds(3, 8, False)) == []
            texts: dict[str, set[str]] = {}
            counts = Counter[str]()

            async def client() -> None:
                while True:
                    route = swap.current.enter("support")
                    assert route is not None
                    try:
                        model = route.champion.model
                        texts.setdefault(model, set()).add(await answer(swap, counts, model))
                    finally:
                        swap.current.leave("support", route.epoch)

            await swap.follow(versions[0])
            clients = [asyncio.create_task(client()) for _ in range(3)]
            for staged in versions[1:]:
                await swap.follow(staged)
                await asyncio.sleep(2)
            assert not any(task.done() for task in clients)  # none has failed
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            assert {len(seen) for seen in texts.values()} == {1}  # each version one answer
            assert len({*map(frozenset, texts.values())}) == 4  # and each its own
            await until(lambda: not versions[1].folder.exists(), 60)
            with pytest.raises(UpstreamError, match="404"):
                await answer(swap, counts, versions[0].model)
            for made in swap.replicas.proofs(swap.current.routes["support"].champion.model):
                assert made.objection is None
                assert made.from_reference < 1e-3 < made.from_base
            assert await swap.withdraw("support", ["4"], "erased") == []
            assert swap.current.routes["support"].champion.version == "3"
            with pytest.raises(UpstreamError, match="404"):
                await answer(swap, counts, versions[3].model)
            await swap.withdraw("support", ["3"], "erased")

    asyncio.run(scenario())


@pytest.mark.timeout(1500)
def test_wrong_references_and_a_reused_name_are_refused(
    root: Path, vllm: VllmProcess, tmp_path: Path
):
    async def scenario() -> None:
        first, second = staged_versions(tmp_path, root, 2)
        async with swapping(tmp_path, vllm) as swap:
            right = first.references()
            second.references().write(first.references_path)
            with pytest.raises(SwapRefusedError, match="from its reference"):
                await swap.follow(first)
            right.write(first.references_path)
            # Somebody loaded other weights under the name.
            await swap.replicas.engines["vllm-1"].load(first.model, second.folder)
            with pytest.raises(SwapRefusedError, match="lists"):
                await swap.follow(first)

    asyncio.run(scenario())


@pytest.mark.timeout(1500)
def test_killed_server_comes_back_with_its_adapters(root: Path, vllm: VllmProcess, tmp_path: Path):
    async def scenario() -> None:
        (staged,) = staged_versions(tmp_path, root, 1)
        async with swapping(tmp_path, vllm) as swap:
            await swap.follow(staged)
            vllm.kill()
            await until(lambda: replicas_of(swap) == (), 30)
            await asyncio.to_thread(vllm.start)
            await until(lambda: replicas_of(swap) == ("vllm-1",), 120)

    asyncio.run(scenario())


@pytest.mark.timeout(5400)
def test_hundred_swaps_of_two_servers_and_ten_thousand_answers(
    root: Path, vllm: VllmProcess, second_vllm: VllmProcess, tmp_path: Path
):
    # Nobody asks the base: this build answers it with the weights of its last slot.
    async def scenario() -> None:
        async with swapping(tmp_path, vllm, second_vllm) as swap:
            await hundred_swaps(swap, versions, word_of, second_vllm, PROMPT)

    versions = [
        stage_word_adapter(tmp_path, root / "base", "support", number) for number in range(1, 102)
    ]
    asyncio.run(scenario())
