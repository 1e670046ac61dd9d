"""Receivers as tests run them: a process of its own, real HTTP, limits of the test's choice."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from components.receive import client_tokens
from components.receive.settings import Limits
from components.store import spool

T = TypeVar("T")

LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass
class Receiver:
    """A running receiver with a client called ``app``."""

    process: "subprocess.Popen[str]"
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
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

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


def head(token: str, length: int) -> bytes:
    """Write the head of a request by hand."""
    return (
        "POST /v1/interactions HTTP/1.1\r\nhost: receiver\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def connected(receiver: Receiver) -> socket.socket:
    """Open a connection to write to by hand."""
    address = urlsplit(receiver.url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


@contextmanager
def running(home: Path, limits: Limits | None = None) -> Generator[Receiver]:
    """Run a receiver of the spool in ``home`` and end it with the block."""
    limits = limits or Limits()
    file = home / "tokens.json"
    token = client_tokens.add_token(file, "app", now=datetime.now(UTC))
    process = subprocess.Popen(
        [sys.executable, LAUNCHER, home / "spool", file, limits.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the receiver ended before it listened"
        receiver = Receiver(process, url, token, home / "spool")
        assert receiver.get("/healthz").is_success  # its spool exists from now on
        yield receiver
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
