"""NIM, SGLang and LoRAX by fakes with their HTTP APIs and their traps; none of them runs here."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.lorax import LoraxServer
from components.serve.engines.nim import NimServer
from components.serve.engines.replica_clients import make_engines
from components.serve.engines.serving_engine import (
    EngineNeeds,
    Generation,
    ServingEngine,
    UpstreamError,
)
from components.serve.engines.sglang import SglangServer
from components.serve.routes import Current
from components.serve.settings import EngineSettings, SwapSettings
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.support.fake_replicas import FakeReplica, fake_replica, stage

SETTINGS = SwapSettings(drain_seconds=2, proof_timeout_seconds=20)


def run_with(
    engine: Callable[[], ServingEngine],
    serve: Path,
    scenario: Callable[[AdapterSwap, ServingEngine], Coroutine[None, None, None]],
) -> None:
    async def main() -> None:
        replica = engine()
        swap = AdapterSwap(serve, {replica.name: replica}, Current(), SETTINGS)
        try:
            await swap.start()
            await scenario(swap, replica)
        finally:
            await swap.close()
            await replica.close()

    asyncio.run(main())


async def answer(engine: ServingEngine, model: str, grammar: str | None = None) -> str:
    generation = Generation("What is it? >", max_tokens=20, grammar=grammar)
    return "".join([piece.text async for piece in engine.complete(model, generation)])


async def swaps_and_rolls_back(swap: AdapterSwap, engine: ServingEngine) -> None:
    versions = [stage(swap.folder, "support", number) for number in (1, 2, 3)]
    for staged in [*versions, versions[1]]:
        await swap.follow(staged)
        assert await answer(engine, staged.model) == f"support-v{staged.version}"
    await swap.withdraw("support", ["2"], "erased")
    with pytest.raises(UpstreamError):
        await answer(engine, versions[1].model)


def nim(replica: FakeReplica, source: Path) -> NimServer:
    upstream = HttpUpstream(replica.url, patience_seconds=5)
    return NimServer(
        "nim-1", upstream, source, refresh_seconds=0.2, base="the-base", margin_seconds=1
    )


def test_nim_swaps_by_its_watched_folder(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    with fake_replica("--nim", str(source)) as replica:
        run_with(lambda: nim(replica, source), tmp_path / "serve", swaps_and_rolls_back)
    assert [path.name for path in source.iterdir() if not path.name.startswith(".")] != []
    assert list((source / ".stage").iterdir()) == []


def test_nim_whose_watcher_ignores_the_folder_keeps_the_old_version(tmp_path: Path):
    async def scenario(swap: AdapterSwap, _: ServingEngine) -> None:
        await swap.follow(stage(swap.folder, "support", 1))
        replica.misbehave("watcher_ignores")
        new = stage(swap.folder, "support", 2)
        with pytest.raises(SwapRefusedError, match="does not list it"):
            await swap.follow(new)
        assert swap.current.routes["support"].champion.version == "1"
        assert not (source / new.model).exists()

    source = tmp_path / "source"
    source.mkdir()
    with fake_replica("--nim", str(source)) as replica:
        run_with(lambda: nim(replica, source), tmp_path / "serve", scenario)


def test_sglang_is_asked_for_base_and_adapter(tmp_path: Path):
    with fake_replica("--dialect", "sglang") as replica:
        upstream = HttpUpstream(replica.url, patience_seconds=5)
        run_with(lambda: SglangServer("sglang-1", upstream), tmp_path, swaps_and_rolls_back)


def test_sglang_refuses_grammars_it_can_not_read(tmp_path: Path):
    async def scenario(_: AdapterSwap, engine: ServingEngine) -> None:
        (objection,) = await engine.preflight(EngineNeeds(2, 8, is_constrained=True))
        assert "constrained: false" in objection
        with pytest.raises(UpstreamError, match="no Lark"):
            await answer(engine, "the-base", grammar="start: /a/")

    with fake_replica("--dialect", "sglang") as replica:
        upstream = HttpUpstream(replica.url, patience_seconds=5)
        run_with(lambda: SglangServer("sglang-1", upstream), tmp_path, scenario)


def test_lorax_names_the_folder_in_each_request(tmp_path: Path):
    with fake_replica("--dialect", "lorax") as replica:
        upstream = HttpUpstream(replica.url, patience_seconds=5)
        run_with(lambda: LoraxServer("lorax-1", upstream), tmp_path, swaps_and_rolls_back)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "lorax", "nim"])
def test_replica_of_the_file_sees_the_adapters_under_its_own_path_and_name(
    tmp_path: Path, kind: str
):
    seen = tmp_path / "seen"
    if kind == "nim":
        seen.mkdir()
    else:
        seen.symlink_to(tmp_path / "serve" / "adapters")
    options = ("--nim", str(seen)) if kind == "nim" else ("--dialect", kind)
    with fake_replica(*options) as replica:
        settings = EngineSettings.model_validate(
            {
                "kind": kind,
                "replicas": [{"name": "r-1", "url": replica.url}],
                "adapters": str(seen),
                "base_name": "the-base",
                "refresh_seconds": 0.2,
            }
        )

        async def scenario(swap: AdapterSwap, engine: ServingEngine) -> None:
            staged = stage(swap.folder, "support", 1)
            await swap.follow(staged)
            listed = {model.name: model.root for model in await engine.list_loaded()}
            root = listed[staged.model]
            if kind != "nim":
                assert root == str(seen / staged.model)
            assert (seen / staged.model).is_dir()

        engines = make_engines(settings)
        assert engines["r-1"].base == ("base" if kind == "lorax" else "the-base")
        run_with(lambda: engines["r-1"], tmp_path / "serve", scenario)


def test_nim_is_waited_for_as_long_as_its_refresh_interval_says(tmp_path: Path):
    replicas = [{"name": "nim-1", "url": "http://127.0.0.1:9"}]
    file = {"kind": "nim", "replicas": replicas, "adapters": str(tmp_path), "refresh_seconds": 7}
    engine = make_engines(EngineSettings.model_validate(file))["nim-1"]
    assert isinstance(engine, NimServer)
    assert engine.patience_seconds == 19
