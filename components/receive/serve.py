"""Serve the receiver until SIGTERM or Ctrl-C; finish open requests, seal the segment."""

import asyncio
import socket
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from components.receive import app
from components.receive.settings import Limits

RETRY_SECONDS = 1
BACKLOG = 1024
KEEP_ALIVE_SECONDS = 65  # longer than load balancers' idle timeout: they never use a closing one
HEAD_BYTES = 64 * 2**10  # of a request's headers and trailers, which are held without a token
DRAIN_SECONDS = 0.05  # pause between two reads (at most 256 KiB each) of the rest of a refused body


class QuietServer(uvicorn.Server):
    """A server that stops at once at a signal, for which uvicorn looks ten times a second."""

    _wake: Callable[[], object] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, which a signal handler may only tell the loop from outside."""
        super().handle_exit(sig, frame)
        if self._wake is not None:
            self._wake()

    async def main_loop(self) -> None:
        """Wait until a signal to stop."""
        signalled = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, signalled.set)
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await signalled.wait()


class RefusedHeadError(Exception):
    """Ends the parsing of a request, which was refused already."""


class ImpatientProtocol(HttpToolsProtocol):
    """HTTP with a deadline for the arrival of each request, head and body, and for slow readers.

    The clock runs from the connection, or from the first byte of a later request, to the last byte
    of the body. At the deadline the connection is closed, with 408 unless an answer has begun.
    Connections above the limit displace idle ones: those that never asked, then the longest idle.
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
        self._unread: TimerHandle | None = None
        self._before: RequestResponseCycle | None = None
        self._head_bytes, self._authorizations = 0, 0
        self._last_used = self.loop.time()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the clock; of too many connections close an idle one, or refuse this one."""
        super().connection_made(transport)
        self._start_clock()
        if len(self.connections) > self.limits.connections:
            others = (other for other in self.connections if isinstance(other, ImpatientProtocol))
            idle = [other for other in others if other.is_idle and other is not self]
            if idle:
                min(idle, key=lambda other: other.usefulness).transport.close()
            else:
                self._close_with("503 Service Unavailable", f"retry-after: {RETRY_SECONDS}\r\n")

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered, and the connection is not closing."""
        latest = self._latest_request
        is_answered = latest is None or latest.response_complete
        return is_answered and not self.transport.is_closing()

    @property
    def usefulness(self) -> tuple[bool, float]:
        """Whether a request ever came whole, and when the last one was answered."""
        return self._latest_request is not None, self._last_used

    @property
    def _latest_request(self) -> RequestResponseCycle | None:
        return cast("RequestResponseCycle | None", self.cycle)  # uvicorn's type has no ``None``

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_clock()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read; at its end the connection is cut."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock: the client reads."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        super().on_message_begin()
        self._before = self.cycle
        self._head_bytes, self._authorizations = 0, 0
        self._start_clock()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header or a trailer; refuse too much of them, and two that authorize."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES:
            self._close_with("431 Request Header Fields Too Large")
            raise RefusedHeadError
        self._authorizations += name.lower() == b"authorization"
        if self._authorizations > 1:  # readers differ in which of them counts
            self._close_with("400 Bad Request")
            raise RefusedHeadError
        # uvicorn adds trailers to the headers: one may stand for what a proxy has set.
        if self.cycle is self._before:
            super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, unless the connection was closed with another answer."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Note when the connection was last of use."""
        self._last_used = self.loop.time()
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body; the rest of a refused body is read slowly.

        uvicorn reads it to the end, because many clients send everything before they read an
        answer. Without a pause it would read up to 8 MiB of one connection before it serves others.
        """
        super().on_body(body)
        if self.cycle.response_complete and not self.transport.is_closing():
            self.flow.pause_reading()
            self.loop.call_later(DRAIN_SECONDS, self._resume_reading)

    def on_message_complete(self) -> None:
        """Stop the clock: the whole request has arrived."""
        self._stop_clock()
        super().on_message_complete()

    def _resume_reading(self) -> None:
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
        """Return whether an answer to the late request, or to an earlier one, has begun."""
        if self._before is not None and not self._before.response_complete:
            return True
        is_head_complete = self.cycle is not self._before
        return is_head_complete and self.cycle.response_started

    def _close_with(self, status: str, header: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n{header}\r\n"
        self.transport.write(head.encode())
        self.transport.close()


class PortError(OSError):
    """Raised when the receiver can't listen on the address."""


def serve(
    folder: Path,
    tokens: Path,
    *,
    host: str,
    port: int,
    limits: Limits,
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; port 0 is any free one.

    ``ready`` is called with the URL once connections are accepted. Raise ``PortError`` if the port
    is in use, or the host is not an address of this machine.
    """
    listener, url = listen(host, port)
    config = configure(
        app.create(folder, tokens, limits),
        limits,
        graceful_seconds=int(limits.request_seconds) + 1,
    )
    ready(url)
    with suppress(KeyboardInterrupt):  # uvicorn repeats a Ctrl-C once all is sealed
        QuietServer(config).run(sockets=[listener])


def configure(
    application: Callable[..., Any], limits: Limits, *, graceful_seconds: int
) -> uvicorn.Config:
    """Return the server's configuration; open requests have ``graceful_seconds`` at its end."""
    return uvicorn.Config(
        application,
        http=type("Protocol", (ImpatientProtocol,), {"limits": limits}),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=graceful_seconds,
        ws="none",
        server_header=False,
        proxy_headers=False,  # the client's address is not used
    )


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a listening socket and its URL; port 0 is any free one. Raise ``PortError``."""
    listener = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    return listener, f"http://{name}:{listener.getsockname()[1]}"


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
