"""The gateway of a home, in this process: `python -m flows.stack.gateway_service` in its stack."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import uvloop

from components.serve import gateway_process, response_id
from components.serve.champion_watch import RegistryAddress
from components.serve.follower import following
from components.serve.response_id import ResponseKeyError
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings
from components.store import file_locks
from components.store.shared_files import StoreError
from flows import access, gateway_status, trials
from flows.settings import HOST, SERVE_PORT, Settings, load

MLFLOW = ("URI", "USERNAME", "PASSWORD", "TOKEN")  # what MLflow's variables end in


CHILDREN = {"TORCHDYNAMO_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""For the processes that load a base, as in a job: no compiler, no progress bars in the log."""


class GatewayRunsError(RuntimeError):
    """Another gateway of the home runs."""


def run_gateway(
    home: Settings,
    options: ServeSettings,
    *,
    host: str,
    port: int,
    receiver: bool,
    ready: Callable[[str], None],
) -> None:
    """Serve the home's champions until SIGTERM or Ctrl-C; port 0 is any free one.

    ``receiver`` serves the receiver's paths, too; ``ready`` is called with the URL. With an object
    store, the key of answers' ids is that of all gateways that share it.

    Raises:
        StoreError: The store can't be reached, and this gateway never shared the key.
        ResponseKeyError: The store's key is not one.
        GatewayRunsError: Another gateway of this home runs; both would write its routes.
        PortError: The port is in use.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ |= CHILDREN
    if home.store is not None:
        response_id.share_key(home.keys, home.store)
    with file_locks.held(home.serve / "gateway.lock", wait=False) as alone:
        if not alone:
            raise GatewayRunsError(
                f"serving {home.home}: another gateway of this home runs, as the stack's "
                f"({SERVE_PORT}) or as `flywheel serve`; stop that one first"
            )
        try:
            with suppress(KeyboardInterrupt):
                uvloop.run(_serve(home, options, host, port, receiver=receiver, ready=ready))
        finally:
            ServePlaces(home.home).status.unlink(missing_ok=True)  # it says who serves


async def _serve(
    home: Settings,
    options: ServeSettings,
    host: str,
    port: int,
    *,
    receiver: bool,
    ready: Callable[[str], None],
) -> None:
    current, places = Current(), ServePlaces(home.home, is_shared=home.shared_warehouse is not None)
    address = RegistryAddress(*(os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in MLFLOW))
    made = trials.of_gateway(home)
    async with following(options, places, address, current, home.store, made) as follower:
        app = gateway_process.create(
            home.home,
            options,
            current,
            follower.engines,
            receiver=receiver,
            environment=os.environ,
            status=follower.status,
            report=follower.swap.replicas.report,
            rollout=follower.rollout,
        )
        await gateway_process.run(app, host=host, port=port, ready=ready)


def main() -> str | None:
    """Serve the home's champions until a signal to stop; return why it could not start."""
    home = load()
    assert home.serve_port is not None
    access.set_umask(home.home)
    try:
        options = gateway_status.read_serve_settings(home, None)
        run_gateway(home, options, host=HOST, port=home.serve_port, receiver=True, ready=_say)
    except (
        gateway_status.ServeFileError,
        GatewayRunsError,
        ResponseKeyError,
        StoreError,
    ) as error:
        return str(error)
    return None


def _say(url: str) -> None:
    sys.stdout.write(f"serving on {url}\n")


if __name__ == "__main__":
    sys.exit(main())
