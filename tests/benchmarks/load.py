"""Send a log to a receiver over many connections: ``load.py URL TOKEN FILE SECONDS CONNECTIONS``.

Each connection sends one line a request and the next one when it is answered. Written on asyncio's
protocols, so that the generator takes less of the machine than what it measures. Prints one JSON
object: seconds, latencies in milliseconds, and the numbers of the lines that were acknowledged.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Sent:
    """What was sent: seconds of it all, latencies in milliseconds, the acknowledged lines."""

    seconds: float
    p50: float
    p99: float
    worst: float
    refused: int
    acknowledged: list[int]


class Connection(asyncio.Protocol):
    """Sends and waits in turn, until the lines or the time are used up, or the server is gone."""

    def __init__(self, head: bytes, lines: Iterator[tuple[int, bytes]], ends_at: float) -> None:
        self._head = head
        self._lines = lines
        self._ends_at = ends_at
        self._received = b""
        self.ended = asyncio.get_running_loop().create_future()
        self.acknowledged: list[int] = []
        self.latencies: list[float] = []
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first line."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take an answer, once it is whole, and send the next line."""
        self._received += data
        if not self._received.endswith(b"}"):
            return
        if self._received.startswith(b"HTTP/1.1 200 "):
            self.acknowledged.append(self._number)
            self.latencies.append(time.perf_counter() - self._sent_at)
        else:
            self.refused += 1
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """End with what was acknowledged."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        number, line = next(self._lines, (0, b""))
        if not number or self._sent_at >= self._ends_at:
            self._transport.close()
            return
        self._number = number
        self._transport.write(self._head + b"content-length: %d\r\n\r\n" % len(line) + line)


async def load(url: str, token: str, file: Path, seconds: float, count: int) -> Sent:
    """Send for so long; say what came of it."""
    address = urlsplit(url)
    head = (
        f"POST /v1/interactions HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    ).encode()
    lines = iter(list(enumerate(file.read_bytes().splitlines(), start=1)))
    loop = asyncio.get_running_loop()
    host, port = address.hostname, address.port
    assert host is not None
    assert port is not None
    began = time.perf_counter()
    ends_at = began + seconds
    connections = [
        (await loop.create_connection(lambda: Connection(head, lines, ends_at), host, port))[1]
        for _ in range(count)
    ]
    await asyncio.gather(*(each.ended for each in connections))
    took = time.perf_counter() - began
    latencies = sorted(one for each in connections for one in each.latencies)
    return Sent(
        seconds=took,
        p50=1000 * latencies[len(latencies) // 2],
        p99=1000 * latencies[len(latencies) * 99 // 100],
        worst=1000 * latencies[-1],
        refused=sum(each.refused for each in connections),
        acknowledged=[number for each in connections for number in each.acknowledged],
    )


if __name__ == "__main__":
    _, url, token, file, seconds, count = sys.argv
    found = asyncio.run(load(url, token, Path(file), float(seconds), int(count)))
    sys.stdout.write(json.dumps(asdict(found)))
