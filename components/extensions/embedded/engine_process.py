"""The embedded engine as a process: its options, its socket, its end."""

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import torch  # noqa: TID253 - the engine is a process of its own
import uvicorn

from components.extensions.embedded.continuous_batch import ContinuousBatch, kept_places
from components.extensions.embedded.openai_server import EngineServer
from components.extensions.embedded.served_models import ServedModels
from components.extensions.embedded.shared_base import SharedBase, UnservableBaseError
from components.models import machine

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
BACKLOG = 1024
SWITCH_SECONDS = 0.0005
"""How long the computing thread may keep Python's lock while the server waits for it; Python's
default, 5 ms, would be added to each chunk."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the base, listen, and serve until SIGTERM or Ctrl-C; open requests are answered."""
    options = _options(arguments)
    if options.die_with_parent is not None:
        _die_with(options.die_with_parent)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # It recommends kernels that would be downloaded from a hub at run time.
    logging.getLogger("bitsandbytes.backends.cpu").setLevel(logging.ERROR)
    threads = options.threads or max(1, machine.cores() - 1)
    torch.set_num_threads(threads)
    sys.setswitchinterval(SWITCH_SECONDS)
    precision = options.precision or ("bf16" if torch.cuda.is_available() else "fp32")
    try:
        places = options.slots + kept_places(options.slots)
        base = SharedBase(options.base, precision, slots=places, context=options.context)
    except UnservableBaseError as error:
        sys.exit(str(error))
    batch = ContinuousBatch(
        base,
        slots=options.slots,
        stored_bytes=options.cache_mb * 2**20,
        running_bytes=options.running_mb * 2**20,
    )
    name = options.name or options.base.name
    models = ServedModels(base, options.base, name, options.max_loras)

    def end() -> None:
        web.should_exit = True

    server = EngineServer(
        models,
        batch,
        slots=options.slots,
        queue=options.queue,
        client_share=options.client_share,
        threads=threads,
        on_failure=end,
    )
    listener = _listen(options.listen)
    config = uvicorn.Config(
        server.app,
        log_level="warning",
        access_log=False,
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=options.drain_seconds,
    )
    web = _EngineWeb(config, server)
    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises it again after the last answer
    try:
        with suppress(KeyboardInterrupt):
            web.run(sockets=[listener])
            if server.thread.has_failed:
                sys.exit(1)
    finally:
        if options.listen.startswith("unix:"):
            Path(options.listen.removeprefix("unix:")).unlink(missing_ok=True)


class _EngineWeb(uvicorn.Server):
    """A server that lets no request wait for its grammar after a signal to end."""

    def __init__(self, config: uvicorn.Config, engine: EngineServer) -> None:
        super().__init__(config)
        self._engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._engine.end()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("components.extensions.embedded", description=main.__doc__)
    add = parser.add_argument
    add("--base", type=Path, required=True, help="the base's folder")
    add("--listen", required=True, help="unix:/path, or host:port (port 0 is any free one)")
    add("--name", help="the base's name in requests; its folder's if left out")
    add("--precision", choices=["fp32", "bf16", "nf4", "fp4"])
    add("--slots", type=_positive, default=8, help="requests that are answered at once")
    add("--queue", type=int, default=128, help="requests that may wait; more are answered with 503")
    add("--client-share", type=float, default=0.5, help="fraction of them that one `user` may use")
    add("--max-loras", type=_positive, default=8, help="adapters in memory")
    add("--threads", type=_positive, help="torch's threads; all cores but one if left out")
    add("--context", type=_positive, help="tokens of prompt and answer; the base's if left out")
    add("--cache-mb", type=int, default=128, help="memory for prefixes of earlier requests")
    add("--running-mb", type=int, default=1024, help="memory for running requests' keys, values")
    add("--drain-seconds", type=_positive, default=60, help="for open requests after SIGTERM")
    add("--die-with-parent", type=int, metavar="PID", help="end when this parent has ended")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text}")
    return number


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call, which comes seconds after the start
        sys.exit("the parent process has ended")


def _leave(*_: object) -> None:
    sys.exit(0)


def _listen(address: str) -> socket.socket:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        path.unlink(missing_ok=True)  # of an engine that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o600)
    else:
        host, _, port = address.rpartition(":")
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]") or "127.0.0.1", int(port)))
        where = listener.getsockname()
        print(f"listening on {where[0]}:{where[1]}", flush=True)  # noqa: T201 - for port 0
    listener.listen(BACKLOG)
    return listener
