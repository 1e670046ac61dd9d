"""Listen, and serve until SIGTERM or Ctrl-C; then finish what was begun and seal the segment."""

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from components.receive import app
from components.receive.deadline import ImpatientProtocol
from components.receive.limits import Limits

BACKLOG = 1024
KEEP_ALIVE_SECONDS = 65
"""Longer than the idle time of usual load balancers, so that they never send into a closing one."""


class PortError(OSError):
    """The address can't be listened on."""


def serve(
    folder: Path,
    tokens: Path,
    *,
    host: str,
    port: int,
    limits: Limits,
    ready: Callable[[str], None],
) -> None:
    """Serve until told to stop.

    Args:
        folder: The spool.
        tokens: The file of tokens.
        host: The interface to listen on.
        port: 0 for any free one.
        limits: How much is taken.
        ready: Is told the URL once connections are taken.

    Raises:
        PortError: Somebody else listens there, or it is no address of this machine.
    """
    listener = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app.create(folder, tokens, limits),
        http=_protocol(limits),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(limits.request_seconds) + 1,
        ws="none",
        server_header=False,
        proxy_headers=False,  # nothing here asks for the client's address
    )
    ready(f"http://{name}:{listener.getsockname()[1]}")
    with suppress(KeyboardInterrupt):  # uvicorn repeats a Ctrl-C once all is sealed
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortError(
            f"listening on {host} port {port}: {error.strerror}; choose another --port, or "
            "--host 127.0.0.1"
        ) from error
    listener.listen(BACKLOG)
    return listener


def _protocol(limits: Limits) -> type[ImpatientProtocol]:
    class Protocol(ImpatientProtocol):
        pass

    Protocol.limits = limits
    return Protocol
