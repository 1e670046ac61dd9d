"""Serve a gateway in front of scripted engines."""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from components.extensions.canary.rollouts import Rollouts
from components.extensions.machines.object_store import ObjectStore
from components.receive.settings import Limits
from components.schema import Json
from components.serve import gateway_process, response_id, routes
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import ServingEngine
from components.serve.engines.vllm_server import VllmServer
from components.serve.routes import Current
from components.serve.settings import ServeSettings
from components.serve.swap import AdapterSwap
from tests.support.forking import Ready

ADDRESS = "GET http://10.0.0.7:8000/v1/models"  # of no engine


def status() -> dict[str, Json]:
    """Say what a gateway says, of two workloads, and list the modules that the process loads."""
    proof: Json = {"one": {"from_base": 0.5, "objection": ADDRESS}}
    version: Json = {"version": "8", "proofs": proof}
    refusal: Json = {"version": "9", "reason": ADDRESS}
    names = ("support", "payroll")
    return {
        "modules": [*sorted(name for name in sys.modules if "." not in name)],
        "routes": {name: {"epoch": 3} for name in names},
        "workloads": {name: {"champion": version, "refused": refusal} for name in names},
        "refused": [{"workload": name, "version": "9", "reason": ADDRESS} for name in names],
        "replicas": [{"name": "one", "condition": "out", "reason": ADDRESS}],
    }


def launch(
    ready: Ready,
    home: Path,
    settings: ServeSettings,
    limits: Limits | None,
    *,
    receiver: bool,
    shutdown_seconds: float,
    store: ObjectStore | None = None,
) -> None:
    """Listen on a free port and say the URL."""
    if store is not None:
        response_id.share_key(home / "keys", store)
    uvloop.run(_serve(ready, home, settings, limits, receiver, shutdown_seconds, store))


async def _serve(
    ready: Ready,
    home: Path,
    settings: ServeSettings,
    limits: Limits | None,
    receiver: bool,
    shutdown_seconds: float,
    store: ObjectStore | None,
) -> None:
    engine = settings.engine
    engines = {
        replica.name: VllmServer(
            replica.name,
            HttpUpstream(
                replica.url,
                patience_seconds=engine.first_byte_seconds,
            ),
            base="base",
        )
        for replica in engine.replicas
    }
    current = Current(routes.read(home / "serve" / "routes.json"))
    swap = AdapterSwap(home / "serve", dict[str, ServingEngine](engines), current, settings.swap)
    rollouts = Rollouts(swap, home / "keys", store=store, look_seconds=0.2)
    rollouts.restore()
    looking = asyncio.create_task(rollouts.run())
    app = gateway_process.create(
        home,
        settings,
        current,
        engines,
        limits=limits,
        receiver=receiver,
        environment=os.environ,
        status=status,
        rollout=rollouts,
    )
    await gateway_process.run(
        app, host="127.0.0.1", port=0, shutdown_seconds=shutdown_seconds, ready=ready
    )
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await rollouts.close()
    for server in engines.values():
        await server.close()
