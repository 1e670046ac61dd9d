"""What Prometheus reads of a gateway besides its counts: who serves, and where that is proved."""

import asyncio
import re
from pathlib import Path

import pytest

from components.serve.follower import following
from components.serve.routes import Current, Route, Routes
from components.serve.serve_metrics import ServeMetrics
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings, SwapTimes
from components.serve.swap import SwapRefusedError
from tests.support import gateways
from tests.support.fake_replicas import fake_replica, stage


def gauges(metrics: ServeMetrics) -> dict[str, float]:
    """Read the gauges of who serves."""
    lines = re.findall(r"(?m)^flywheel_serve_(\w+{.*}) (\S+)$", metrics.page().decode())
    return {name: float(value) for name, value in lines}


def test_a_version_without_a_replica_and_an_old_proof_are_seen(tmp_path: Path):
    metrics = ServeMetrics()
    champion = gateways.served(tmp_path, replicas=())
    metrics.watch_serving(Current(Routes({"support": Route(1, champion)})), dict)
    read = gauges(metrics)
    assert read['proved_replicas{version="7",workload="support"}'] == 0
    assert read['proof_age_seconds{workload="support"}'] > 3600


def test_a_failed_proof_and_a_refused_version_are_seen(tmp_path: Path):
    async def scenario(url: str) -> dict[str, float]:
        engine = {"kind": "vllm", "base_name": "the-base", "replicas": [{"name": "a", "url": url}]}
        settings = ServeSettings.model_validate({"engine": engine})
        current, metrics = Current(), ServeMetrics()
        async with following(
            settings, ServePlaces(tmp_path), None, current, times=SwapTimes(proof=0.1)
        ) as follower:
            metrics.watch_serving(current, follower.status)
            await follower.swap.follow(stage(tmp_path / "serve", "support", 1))
            assert gauges(metrics)['proof_failed{replica="a",workload="support"}'] == 0
            replica.misbehave("base_under_name")
            with pytest.raises(SwapRefusedError):
                await follower.swap.follow(stage(tmp_path / "serve", "support", 2))
            failed = 'proof_failed{replica="a",workload="support"}'
            proved = 'proved_replicas{version="1",workload="support"}'
            async with asyncio.timeout(60):
                while (read := gauges(metrics)).get(failed) != 1 or read[proved]:
                    await asyncio.sleep(0.05)
            return read

    with fake_replica() as replica:
        read = asyncio.run(scenario(replica.url))
    assert read['refused_version{version="2",workload="support"}'] == 1
    assert read['proof_failed{replica="a",workload="support"}'] == 1
    assert read['proved_replicas{version="1",workload="support"}'] == 0
    assert read['replica_in{replica="a"}'] == 1
