"""Serve a gateway: ``launch_gateway.py HOME SETTINGS LIMITS RECEIVER SHUTDOWN_SECONDS``."""

import json
import os
import sys
from pathlib import Path

import uvloop

from components.receive.settings import Limits
from components.schema import Json
from components.serve import gateway_process, routes
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.vllm_server import VllmServer
from components.serve.routes import Current
from components.serve.settings import ServeSettings


def say(url: str) -> None:
    """Tell the parent where to send."""
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def loaded_modules() -> dict[str, Json]:
    """List the process's modules, for a test of what it loads."""
    return {"modules": [*sorted(name for name in sys.modules if "." not in name)]}


async def main() -> None:
    """Listen on a free port and print the URL."""
    home, settings = Path(sys.argv[1]), ServeSettings.model_validate_json(sys.argv[2])
    engine = settings.engine
    engines = {
        replica.name: VllmServer(
            replica.name,
            HttpUpstream(
                replica.url,
                connect_seconds=engine.connect_seconds,
                patience_seconds=engine.first_byte_seconds,
            ),
            base="base",
        )
        for replica in engine.replicas
    }
    limits = json.loads(sys.argv[3])
    app = gateway_process.create(
        home,
        settings,
        Current(routes.read(home / "serve" / "routes.json")),
        engines,
        limits=Limits.model_validate(limits) if limits else None,
        receiver=bool(sys.argv[4]),
        environment=os.environ,
        status=loaded_modules,
    )
    await gateway_process.run(
        app, host="127.0.0.1", port=0, shutdown_seconds=float(sys.argv[5]), ready=say
    )
    for server in engines.values():
        await server.close()


if __name__ == "__main__":
    uvloop.run(main())
