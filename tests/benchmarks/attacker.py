"""Send a hostile request again and again: ``URL TOKEN ATTACK SIZE SECONDS CONNECTIONS``.

A process of its own, so that what it costs to make and to send the request slows nobody else's
measurement. Prints one JSON object: how many were answered, with which statuses, and the seconds
from the first byte sent to the answer, on average and at most.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from tests.support import attacks
from tests.support.attacks import Request


@dataclass(frozen=True)
class Answered:
    """What came of an attack."""

    count: int
    statuses: dict[str, int]
    mean_seconds: float
    most_seconds: float


async def attack(url: str, token: str, sent: Request, seconds: float, count: int) -> Answered:
    """Send over so many connections, for so long; each sends again once it is answered."""
    address = urlsplit(url)
    headers = {"host": address.netloc, "authorization": f"Bearer {token}", **sent.headers}
    head = f"POST {sent.path} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in headers.items()
    )
    message = f"{head}content-length: {len(sent.content)}\r\n\r\n".encode() + sent.content
    statuses: Counter[str] = Counter()
    took: list[float] = []
    ends_at = time.perf_counter() + seconds

    async def again_and_again() -> None:
        while time.perf_counter() < ends_at:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            began = time.perf_counter()
            writer.write(message)
            statuses[(await reader.readline()).decode().split(" ")[1]] += 1
            took.append(time.perf_counter() - began)
            writer.close()

    await asyncio.gather(*(again_and_again() for _ in range(count)))
    return Answered(len(took), dict(statuses), sum(took) / len(took), max(took))


if __name__ == "__main__":
    _, url, token, name, size, seconds, count = sys.argv
    made = attacks.REQUESTS[name](int(size))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    found = asyncio.run(attack(url, token, made, float(seconds), int(count)))
    sys.stdout.write(json.dumps(asdict(found)))
