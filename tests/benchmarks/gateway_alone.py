"""A gateway with one route: ``python -m tests.benchmarks.gateway_alone HOME BASE ENGINE_URL PORT``.

Its version is not proved and never changes, so that only the path of a request is measured. With
the text of an order as fifth argument the route has a canary.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from components.chat import chat_templates
from components.extensions.canary.rollouts import Rollouts
from components.serve import gateway_process
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import ServingEngine
from components.serve.engines.vllm_server import VllmServer
from components.serve.routes import CanaryRoute, Current, Route, Routes, Served
from components.serve.settings import ServeSettings
from components.serve.swap import AdapterSwap
from tests.benchmarks.fast_engine import MODEL

NOW = "2026-11-27T12:00:00+00:00"


def served(base: Path) -> Served:
    return Served(
        workload="tool-calls",
        version="1",
        adapter="0123456789abcdef",
        sha256="0" * 64,
        model=MODEL,
        base=str(base),
        template_hash=chat_templates.template_hash(base),
        form="written",
        max_new_tokens=64,
        precision="fp32",
        constrained=True,
        proved_at=NOW,
        since=NOW,
        replicas=("fast",),
    )


async def main(home: Path, base: Path, url: str, port: int, order: str | None) -> None:
    upstream, settings = HttpUpstream(url), ServeSettings()
    engines: dict[str, ServingEngine] = {"fast": VllmServer("fast", upstream, base="base")}
    canary = CanaryRoute(replace(served(base), version="2"), order) if order else None
    current = Current(Routes({"tool-calls": Route(1, served(base), canary=canary)}))
    current.routes.write(home / "serve" / "routes.json")
    rollouts = Rollouts(AdapterSwap(home / "serve", engines, current, settings.swap), home / "keys")
    rollouts.restore()
    looking = asyncio.create_task(rollouts.run())
    app = gateway_process.create(home, settings, current, engines, rollout=rollouts)
    await gateway_process.run(app, host="127.0.0.1", port=port, ready=lambda _: None)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await upstream.close()


if __name__ == "__main__":
    order = sys.argv[5] if len(sys.argv) > 5 else None
    uvloop.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), order))
