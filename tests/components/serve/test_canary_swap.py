"""A canary is loaded and proved as any version is, and leaves nothing behind when it ends."""

import asyncio
from pathlib import Path

import pytest

from components.serve import routes
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.components.serve.test_swap import steps, swapping
from tests.components.serve.test_swap_crashes import kill_at
from tests.support.fake_replicas import FakeReplica, fake_replica, stage
from tests.support.swap_load import ask, until


async def listed(swap: AdapterSwap) -> set[str]:
    models = {model.name for model in await swap.replicas.engines["vllm-1"].list_loaded()}
    return {model.split("-")[0] for model in models if model != "the-base"}


async def is_unloaded(swap: AdapterSwap, name: str) -> None:
    async with asyncio.timeout(10):
        while name in await listed(swap):
            await asyncio.sleep(0.02)


def test_a_canary_is_proved_beside_its_champion_and_unloaded_at_its_end(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            for number in (1, 2):
                await swap.follow(stage(tmp_path, "support", number))
            staged = stage(tmp_path, "support", 3)
            route = await swap.begin_canary(staged, "2", "the order")
            assert route.canary is not None
            assert (route.champion.version, route.canary.served.version) == ("2", "3")
            assert route.canary.served.replicas == ("vllm-1",)
            assert routes.read(tmp_path / "routes.json") == swap.current.routes
            assert await ask(swap) == "support-v2"
            assert await listed(swap) == {"support.v1", "support.v2", "support.v3"}
            await swap.end_canary("support")
            assert swap.current.routes["support"].canary is None
            assert swap.current.routes["support"].epoch == route.epoch + 1
            await is_unloaded(swap, "support.v3")
            await until(lambda: not staged.record_path.exists())
            assert await listed(swap) == {"support.v1", "support.v2"}

    asyncio.run(scenario())


def test_a_canary_that_becomes_champion_is_not_unloaded(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            for number in (1, 2):
                await swap.follow(stage(tmp_path, "support", number))
            staged = stage(tmp_path, "support", 3)
            await swap.begin_canary(staged, "2", "the order")
            route = await swap.follow(staged)
            assert (route.champion.version, route.canary) == ("3", None)
            assert await ask(swap) == "support-v3"
            await is_unloaded(swap, "support.v1")
            assert await listed(swap) == {"support.v2", "support.v3"}

    asyncio.run(scenario())


def test_another_champion_ends_the_canary(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 2))
            await swap.begin_canary(stage(tmp_path, "support", 3), "2", "the order")
            route = await swap.follow(stage(tmp_path, "support", 4))
            assert (route.champion.version, route.canary) == ("4", None)
            await is_unloaded(swap, "support.v3")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "is_wrong"),
    [
        pytest.param("base_under_name", True, id="another-answer"),
        pytest.param("stale_kv", True, id="stale-cache"),
        pytest.param("busy", False, id="busy-engine"),
        pytest.param("ok_without_loading", False, id="engine-without-it"),
    ],
)
def test_a_canary_that_fails_its_proof_answers_nobody(
    tmp_path: Path, replica: FakeReplica, fault: str, is_wrong: bool
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 2))
            replica.misbehave(fault)
            with pytest.raises(SwapRefusedError) as refused:
                await swap.begin_canary(stage(tmp_path, "support", 3), "2", "the order")
            assert refused.value.is_wrong == is_wrong
            assert swap.current.routes["support"].canary is None
            assert "support" not in swap.refusals  # nothing is wrong with the champion
            await is_unloaded(swap, "support.v3")

    asyncio.run(scenario())


def test_a_canary_needs_room_and_its_own_champion(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica, max_residents=1) as swap:
            staged = stage(tmp_path, "support", 3)
            with pytest.raises(SwapRefusedError, match="nobody serves"):
                await swap.begin_canary(staged, "2", "the order")
            await swap.follow(stage(tmp_path, "support", 2))
            with pytest.raises(SwapRefusedError, match="version 1 has to be champion, 2 serves"):
                await swap.begin_canary(staged, "1", "the order")
            with pytest.raises(SwapRefusedError, match="raise max_loras") as refused:
                await swap.begin_canary(staged, "2", "the order")
            assert not refused.value.is_wrong

    asyncio.run(scenario())


@pytest.mark.parametrize(("erased", "champion"), [("3", "2"), ("2", "1")])
def test_an_erased_canary_is_withdrawn_and_an_erased_champion_ends_its_canary(
    tmp_path: Path, replica: FakeReplica, erased: str, champion: str
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            for number in (1, 2):
                await swap.follow(stage(tmp_path, "support", number))
            await swap.begin_canary(stage(tmp_path, "support", 3), "2", "the order")
            assert await swap.withdraw("support", [erased], "erased") == []
            route = swap.current.routes["support"]
            assert (route.champion.version, route.canary) == (champion, None)
            await is_unloaded(swap, "support.v3")
            assert await ask(swap) == f"support-v{champion}"
            assert "withdrawn" in steps(tmp_path)

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_replica_that_lost_the_canary_loads_and_proves_it_again(
    tmp_path: Path, replica: FakeReplica
):
    def replicas(swap: AdapterSwap) -> tuple[str, ...]:
        canary = swap.current.routes["support"].canary
        assert canary is not None
        return canary.served.replicas

    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 2))
            await swap.begin_canary(stage(tmp_path, "support", 3), "2", "the order")
            await asyncio.to_thread(replica.kill)
            await until(lambda: replicas(swap) == ())
            await asyncio.to_thread(replica.start)
            await until(lambda: replicas(swap) == ("vllm-1",))

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "after"), [("intended", 0.0), ("intended", 0.03), ("proved", 0.0), ("proved", 0.01)]
)
def test_killed_beginning_leaves_a_canary_that_is_proved_or_nothing(
    tmp_path: Path, step: str, after: float
):
    async def restarted() -> None:
        async with swapping(tmp_path, replica) as swap:
            route = swap.current.routes["support"]
            assert route.champion.version == "2"
            assert await ask(swap) == "support-v2"
            if route.canary is None:
                assert await listed(swap) == {"support.v1", "support.v2"}
                route = await swap.begin_canary(versions[2], "2", "the order")
            assert route.canary is not None
            assert route.canary.served.replicas == ("vllm-1",)
            await swap.end_canary("support")
            await is_unloaded(swap, "support.v3")

    with fake_replica("--delay", "0.02") as replica:
        versions = [stage(tmp_path, "support", number) for number in (1, 2, 3)]
        models = [staged.model for staged in versions]
        kill_at(step, tmp_path, replica.url, models, after, "--canary")
        asyncio.run(restarted())
