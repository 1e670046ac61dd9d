"""Run the gateway's server: uvicorn with the receiver's deadlines for slow clients."""

from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from components.receive import serve
from components.receive.settings import Limits
from components.schema import Json
from components.serve.endpoints import GatewayApp
from components.serve.engines.serving_engine import ServingEngine
from components.serve.routes import Current
from components.serve.settings import ServeSettings


def _no_status() -> Mapping[str, Json]:
    return {}


def create(
    home: Path,
    settings: ServeSettings,
    current: Current,
    engines: Mapping[str, ServingEngine],
    *,
    limits: Limits | None = None,
    receiver: bool = False,
    environment: Mapping[str, str] | None = None,
    status: Callable[[], Mapping[str, Json]] = _no_status,
) -> GatewayApp:
    """Return the application; see ``GatewayApp`` for the arguments.

    ``limits`` are the receiver's, with the gateway's own number of connections.
    """
    return GatewayApp(
        home,
        settings,
        current,
        engines,
        limits=limits
        or Limits(
            connections=2 * settings.limits.open_requests,
            write_seconds=settings.limits.write_seconds,
        ),
        receiver=receiver,
        environment=environment or {},
        status=status,
    )


async def run(
    app: GatewayApp,
    *,
    host: str,
    port: int,
    shutdown_seconds: float = 30.0,
    ready: Callable[[str], None],
) -> None:
    """Serve in the running loop until SIGTERM or SIGINT; port 0 is any free one.

    ``ready`` is called with the URL once connections are accepted. Answers under way have
    ``shutdown_seconds`` at the end. Raise ``PortError`` if the port is in use.
    """
    listener, url = serve.listen(host, port)
    config = serve.configure(app, app.limits, graceful_seconds=int(shutdown_seconds))
    ready(url)
    await uvicorn.Server(config).serve(sockets=[listener])
