"""Serve versions that no MLflow has: ``launch_staged.py HOME SETTINGS MLFLOW`` prints the URL.

All is as in ``flows.stack.gateway_service``, but a version's files are made and not fetched.
"""

import asyncio
import sys
from functools import partial
from pathlib import Path

import uvloop

from components.extensions.canary.rollouts import Rollouts
from components.serve import gateway_process, staged_version
from components.serve.champion_watch import RegistryAddress
from components.serve.follower import Follower
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings, SwapTimes
from components.serve.staged_version import StagedVersion
from tests.support.fake_replicas import stage


def say(url: str) -> None:
    """Tell the parent where to send."""
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


TIMES = SwapTimes(follow=0.1, drain=1)


class StagedFollower(Follower):
    """Stages adapters that answer with their own version's word."""

    async def _stage(self, workload: str, version: str) -> StagedVersion:
        adapters = self._places.adapters
        for record in adapters.glob(f"{workload}.v{version}-*.json"):
            if not record.name.endswith(".references.json"):
                return staged_version.read_staged(adapters, record.stem)
        return stage(self._places.folder, workload, int(version))


async def main() -> None:
    """Serve until a signal."""
    settings, current = ServeSettings.model_validate_json(sys.argv[2]), Current()
    places = ServePlaces(Path(sys.argv[1]))
    made = partial(Rollouts, keys=places.home / "keys")
    registry = RegistryAddress(sys.argv[3])
    follower = StagedFollower(settings, places, registry, current, None, made, TIMES)
    await follower.start()
    tasks = [asyncio.create_task(work()) for work in follower.work()]
    app = gateway_process.create(
        places.home,
        settings,
        current,
        follower.engines,
        report=follower.swap.replicas.report,
        rollout=follower.rollout,
    )
    await gateway_process.run(app, host="127.0.0.1", port=0, ready=say)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await follower.close()


if __name__ == "__main__":
    uvloop.run(main())
