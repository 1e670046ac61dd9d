"""From an alias moved in MLflow to the first answer by the version that it names.

``python -m tests.benchmarks.swap_times``: a real MLflow server, a follower and the embedded engine
with a tiny base, all on this machine. A version is fetched, verified, staged, loaded, proved and
asked once, with its references present as after a challenger's preparation; one more without.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from components.serve.champion_watch import RegistryAddress
from components.serve.engines.serving_engine import Generation
from components.serve.follower import Follower, following
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings
from tests.support.approved_versions import ApprovedVersions, approved_versions

WORKLOAD = "support"


async def first_answer(follower: Follower, version: str) -> None:
    """Ask for the workload until this version answers."""
    while True:
        route = follower.swap.current.routes.get(WORKLOAD)
        if route is not None and route.champion.version == version and route.champion.replicas:
            engine = follower.engines[route.champion.replicas[0]]
            async for _ in engine.complete(route.champion.model, Generation("Hello", 4)):
                return
        await asyncio.sleep(0.005)


@dataclass
class SwapTimes:
    """Seconds from an alias's move to the first answer by its version."""

    prepared: list[float] = field(default_factory=list[float])
    rollbacks: list[float] = field(default_factory=list[float])
    unprepared: list[float] = field(default_factory=list[float])


async def measure(made: ApprovedVersions, new: int) -> SwapTimes:
    """Move the alias to each version and back; to one more whose references are to be made."""
    client, times = MlflowClient(made.url), SwapTimes()

    async def move(follower: Follower, version: int) -> float:
        client.set_registered_model_alias(WORKLOAD, "champion", str(version))
        started = time.monotonic()
        await first_answer(follower, str(version))
        return time.monotonic() - started

    settings = ServeSettings.model_validate({"engine": {"threads": 1}})
    places, address = ServePlaces(made.home.home, is_shared=True), RegistryAddress(made.url)
    client.set_registered_model_alias(WORKLOAD, "champion", "1")
    async with following(settings, places, address, Current()) as follower:
        await first_answer(follower, "1")
        for version in range(2, new + 2):
            await follower.prepare(WORKLOAD, str(version))
            times.prepared.append(await move(follower, version))
            times.rollbacks.append(await move(follower, version - 1))
            times.rollbacks.append(await move(follower, version))
        times.unprepared.append(await move(follower, new + 2))
    return times


def main() -> int:
    """Print the seconds of swaps and of rollbacks."""
    parser = argparse.ArgumentParser(__doc__)
    parser.add_argument("--versions", type=int, default=5, help="new versions; two rollbacks each")
    count = parser.parse_args().versions
    with (
        tempfile.TemporaryDirectory() as root,
        approved_versions(Path(root)) as made,
        disable_run_logger(),
    ):
        for number in range(1, count + 3):
            made.register(WORKLOAD, number)
        times = asyncio.run(measure(made, count))
    report("alias moved to the first answer, references present", times.prepared)
    report("alias moved to the first answer, references to be made", times.unprepared)
    report("rollback to the resident version before", times.rollbacks)
    return 0


def report(name: str, seconds: Sequence[float]) -> None:
    """Print the median and the largest."""
    sys.stdout.write(
        f"{name}: {statistics.median(seconds):.2f} s (at most {max(seconds):.2f}, "
        f"{len(seconds)} times)\n"
    )


if __name__ == "__main__":
    sys.exit(main())
