"""Run the gateway's server: uvicorn with the receiver's deadlines for slow clients."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from components.receive import serve
from components.receive.settings import Limits
from components.schema import Json
from components.serve.endpoints import GatewayApp
from components.serve.engines.serving_engine import ServingEngine, UpstreamError
from components.serve.rollout import Rollout
from components.serve.routes import Current
from components.serve.settings import ServeSettings

LOG = logging.getLogger(__name__)


class GatewayServer(serve.QuietServer):
    """A server that ends at a signal and returns, so that its caller can close the engines."""

    def __init__(self, config: uvicorn.Config, app: GatewayApp) -> None:
        super().__init__(config)
        self._app = app
        self._ending: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; answers that have begun may still be written."""
        super().handle_exit(sig, frame)
        self._ending = asyncio.create_task(self._app.gateway.end())

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stop at SIGTERM and SIGINT; uvicorn's own raises the signal again afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _no_status() -> Mapping[str, Json]:
    return {}


def _no_report(replica: str, error: UpstreamError) -> None:
    LOG.warning("%s failed a request: %s", replica, error.kind)


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
    report: Callable[[str, UpstreamError], None] = _no_report,
    rollout: Rollout | None = None,
) -> GatewayApp:
    """Return the application; see ``GatewayApp`` for the arguments.

    ``limits`` are the receiver's, with the gateway's own number of connections.
    """
    return GatewayApp(
        home,
        settings,
        current,
        engines,
        limits=limits or Limits(connections=2 * settings.limits.open_requests),
        receiver=receiver,
        environment=environment or {},
        status=status,
        report=report,
        rollout=rollout,
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
    gc.collect()
    gc.freeze()  # else the collector looks through all modules at each large request: 60 ms
    ready(url)
    await GatewayServer(config, app).serve(sockets=[listener])
