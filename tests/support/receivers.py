"""Receivers as tests run them: a process of its own, real HTTP, limits of the test's choice."""

import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from components.receive import client_tokens
from components.receive.settings import Limits
from components.store import spool
from tests.support import forking, launch_receiver

T = TypeVar("T")


@dataclass
class Receiver:
    """A running receiver with a client called ``app``."""

    process: BaseProcess
    url: str
    token: str
    folder: Path

    def post(self, path: str, **request: object) -> httpx.Response:
        """Send as ``app``."""
        with httpx.Client(headers={"authorization": f"Bearer {self.token}"}) as client:
            return client.post(self.url + path, timeout=20, **request)  # type: ignore[arg-type]

    def get(self, path: str) -> httpx.Response:
        """Ask without a token."""
        return httpx.get(self.url + path, timeout=20)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.join()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        forking.end(self.process)

    def stored(self) -> list[spool.Entry]:
        """Read what it has sealed; it must have ended."""
        entries = [entry for path in spool.sealed(self.folder) for entry in spool.read(path)]
        assert all(isinstance(entry, spool.Entry) for entry in entries), entries
        return [entry for entry in entries if isinstance(entry, spool.Entry)]


def until(ask: Callable[[], T], is_right: Callable[[T], bool], seconds: float = 20) -> T:
    """Ask again and again; fail when the right answer does not come."""
    deadline = time.monotonic() + seconds
    while not is_right(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def head(token: str, length: int, path: str = "/v1/interactions") -> bytes:
    """Write the head of a request by hand."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def connected(url: str) -> socket.socket:
    """Open a connection to write to by hand."""
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


@contextmanager
def running(home: Path, limits: Limits | None = None) -> Generator[Receiver]:
    """Run a receiver of the spool in ``home`` and end it with the block."""
    limits = limits or Limits()
    file = home / "tokens.json"
    token = client_tokens.add_token(file, "app", now=datetime.now(UTC))
    with forking.server(True, launch_receiver.launch, home / "spool", file, limits) as (
        process,
        url,
    ):
        receiver = Receiver(process, url, token, home / "spool")
        assert receiver.get("/healthz").is_success  # its spool exists from now on
        yield receiver
