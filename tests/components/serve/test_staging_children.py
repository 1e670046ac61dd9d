"""Stagings are processes that can hang, be given up and be killed; others go on meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from components.release import release_state
from components.release.release_state import ChampionChange, KnownChampions, Pending, ReleaseState
from components.serve.champion_watch import RegistryAddress
from components.serve.follower import Follower, following
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings, SwapTimes
from tests.components.serve.test_champion_watch import APPROVED, FakeMlflow
from tests.support.fake_replicas import FakeReplica, fake_replica


@asynccontextmanager
async def followed(
    home: Path, replica: FakeReplica, mlflow: FakeMlflow, *, staging_seconds: float = 600
) -> AsyncGenerator[Follower]:
    engine = {"kind": "vllm", "replicas": [{"name": "vllm-1", "url": replica.url}]}
    settings = ServeSettings.model_validate({"engine": engine})
    times = SwapTimes(follow=0.1, staging=staging_seconds)
    async with mlflow.running() as url:
        places, current = ServePlaces(home), Current()
        async with following(
            settings, places, RegistryAddress(url), current, times=times
        ) as follower:
            yield follower


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def stagings() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "components.serve.staging" in child.cmdline()]


def scratch(home: Path) -> list[Path]:
    return list((home / "serve").glob("staging-*"))


def test_staging_that_hangs_holds_up_no_other_workload(tmp_path: Path):
    async def scenario(replica: FakeReplica) -> None:
        mlflow = FakeMlflow({"slow": {"champion": "1"}}, hanging={"slow"})
        mlflow.tags = {(name, "1"): dict(APPROVED) for name in ("slow", "sales")}
        async with followed(tmp_path, replica, mlflow) as follower:
            await until(lambda: scratch(tmp_path) != [])
            mlflow.aliases["sales"] = {"champion": "1"}
            await until(lambda: "sales" in follower.swap.refusals)
            assert len(stagings()) == 1

    with fake_replica() as replica:
        asyncio.run(scenario(replica))
    assert scratch(tmp_path) == []


def test_staging_that_is_given_up_leaves_neither_process_nor_files(tmp_path: Path):
    async def scenario(replica: FakeReplica) -> None:
        mlflow = FakeMlflow({"slow": {"champion": "1"}}, hanging={"slow"})
        mlflow.tags["slow", "1"] = dict(APPROVED)
        async with followed(tmp_path, replica, mlflow):
            await until(lambda: scratch(tmp_path) != [])
            del mlflow.aliases["slow"]["champion"]
            await until(lambda: scratch(tmp_path) == [] and stagings() == [], 10)

    with fake_replica() as replica:
        asyncio.run(scenario(replica))


@pytest.mark.slow
def test_staging_that_takes_too_long_is_ended_and_said(tmp_path: Path):
    async def scenario(replica: FakeReplica) -> None:
        left = tmp_path / "serve" / "staging-1-left"  # by a gateway that was killed
        left.mkdir(parents=True)
        mlflow = FakeMlflow({"slow": {"champion": "1"}}, hanging={"slow"})
        mlflow.tags["slow", "1"] = dict(APPROVED)
        async with followed(tmp_path, replica, mlflow, staging_seconds=3) as follower:
            assert not left.exists()
            await until(lambda: "slow" in follower.swap.refusals)
            assert "took longer than 3 s" in follower.swap.refusals["slow"].reason
            assert stagings() == []

    with fake_replica() as replica:
        asyncio.run(scenario(replica))


def test_an_alias_that_was_moved_by_hand_to_an_earlier_champion_is_not_followed(tmp_path: Path):
    """Attack: with MLflow's login the alias is moved to a version that was approved once."""
    approved, at = frozenset({("1", "e1"), ("2", "e2")}), datetime(2026, 1, 1, tzinfo=UTC)
    state = ReleaseState("2", approved, {"1": None, "2": "1"})
    release_state.write_known(tmp_path / "locks", "support", KnownChampions(state, True, "", at))
    ordered = ChampionChange("support", "rollback", "e1", "a1", "1", "2", "a2", "bob", "rude")

    async def scenario(replica: FakeReplica) -> None:
        mlflow = FakeMlflow({"support": {"champion": "1"}})
        mlflow.tags = {("support", number): dict(APPROVED) for number in ("1", "2")}
        async with followed(tmp_path, replica, mlflow) as follower:

            def refusal() -> tuple[str, bool]:
                noted = follower.swap.refusals.get("support")
                return (noted.version, "moved" in noted.reason) if noted else ("", False)

            await until(lambda: refusal() == ("1", True))
            assert scratch(tmp_path) == []
            mlflow.aliases["support"] = {"champion": "2"}
            await until(lambda: refusal() == ("2", False))  # staged, of an MLflow without files
            # A rollback that others keep from the warehouse moves the alias first.
            pending = Pending(ordered, at, "")
            release_state.write_pending(tmp_path / "locks", pending)
            mlflow.aliases["support"] = {"champion": "1"}
            await until(lambda: refusal() == ("1", False))

    with fake_replica() as replica:
        asyncio.run(scenario(replica))
