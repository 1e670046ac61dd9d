"""NIM, SGLang and LoRAX by fakes with their HTTP APIs and their traps; none of them runs here."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from components.serve.engines.replica_clients import NimServer, make_engines
from components.serve.engines.serving_engine import (
    EngineNeeds,
    Generation,
    ServingEngine,
    UpstreamError,
)
from components.serve.routes import Current
from components.serve.settings import EngineSettings, SwapSettings, SwapTimes
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.support.fake_replicas import FakeReplica, fake_replica, stage

TIMES = SwapTimes(drain=2, longest_proof=20)


def make(kind: str, url: str, adapters: Path, **settings: object) -> ServingEngine:
    file = {"kind": kind, "replicas": [{"name": "r-1", "url": url}], "adapters": str(adapters)}
    return make_engines(EngineSettings.model_validate(file | settings))["r-1"]


def run_with(
    kind: str,
    folder: Path,
    scenario: Callable[[AdapterSwap, ServingEngine, FakeReplica], Coroutine[None, None, None]],
) -> None:
    """Run a scenario with a replica that has its own path to the staged adapters."""
    seen = folder / "seen"
    if kind == "nim":
        seen.mkdir()
    else:
        seen.symlink_to(folder / "serve" / "adapters")

    async def main(replica: FakeReplica) -> None:
        engine = make(kind, replica.url, seen, refresh_seconds=0.2)
        if isinstance(engine, NimServer):
            engine.patience_seconds = 1.4
        swap = AdapterSwap(
            folder / "serve", {engine.name: engine}, Current(), SwapSettings(), times=TIMES
        )
        try:
            await swap.start()
            await scenario(swap, engine, replica)
        finally:
            await swap.close()
            await engine.close()

    options = ("--nim", str(seen)) if kind == "nim" else ("--dialect", kind)
    with fake_replica(*options) as replica:
        asyncio.run(main(replica))


async def answer(engine: ServingEngine, model: str, grammar: str | None = None) -> str:
    generation = Generation("What is it? >", max_tokens=20, grammar=grammar)
    return "".join([piece.text async for piece in engine.complete(model, generation)])


@pytest.mark.parametrize("kind", ["vllm", "nim", "sglang", "lorax"])
def test_other_engine_swaps_and_rolls_back_and_sees_adapters_under_its_own_path(
    tmp_path: Path, kind: str
):
    async def scenario(swap: AdapterSwap, engine: ServingEngine, _: FakeReplica) -> None:
        versions = [stage(swap.folder, "support", number) for number in (1, 2, 3)]
        for staged in [*versions, versions[1]]:
            await swap.follow(staged)
            assert await answer(engine, staged.model) == f"support-v{staged.version}"
        roots = {model.name: model.root for model in await engine.list_loaded()}
        assert roots[versions[1].model] == str(tmp_path / "seen" / versions[1].model)
        await swap.withdraw("support", ["2"], "erased")
        with pytest.raises(UpstreamError):
            await answer(engine, versions[1].model)

    run_with(kind, tmp_path, scenario)
    assert list(tmp_path.glob("seen/.stage/*")) == []


def test_nim_whose_watcher_ignores_the_folder_keeps_the_old_version(tmp_path: Path):
    async def scenario(swap: AdapterSwap, _: ServingEngine, replica: FakeReplica) -> None:
        await swap.follow(stage(swap.folder, "support", 1))
        replica.misbehave("watcher_ignores")
        new = stage(swap.folder, "support", 2)
        with pytest.raises(SwapRefusedError, match="does not list it"):
            await swap.follow(new)
        assert swap.current.routes["support"].champion.version == "1"
        assert not (tmp_path / "seen" / new.model).exists()

    run_with("nim", tmp_path, scenario)


@pytest.mark.parametrize("kind", ["sglang", "lorax"])
def test_other_engine_refuses_grammars_it_can_not_read(tmp_path: Path, kind: str):
    async def scenario(_: AdapterSwap, engine: ServingEngine, __: FakeReplica) -> None:
        (objection,) = await engine.preflight(EngineNeeds(2, 8, is_constrained=True))
        assert "constrained: false" in objection
        with pytest.raises(UpstreamError, match="grammar"):
            await answer(engine, engine.base, grammar="start: /a/")

    run_with(kind, tmp_path, scenario)


def test_nim_is_waited_for_as_long_as_its_refresh_interval_says(tmp_path: Path):
    engine = make("nim", "http://127.0.0.1:9", tmp_path, refresh_seconds=7, base_name="llama")
    assert isinstance(engine, NimServer)
    assert (engine.patience_seconds, engine.base) == (19, "llama")
