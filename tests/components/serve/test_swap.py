"""A new version serves once every replica has proved it; else the old one serves on."""

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from components.serve import routes
from components.serve.answering_servers import Attempt, ReplicaLoads, attempts
from components.serve.engines.serving_engine import Generation, ServingEngine, UpstreamError
from components.serve.settings import SwapSettings, SwapTimes
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.support import word_model
from tests.support.fake_replicas import FakeReplica, stage
from tests.support.swap_load import ask, replicas_of, running_swap, until

SETTINGS, TIMES = SwapSettings(), SwapTimes(drain=5, longest_proof=5)


@asynccontextmanager
async def swapping(
    serve: Path,
    *replicas: FakeReplica,
    settings: SwapSettings = SETTINGS,
    times: SwapTimes = TIMES,
    max_residents: int = 8,
    patience_seconds: float = 2,
) -> AsyncGenerator[AdapterSwap]:
    engines: dict[str, ServingEngine] = {
        f"vllm-{number}": replica.engine(f"vllm-{number}", patience_seconds)
        for number, replica in enumerate(replicas, start=1)
    }
    async with running_swap(serve, engines, settings, times, max_residents=max_residents) as swap:
        yield swap


async def first_answer(swap: AdapterSwap) -> str:
    """Ask until a replica answers: one that restarted has to be found out and loaded first."""
    async with asyncio.timeout(10):
        while (answer := await ask(swap)) == "failed":
            await asyncio.sleep(0.05)
    return answer


def steps(serve: Path) -> list[str]:
    return [json.loads(line)["step"] for line in (serve / "journal.jsonl").read_text().splitlines()]


def test_new_version_takes_over_and_the_one_before_stays_loaded(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            for number in (1, 2, 3):
                await swap.follow(stage(tmp_path, "support", number))
                assert await ask(swap) == f"support-v{number}"
            await until(lambda: "unloaded" in steps(tmp_path))
            listed = [model.name for model in await swap.replicas.engines["vllm-1"].list_loaded()]
            route = swap.current.routes["support"]
            assert route.previous is not None
            assert listed == ["the-base", route.previous.model, route.champion.model]
            assert (route.champion.version, route.previous.version) == ("3", "2")
            assert routes.read(tmp_path / "routes.json") == swap.current.routes
            assert len(list((tmp_path / "adapters").glob("*/"))) == 2

    asyncio.run(scenario())


FAULTS = [
    pytest.param("base_under_name", "the nearest is its base", id="base-under-the-name"),
    pytest.param("nothing_applied", "the nearest is its base", id="nothing-applied"),
    pytest.param("another_weights", r"the nearest is support\.v1", id="another-adapter"),
    pytest.param("stale_kv", "stale cache", id="stale-cache"),
    pytest.param("bleed_after_add", "in a batch of", id="mixed-up-after-a-load"),
    pytest.param("ok_without_loading", "does not list it", id="200-without-loading"),
    pytest.param("already_with_another_root", "from /old/folder", id="400-of-another-folder"),
    pytest.param("lost_in_restart", "404|does not list it", id="lost-in-a-restart"),
    pytest.param("slow", "no byte for 2 s", id="slow"),
    pytest.param("hangs", "no byte for 2 s|took longer", id="hangs"),
    pytest.param("cuts_stream", "POST", id="cuts-its-answer"),
    pytest.param("unload_race", "404", id="gone-after-an-unload"),
    pytest.param("wrong_base", "it is another base", id="another-base"),
    pytest.param("names_the_base", "answered instead", id="names-the-base"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_faulty_replica_keeps_the_old_version_serving(
    tmp_path: Path, replica: FakeReplica, fault: str, reason: str
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            replica.misbehave(fault)
            with pytest.raises(SwapRefusedError, match=reason):
                await swap.follow(stage(tmp_path, "support", 2))
            assert swap.current.routes["support"].champion.version == "1"
            assert swap.current.routes["support"].epoch == 1
            assert re.search(reason, swap.refusals["support"].reason)
            replica.misbehave()
            assert await first_answer(swap) == "support-v1"
            # The fault is mended, and the next version gets its turn.
            await swap.follow(stage(tmp_path, "support", 3))
            assert await ask(swap) == "support-v3"

    asyncio.run(scenario())


def test_version_that_is_refused_again_and_again_is_in_the_journal_once(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        replica.misbehave("wrong_base")
        staged = stage(tmp_path, "support", 1)
        async with swapping(tmp_path, replica) as swap:
            swap.refuse("support", "1", "nobody had approved it yet")
            for _ in range(3):
                with pytest.raises(SwapRefusedError):
                    await swap.follow(staged)
            assert steps(tmp_path) == ["intended", "refused"]
            replica.misbehave()
            async with asyncio.timeout(20):
                while "support" not in swap.current.routes:
                    with contextlib.suppress(SwapRefusedError):
                        await swap.follow(staged)
            assert await first_answer(swap) == "support-v1"

    asyncio.run(scenario())


def test_one_replica_of_two_without_the_adapter_stops_the_swap(
    tmp_path: Path, replica: FakeReplica, second_replica: FakeReplica
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica, second_replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            second_replica.misbehave("ok_without_loading")
            new = stage(tmp_path, "support", 2)
            with pytest.raises(SwapRefusedError, match=r"1 of 2 replicas proved it, expected 2"):
                await swap.follow(new)
            assert swap.current.routes["support"].champion.version == "1"
            listed = [model.name for model in await swap.replicas.engines["vllm-1"].list_loaded()]
            assert new.model not in listed

    asyncio.run(scenario())


def test_min_ready_flips_without_the_faulty_replica_which_joins_after_its_own_proof(
    tmp_path: Path, replica: FakeReplica, second_replica: FakeReplica
):
    async def scenario() -> None:
        settings = SETTINGS.model_copy(update={"min_ready": 1})
        async with swapping(tmp_path, replica, second_replica, settings=settings) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            second_replica.misbehave("ok_without_loading")
            await swap.follow(stage(tmp_path, "support", 2))
            assert replicas_of(swap) == ("vllm-1",)
            second_replica.misbehave()
            await until(lambda: replicas_of(swap) == ("vllm-1", "vllm-2"))

    asyncio.run(scenario())


def test_killed_replica_is_out_and_comes_back_after_its_proof(
    tmp_path: Path, replica: FakeReplica, second_replica: FakeReplica
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica, second_replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            second_replica.kill()
            await until(lambda: replicas_of(swap) == ("vllm-1",))
            assert await ask(swap) == "support-v1"
            second_replica.start()  # without the adapter, as every engine
            await until(lambda: replicas_of(swap) == ("vllm-1", "vllm-2"))
            assert swap.current.routes["support"].epoch == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "more",
    [(), pytest.param(("lists_nothing",), marks=pytest.mark.slow)],
    ids=["", "and-fails-to-list"],
)
def test_replica_that_turns_bad_later_is_found_by_the_next_proof(
    tmp_path: Path, replica: FakeReplica, more: tuple[str, ...]
):
    async def scenario() -> None:
        times = replace(TIMES, proof=0.2)
        async with swapping(tmp_path, replica, times=times) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            replica.misbehave("base_under_name", *more)
            await until(lambda: replicas_of(swap) == ())
            replica.misbehave()
            await until(lambda: replicas_of(swap) == ("vllm-1",))
            assert await ask(swap) == "support-v1"

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["another_weights", "bleed_after_add"])
def test_adapters_that_a_running_replica_confuses_are_found(
    tmp_path: Path, replica: FakeReplica, fault: str
):
    async def scenario() -> None:
        # The second shows beside others only: in the proof after 60 checks, here 0.6 s.
        times = replace(TIMES, proof=0.01)
        async with swapping(tmp_path, replica, times=times) as swap:
            for number in (1, 2):
                await swap.follow(stage(tmp_path, "support", number))
            replica.misbehave(fault)

            def is_out() -> bool:
                swap.replicas.look_at(["vllm-1"])
                return replicas_of(swap) == ()

            await until(is_out)

    asyncio.run(scenario())


def test_replica_at_rest_is_asked_for_one_text_of_each_version(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        times = replace(TIMES, proof=0.05)
        async with swapping(tmp_path, replica, times=times) as swap:
            for number in (1, 2):
                await swap.follow(stage(tmp_path, "support", number))
            before, looks = replica.requests(), 8
            proved_at = swap.current.routes["support"].champion.proved_at
            for _ in range(looks):
                swap.replicas.look_at(["vllm-1"])
                await asyncio.sleep(0.06)
            assert 0 < replica.requests() - before <= 2 * looks
            # An alert looks at its age.
            assert swap.current.routes["support"].champion.proved_at > proved_at

    asyncio.run(scenario())


def test_rollback_to_the_version_before_needs_no_load(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            first = stage(tmp_path, "support", 1)
            await swap.follow(first)
            await swap.follow(stage(tmp_path, "support", 2))
            replica.misbehave("slow_load")
            await swap.follow(first)
            assert await ask(swap) == "support-v1"
            assert swap.current.routes["support"].epoch == 3

    asyncio.run(scenario())


def test_version_that_was_rolled_back_stands_in_for_nobody(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            first, second = stage(tmp_path, "support", 1), stage(tmp_path, "support", 2)
            for version in (first, second, first):
                await swap.follow(version)
            await swap.forget_previous("support", "1")  # it is champion
            assert swap.current.routes["support"].epoch == 3
            await swap.forget_previous("support", "2")
            route = swap.current.routes["support"]
            assert [*attempts(route, ["previous"], swap.replicas.engines, ReplicaLoads())] == [
                Attempt("champion", "vllm-1", route.champion, swap.replicas.engines["vllm-1"])
            ]
            assert routes.read(tmp_path / "routes.json") == swap.current.routes
            await until(lambda: not second.folder.exists())
            listed = [model.name for model in await swap.replicas.engines["vllm-1"].list_loaded()]
            assert listed == ["the-base", first.model]
            await swap.follow(stage(tmp_path, "support", 2))
            assert await ask(swap) == "support-v2"

    asyncio.run(scenario())


def test_version_that_was_rolled_back_follows_no_erased_one(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            first, second = stage(tmp_path, "support", 1), stage(tmp_path, "support", 2)
            for version in (first, second, first):
                await swap.follow(version)
            await asyncio.gather(
                swap.forget_previous("support", "2"), swap.withdraw("support", ["1"], "erased")
            )
            assert "support" not in swap.current.routes

    asyncio.run(scenario())


def test_withdrawn_champion_gives_way_to_the_version_before_and_its_name_is_gone(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            erased = stage(tmp_path, "support", 2)
            await swap.follow(erased)
            assert await swap.withdraw("support", ["2"], "erased by certificate c1") == []
            assert await ask(swap) == "support-v1"
            engine = swap.replicas.engines["vllm-1"]
            with pytest.raises(UpstreamError) as refusal:
                [_ async for _ in engine.complete(erased.model, Generation("a", 1))]
            assert refusal.value.status == 404
            assert not erased.folder.exists()
            assert not erased.references_path.exists()
            await swap.withdraw("support", ["1"], "erased by certificate c2")
            assert "support" not in swap.current.routes
            assert list((tmp_path / "adapters").iterdir()) == []

    asyncio.run(scenario())


def test_version_that_a_replica_would_not_unload_is_unloaded_when_it_does(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        times = replace(TIMES, proof=0.2)
        async with swapping(tmp_path, replica, times=times) as swap:
            erased = stage(tmp_path, "support", 1)
            await swap.follow(erased)
            replica.misbehave("keeps")
            assert await swap.withdraw("support", ["1"], "rows were erased")
            await swap.follow(stage(tmp_path, "support", 2))
            await asyncio.sleep(0.5)
            replica.misbehave()

            async def listed() -> list[str]:
                return [model.name for model in await swap.replicas.engines["vllm-1"].list_loaded()]

            async with asyncio.timeout(10):
                while erased.model in await listed():
                    await asyncio.sleep(0.05)
            assert await ask(swap) == "support-v2"
            assert steps(tmp_path).count("unloaded") <= 1  # not a line each try

    asyncio.run(scenario())


def test_changed_staged_files_are_not_loaded(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            staged = stage(tmp_path, "support", 1)
            (staged.folder / "adapter_model.safetensors").write_text("somebody's")
            with pytest.raises(SwapRefusedError, match="somebody changed them"):
                await swap.follow(staged)

    asyncio.run(scenario())


def test_adapter_without_effect_serves_only_where_that_is_allowed(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        staged = stage(tmp_path, "support", 1)
        # What an adapter without effect has: the base's figures and answers.
        base, own = word_model.make_references(word_model.BASE), staged.references()
        replace(own, of_adapter=own.of_base, greedy=base.greedy).write(staged.references_path)
        async with swapping(tmp_path, replica) as swap:
            with pytest.raises(SwapRefusedError, match="no measurable effect"):
                await swap.follow(staged)
        replica.misbehave("nothing_applied")
        allowing = SETTINGS.model_copy(update={"unproved": True})
        async with swapping(tmp_path, replica, settings=allowing) as swap:
            await swap.follow(staged)
            assert swap.current.routes["support"].champion.unproved

    asyncio.run(scenario())


def test_room_for_adapters_is_checked_before_the_load(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica, max_residents=2) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            await swap.follow(stage(tmp_path, "support", 2))
            with pytest.raises(SwapRefusedError, match="room for 2"):
                await swap.follow(stage(tmp_path, "sales", 1))

    asyncio.run(scenario())


def test_restarted_gateway_serves_only_what_it_proved_again(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            await swap.follow(stage(tmp_path, "support", 2))
        async with swapping(tmp_path, replica) as swap:
            assert await ask(swap) == "support-v2"
        replica.misbehave("nothing_applied")
        async with swapping(tmp_path, replica) as swap:
            assert replicas_of(swap) == ()
            assert swap.current.routes["support"].champion.version == "2"

    asyncio.run(scenario())


def test_what_a_killed_gateway_staged_for_nobody_is_deleted(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            left, refused = stage(tmp_path, "support", 2), stage(tmp_path, "support", 3)
            refused.record_path.unlink()  # killed before it was written
            swap.delete_unused()
            assert not left.folder.exists()
            assert not refused.folder.exists()
            names = {path.name for path in (tmp_path / "adapters").iterdir()}
            model = swap.current.routes["support"].champion.model
            assert names == {model, f"{model}.json", f"{model}.references.json"}

    asyncio.run(scenario())


def test_busy_replica_keeps_serving_what_it_has_proved(tmp_path: Path, replica: FakeReplica):
    async def scenario() -> None:
        times = replace(TIMES, proof=0.1)
        async with swapping(tmp_path, replica, times=times) as swap:
            staged = stage(tmp_path, "support", 1)
            await swap.follow(staged)
            replica.misbehave("busy")
            for _ in range(3):
                swap.replicas.report("vllm-1", UpstreamError(503, "busy", is_retryable=True))
                await asyncio.sleep(0.3)  # a proof is refused
            assert replicas_of(swap) == ("vllm-1",)
            listed = {model.name for model in await swap.replicas.engines["vllm-1"].list_loaded()}
            assert staged.model in listed
            replica.misbehave("base_under_name")
            await until(lambda: replicas_of(swap) == ())

    asyncio.run(scenario())


OTHER_DAMAGE = [pytest.param(file, marks=pytest.mark.slow) for file in ("references", "record")]


@pytest.mark.parametrize("damage", ["weights", *OTHER_DAMAGE])
def test_damaged_files_of_a_workload_do_not_keep_the_others_from_serving(
    tmp_path: Path, replica: FakeReplica, damage: str
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "sales", 1))
            staged = stage(tmp_path, "support", 1)
            await swap.follow(staged)
        replica.kill()
        replica.start()
        match damage:
            case "references":
                staged.references_path.write_text("{")
            case "weights":
                shutil.rmtree(staged.folder)
            case _:
                staged.record_path.write_text("{")
        async with swapping(tmp_path, replica) as swap:
            assert await ask(swap, "sales") == "sales-v1"
            assert replicas_of(swap) == ()
            second = stage(tmp_path, "support", 2)
            await swap.follow(second)
            assert await ask(swap) == "support-v2"

    asyncio.run(scenario())


def test_withdrawn_version_stops_while_another_is_being_loaded(
    tmp_path: Path, replica: FakeReplica
):
    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))
            await swap.follow(stage(tmp_path, "support", 2))
            replica.misbehave("slow_load")
            loading = asyncio.create_task(swap.follow(stage(tmp_path, "support", 3)))
            await until(lambda: steps(tmp_path)[-1] == "intended")
            withdrawing = asyncio.create_task(swap.withdraw("support", ["2"], "erased"))
            await until(lambda: swap.current.routes["support"].champion.version == "1", 2)
            assert await ask(swap) == "support-v1"
            loading.cancel()
            await asyncio.gather(loading, withdrawing, return_exceptions=True)

    asyncio.run(scenario())


def test_line_of_the_journal_that_a_crash_cut_does_not_swallow_the_next_one(
    tmp_path: Path, replica: FakeReplica
):
    (tmp_path / "journal.jsonl").write_text('{"at": "2026-01-01", "step": "inten')

    async def scenario() -> None:
        async with swapping(tmp_path, replica) as swap:
            await swap.follow(stage(tmp_path, "support", 1))

    asyncio.run(scenario())
    _, *lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == ["intended", "proved", "flipped"]
