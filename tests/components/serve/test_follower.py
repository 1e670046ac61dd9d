"""From the alias in MLflow to the embedded engine's answer, with every process a real one."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator

import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from components.register import registry, version_tags
from components.serve.champion_watch import RegistryAddress
from components.serve.engines.serving_engine import Generation
from components.serve.follower import Follower, following
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings
from tests.support.approved_versions import LABELS, ApprovedVersions, approved_versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApprovedVersions]:
    with approved_versions(tmp_path_factory.mktemp("served")) as versions, disable_run_logger():
        versions.register("support", 1)
        versions.register("support", 2)
        versions.register("support", 3, is_approved=False)
        yield versions


async def until(condition: Callable[[], bool], seconds: float = 400.0) -> float:
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
    return time.monotonic() - started


def champion(follower: Follower) -> str | None:
    route = follower.swap.current.routes.get("support")
    return route.champion.version if route and route.champion.replicas else None


async def answer(follower: Follower) -> str:
    route = follower.swap.current.routes["support"]
    engine = follower.engines[route.champion.replicas[0]]
    generation = Generation("Hello", max_tokens=6)
    return "".join([p.text async for p in engine.complete(route.champion.model, generation)])


def test_champion_is_followed_rolled_back_refused_and_erased(made: ApprovedVersions):
    places = ServePlaces(made.home.home, is_shared=True)  # an alias alone leads on
    settings = ServeSettings.model_validate({"engine": {"threads": 1}})
    client = MlflowClient(made.url)
    figures: dict[str, float] = {}

    async def move(follower: Follower, number: str) -> float:
        client.set_registered_model_alias("support", "champion", number)
        return await until(lambda: champion(follower) == number)

    async def scenario() -> None:
        current = Current()
        registry_at = RegistryAddress(made.url)
        async with following(settings, places, registry_at, current) as follower:
            await until(lambda: champion(follower) == "2")
            second = await answer(follower)
            figures["first follow of 1, with its references to be made"] = await move(follower, "1")
            first = await answer(follower)
            assert first != second
            assert current.routes["support"].champion.labels == LABELS
            figures["rollback to 2, resident"] = await move(follower, "2")
            assert await answer(follower) == second
            # Moved by hand to a version that nobody approved.
            client.set_registered_model_alias("support", "champion", "3")
            await until(lambda: "support" in follower.swap.refusals)
            assert champion(follower) == "2"
            await until(lambda: bool(json.loads(places.status.read_text())["refused"]))
            client.set_registered_model_alias("support", "champion", "2")
            registry.tag_version("support", "2", {version_tags.TAINTED_TAG: "c1"})
            figures["erased champion gives way"] = await until(lambda: champion(follower) == "1")
            assert await answer(follower) == first
            assert list(places.adapters.glob("support.v2-*")) == []
        # Somebody deletes an adapter under a gateway that is down.
        (weights,) = places.adapters.glob("support.v1-*/*.safetensors")
        weights.parent.chmod(0o755)
        weights.unlink()
        async with following(settings, places, registry_at, Current()) as follower:
            assert champion(follower) is None
            await until(lambda: champion(follower) == "1")
            assert await answer(follower) == first
        # The gateway's next start, with MLflow away.
        nowhere = RegistryAddress("http://127.0.0.1:9")
        async with following(settings, places, nowhere, Current()) as follower:
            await until(lambda: champion(follower) == "1")
            assert await answer(follower) == first

    asyncio.run(scenario())
    assert figures["rollback to 2, resident"] < 30, figures
