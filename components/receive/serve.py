"""Serve the receiver until SIGTERM or Ctrl-C; finish open requests, seal the segment."""

import socket
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from components.receive import app
from components.receive.settings import Limits

RETRY_SECONDS = 1
DRAIN_SECONDS = 0.05
"""Between two reads of what comes after a refusal, at most 256 KiB each."""


class ImpatientProtocol(HttpToolsProtocol):
    """HTTP whose every request must arrive as a whole, head and body, before its deadline.

    The clock runs from the connection, later from the first byte of the next request, to the last
    byte of its body. Where no answer has begun by then it is 408; the connection is closed.
    """

    limits = Limits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline: TimerHandle | None = None
        self._before: RequestResponseCycle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the clock, or turn away a connection too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._close_with("503 Service Unavailable", f"retry-after: {RETRY_SECONDS}\r\n")
            return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the clock for a request."""
        super().on_message_begin()
        self._before = self.cycle
        self._start_clock()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; the rest of one that was refused is read slowly.

        uvicorn reads it to its end, as many clients read no answer before they have sent all.
        Without a pause it would read up to 8 MiB of one connection before it turns to others.
        """
        super().on_body(body)
        if self.cycle.response_complete and not self.transport.is_closing():
            self.flow.pause_reading()
            self.loop.call_later(DRAIN_SECONDS, self._read_on)

    def on_message_complete(self) -> None:
        """Stop the clock: all of the request is here."""
        self._stop_clock()
        super().on_message_complete()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _start_clock(self) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(self.limits.request_seconds, self._cut_off)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        if self._is_answered():
            self.transport.close()
        else:
            self._close_with("408 Request Timeout")

    def _is_answered(self) -> bool:
        """Tell whether an answer to the late request, or to one before it, is on its way."""
        if self._before is not None and not self._before.response_complete:
            return True
        is_head_complete = self.cycle is not self._before
        return is_head_complete and self.cycle.response_started

    def _close_with(self, status: str, header: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n{header}\r\n"
        self.transport.write(head.encode())
        self.transport.close()


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
