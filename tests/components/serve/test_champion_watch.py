"""The champion is followed by MLflow's REST; what may not serve is refused, and said."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import pytest
from aiohttp import web

from components.register import registry
from components.serve import champion_watch
from components.serve.champion_watch import (
    ChampionWatch,
    RegisteredVersion,
    RegistryAddress,
    RegistryClient,
)
from components.serve.rollout import RolloutStart
from components.serve.staged_version import StagedVersion
from tests.support.swap_load import until

APPROVED = {"flywheel.decision": "approve"}


@dataclass
class FakeMlflow:
    """The two requests of MLflow's REST API that the watch sends, over HTTP."""

    aliases: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    tags: dict[tuple[str, str], dict[str, str]] = field(
        default_factory=dict[tuple[str, str], dict[str, str]]
    )
    is_away: bool = False
    hanging: set[str] = field(default_factory=set[str])
    """Workloads whose stagings get no answer to their second request."""

    async def search(self, _: web.Request) -> web.Response:
        if self.is_away:
            return web.Response(status=503)
        models = [
            {
                "name": name,
                "aliases": [{"alias": alias, "version": n} for alias, n in aliases.items()],
            }
            for name, aliases in self.aliases.items()
        ]
        return web.json_response({"registered_models": models})

    async def get(self, request: web.Request) -> web.Response:
        name, version = request.query["name"], request.query["version"]
        if (name, version) not in self.tags:
            return web.json_response({"error_code": "RESOURCE_DOES_NOT_EXIST"}, status=404)
        tags = [{"key": key, "value": value} for key, value in self.tags[name, version].items()]
        source = f"models:/m-{name.encode().hex()}"
        content = {"name": name, "version": version, "tags": tags, "source": source}
        return web.json_response({"model_version": content})

    async def logged_model(self, request: web.Request) -> web.Response:
        if bytes.fromhex(request.match_info["id"].removeprefix("m-")).decode() in self.hanging:
            await asyncio.sleep(3600)
        return web.Response(status=404)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str]:
        app = web.Application()
        app.router.add_get("/api/2.0/mlflow/registered-models/search", self.search)
        app.router.add_get("/api/2.0/mlflow/model-versions/get", self.get)
        app.router.add_get("/api/2.0/mlflow/logged-models/{id}", self.logged_model)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@dataclass
class Recorded:
    """What was done about the changes, in place of swaps."""

    champions: dict[str, tuple[str | None, str | None]] = field(
        default_factory=dict[str, tuple[str | None, str | None]]
    )
    refused: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    withdrawn: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    forgotten: list[str] = field(default_factory=list[str])
    made_ready: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    failing: set[str] = field(default_factory=set[str])
    attempts: list[str] = field(default_factory=list[str])
    canaries: dict[str, str] = field(default_factory=dict[str, str])
    start: str | None = None
    seen: list[tuple[str, bool, str | None]] = field(
        default_factory=list[tuple[str, bool, str | None]]
    )
    seconds: float = 0.0
    withdrawal_seconds: float = 0.0

    def serving(self, workload: str) -> tuple[str | None, str | None]:
        return self.champions.get(workload, (None, None))

    def version_of(self, workload: str) -> str | None:
        return self.canaries.get(workload)

    def see(
        self, workload: str, number: str, version: RegisteredVersion | None, champion: str | None
    ) -> RolloutStart | None:
        self.seen.append((number, version is not None, champion))
        if self.start is None or self.version_of(workload) == number:
            return None
        return RolloutStart(self.start, number, partial(self._begin, workload, number))

    async def _begin(
        self, workload: str, number: str, prepared: AbstractAsyncContextManager[StagedVersion]
    ) -> None:
        async with prepared:
            await asyncio.sleep(self.seconds)
            self.canaries[workload] = number

    def prepared(self, workload: str, version: str) -> AbstractAsyncContextManager[StagedVersion]:
        return nullcontext(cast("StagedVersion", version))

    def lose(self, workload: str) -> None:
        self.canaries.pop(workload, None)

    def known(self) -> list[str]:
        return [*self.champions]

    async def follow(self, workload: str, version: str) -> None:
        self.attempts.append(version)
        await asyncio.sleep(self.seconds)
        if version not in self.failing:
            self.champions[workload] = version, self.serving(workload)[0]

    async def prepare(self, workload: str, version: str) -> None:
        self.made_ready.append((workload, version))

    async def withdraw(self, workload: str, versions: list[str], why: str) -> None:
        self.withdrawn += [(version, why) for version in versions]
        await asyncio.sleep(self.withdrawal_seconds)
        left = [v for v in self.champions.pop(workload) if v is not None and v not in versions]
        if left:
            self.champions[workload] = left[0], None

    async def forget_previous(self, workload: str, version: str) -> None:
        self.forgotten.append(version)
        self.champions[workload] = self.serving(workload)[0], None

    def refuse(self, workload: str, version: str, why: str) -> None:
        self.refused[workload] = version, why

    def settle(self, workload: str) -> None:
        self.refused.pop(workload, None)


@asynccontextmanager
async def watching(
    mlflow: FakeMlflow, actions: Recorded, workloads: list[str] | None = None
) -> AsyncGenerator[ChampionWatch]:
    async with mlflow.running() as url:
        client = RegistryClient(RegistryAddress(url))
        watch = ChampionWatch(client, actions, actions, workloads=workloads, seconds=0.05)
        running = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.close()


def approved(*numbers: str) -> FakeMlflow:
    tags = {("support", number): dict(APPROVED) for number in numbers}
    return FakeMlflow({"support": {"champion": numbers[0]}}, tags)


def test_moved_alias_is_followed():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded()
        async with watching(mlflow, actions):
            await until(lambda: actions.serving("support") == ("1", None))
            mlflow.aliases["support"]["champion"] = "2"
            await until(lambda: actions.serving("support") == ("2", "1"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        pytest.param({}, "nobody has approved it", id="undecided"),
        pytest.param({"flywheel.decision": "reject"}, "its decision is reject", id="rejected"),
        pytest.param(APPROVED | {"flywheel.tainted": "c1"}, "were erased (c1)", id="tainted"),
    ],
)
def test_alias_on_a_version_that_may_not_serve_is_refused(tags: dict[str, str], reason: str):
    async def scenario() -> None:
        mlflow, actions = approved("1"), Recorded()
        async with watching(mlflow, actions):
            await until(lambda: actions.serving("support") == ("1", None))
            mlflow.tags["support", "2"] = tags
            mlflow.aliases["support"]["champion"] = "2"
            await until(lambda: "support" in actions.refused)
            assert reason in actions.refused["support"][1]
            assert actions.serving("support") == ("1", None)
            mlflow.aliases["support"]["champion"] = "1"
            await until(lambda: "support" not in actions.refused)
            assert actions.attempts == ["1"]

    asyncio.run(scenario())


def test_rule_is_the_registry_s_own():
    for tags in ({}, APPROVED, {"flywheel.approver": "ann"}, APPROVED | {"flywheel.tainted": "c"}):
        version = registry.ModelVersion("support", "1", "", "", tags)
        may_serve = registry.as_version(version).may_serve
        ours = champion_watch.RegisteredVersion("support", "1", tags)
        assert (ours.objection is None) == may_serve


def test_erased_champion_is_withdrawn_even_if_the_alias_stays():
    async def scenario() -> None:
        mlflow, actions = approved("2", "1"), Recorded()
        actions.champions["support"] = "2", "1"
        async with watching(mlflow, actions):
            mlflow.tags["support", "2"]["flywheel.tainted"] = "c7"
            await until(lambda: actions.withdrawn != [])
            assert actions.withdrawn[0][0] == "2"
            assert "c7" in actions.withdrawn[0][1]
            assert actions.serving("support") == ("1", None)

    asyncio.run(scenario())


def test_previous_version_that_was_erased_is_withdrawn():
    async def scenario() -> None:
        mlflow, actions = approved("2", "1"), Recorded()
        actions.champions["support"] = "2", "1"
        async with watching(mlflow, actions):
            mlflow.tags["support", "1"]["flywheel.tainted"] = "c8"
            await until(lambda: actions.serving("support") == ("2", None))

    asyncio.run(scenario())


def test_version_that_people_rolled_back_is_no_longer_the_one_before():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded()
        actions.champions["support"] = "2", "1"
        async with watching(mlflow, actions):
            await until(lambda: actions.serving("support") == ("1", "2"))
            mlflow.tags["support", "2"]["flywheel.rolled_back"] = "to version 1 by ann: rude"
            await until(lambda: actions.serving("support") == ("1", None))
            assert actions.forgotten == ["2"]
            # People bring it back: its tag goes after the alias came.
            mlflow.aliases["support"]["champion"] = "2"
            await until(lambda: actions.serving("support") == ("2", "1"))
            assert actions.forgotten == ["2"]

    asyncio.run(scenario())


def test_version_that_people_rolled_back_takes_over_from_no_erased_one():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded()
        mlflow.tags["support", "1"]["flywheel.tainted"] = "c7"
        mlflow.tags["support", "2"]["flywheel.rolled_back"] = "to version 1 by ann: rude"
        actions.champions["support"] = "1", "2"
        async with watching(mlflow, actions):
            await until(lambda: actions.withdrawn != [])
            assert actions.serving("support") == (None, None)

    asyncio.run(scenario())


def test_mlflow_away_changes_nothing_and_its_age_grows():
    async def scenario() -> None:
        mlflow, actions = approved("1"), Recorded()
        async with watching(mlflow, actions) as watch:
            await until(lambda: actions.serving("support") == ("1", None))
            mlflow.is_away = True
            mlflow.aliases = {}
            await until(lambda: (watch.knowledge_age_seconds or 0) > 0.3)
            assert actions.serving("support") == ("1", None)
            mlflow.is_away = False
            await until(lambda: (watch.knowledge_age_seconds or 1) < 0.3)

    asyncio.run(scenario())


def test_emptied_registry_takes_nobody_out_of_service():
    async def scenario() -> None:
        mlflow, actions = approved("1"), Recorded()
        async with watching(mlflow, actions):
            await until(lambda: actions.serving("support") == ("1", None))
            mlflow.aliases, mlflow.tags = {}, {}
            await asyncio.sleep(0.3)
            assert actions.serving("support") == ("1", None)

    asyncio.run(scenario())


def test_failed_version_is_tried_again_with_pauses():
    async def scenario() -> None:
        mlflow, actions = approved("1"), Recorded(failing={"1"})
        async with watching(mlflow, actions):
            await until(lambda: len(actions.attempts) == 1)
            await asyncio.sleep(0.5)
            assert len(actions.attempts) == 1
            actions.failing.clear()
            await until(lambda: actions.serving("support") == ("1", None))

    asyncio.run(scenario())


def test_rollback_does_not_wait_for_the_version_under_way():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded()
        async with watching(mlflow, actions):
            await until(lambda: actions.serving("support") == ("1", None))
            actions.seconds = 3600
            mlflow.aliases["support"]["champion"] = "2"
            await until(lambda: "2" in actions.attempts)
            actions.seconds = 0
            mlflow.tags["support", "3"] = dict(APPROVED)
            mlflow.aliases["support"]["champion"] = "3"
            await until(lambda: actions.serving("support") == ("3", "1"))

    asyncio.run(scenario())


def test_only_the_named_workloads_are_followed_and_challengers_prepared():
    async def scenario() -> None:
        mlflow, actions = approved("1"), Recorded()
        mlflow.aliases["sales"] = {"champion": "1"}
        mlflow.tags["sales", "1"] = dict(APPROVED)
        mlflow.aliases["support"]["challenger"] = "2"
        async with watching(mlflow, actions, ["support"]):
            await until(lambda: actions.made_ready == [("support", "2")])
            await until(lambda: actions.serving("support") == ("1", None))
            assert actions.serving("sales") == (None, None)

    asyncio.run(scenario())


def test_slow_withdrawal_holds_up_no_other_workload():
    async def scenario() -> None:
        mlflow, actions = approved("2", "1"), Recorded(withdrawal_seconds=3600)
        mlflow.aliases["sales"] = {"champion": "1"}
        mlflow.tags |= {("sales", number): dict(APPROVED) for number in ("1", "2")}
        actions.champions["support"] = "2", "1"
        async with watching(mlflow, actions) as watch:
            await until(lambda: actions.serving("sales") == ("1", None))
            mlflow.tags["support", "2"]["flywheel.tainted"] = "c7"
            await until(lambda: actions.withdrawn != [])
            mlflow.aliases["sales"]["champion"] = "2"
            await until(lambda: actions.serving("sales") == ("2", "1"))
            assert len(actions.withdrawn) == 1
            assert (watch.knowledge_age_seconds or 9) < 5

    asyncio.run(scenario())


def test_version_that_is_erased_while_it_is_being_proved_does_not_serve():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded()
        async with watching(mlflow, actions):
            await until(lambda: actions.serving("support") == ("1", None))
            actions.seconds = 0.5
            mlflow.aliases["support"]["champion"] = "2"
            await until(lambda: "2" in actions.attempts)
            mlflow.tags["support", "2"]["flywheel.tainted"] = "c7"
            await until(lambda: "support" in actions.refused)
            await asyncio.sleep(0.8)
            assert actions.serving("support") == ("1", None)
            assert actions.withdrawn == []

    asyncio.run(scenario())


def test_the_alias_canary_begins_and_its_loss_ends():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded(start="an order")
        async with watching(mlflow, actions):
            await until(lambda: actions.serving("support") == ("1", None))
            mlflow.aliases["support"]["canary"] = "2"
            await until(lambda: actions.version_of("support") == "2")
            assert actions.serving("support") == ("1", None)
            assert actions.seen[-1] == ("2", True, "1")
            # The champion becomes what the canary is: its alias may go before the flip.
            actions.seconds = 0.3
            mlflow.aliases["support"] = {"champion": "2"}
            await until(lambda: "2" in actions.attempts)
            assert actions.version_of("support") == "2"
            mlflow.aliases["support"] = {"champion": "1"}
            await until(lambda: actions.version_of("support") is None)

    asyncio.run(scenario())


def test_emptied_registry_ends_no_canary():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded(start="an order")
        mlflow.aliases["support"]["canary"] = "2"
        async with watching(mlflow, actions):
            await until(lambda: actions.version_of("support") == "2")
            mlflow.aliases, mlflow.tags = {}, {}
            await asyncio.sleep(0.3)
            assert actions.version_of("support") == "2"

    asyncio.run(scenario())


def test_erased_canary_is_withdrawn():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded(start="an order")
        mlflow.aliases["support"]["canary"] = "2"
        async with watching(mlflow, actions):
            await until(lambda: actions.version_of("support") == "2")
            mlflow.tags["support", "2"]["flywheel.tainted"] = "c7"
            await until(lambda: actions.withdrawn != [])
            assert actions.withdrawn[0][0] == "2"

    asyncio.run(scenario())


def test_a_canary_that_is_being_proved_is_given_up_with_its_alias():
    async def scenario() -> None:
        mlflow, actions = approved("1", "2"), Recorded(start="an order", seconds=0.5)
        actions.champions["support"] = "1", None
        mlflow.aliases["support"]["canary"] = "2"
        async with watching(mlflow, actions):
            await until(lambda: actions.seen != [])
            del mlflow.aliases["support"]["canary"]
            await asyncio.sleep(0.8)
            assert actions.version_of("support") is None

    asyncio.run(scenario())
