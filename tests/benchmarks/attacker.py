"""Send messages again and again: ``URL FILE SECONDS CONNECTIONS PAUSE``.

A process of its own, so that what it costs to send slows nobody else's measurement; the file has
the messages, pickled. Prints one JSON object: how many were answered, with which statuses, and the
seconds from the first byte sent to the answer's first line.
"""

import asyncio
import itertools
import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

NUMBER = b"nth-000000"
"""Where it stands in a message, each that is sent has another number."""


@dataclass(frozen=True)
class Answered:
    """What came of an attack; all 0 if nothing was answered."""

    count: int
    statuses: dict[str, int]
    mean_seconds: float
    p50_seconds: float
    p99_seconds: float
    most_seconds: float


def message(url: str, path: str, token: str, content: bytes, headers: Mapping[str, str]) -> bytes:
    """Write a request as it is sent."""
    headers = {"host": urlsplit(url).netloc, "authorization": f"Bearer {token}", **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in headers.items()
    )
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def start(
    url: str,
    messages: Sequence[bytes],
    file: Path,
    seconds: float,
    connections: int,
    pause: float = 0.0,
) -> "subprocess.Popen[str]":
    """Start to send in a process, by way of a file; return it once it sends."""
    file.write_bytes(pickle.dumps(messages))
    command = [sys.executable, "-m", __name__, url, file, seconds, connections, pause]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def answered(process: "subprocess.Popen[str]") -> Answered:
    """Wait until a process has sent for as long as it was to; return what came of it."""
    return Answered(**json.loads(process.communicate()[0]))


async def attack(
    url: str, messages: Sequence[bytes], seconds: float, connections: int, pause: float
) -> Answered:
    """Send the messages in turn for so long, or until the server is gone.

    Each connection sends again, so many seconds after it is answered.
    """
    address = urlsplit(url)
    statuses: Counter[str] = Counter()
    took: list[float] = []
    numbers = itertools.count()
    ends_at = time.perf_counter() + seconds

    async def again_and_again() -> None:
        while time.perf_counter() < ends_at:
            number = next(numbers)
            sent = messages[number % len(messages)].replace(NUMBER, b"nth-%06d" % number)
            try:
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                began = time.perf_counter()
                writer.write(sent)
                line = await reader.readline()
            except ConnectionError:
                return
            if not line:
                return
            statuses[line.decode().split(" ")[1]] += 1
            took.append(time.perf_counter() - began)
            writer.close()
            await asyncio.sleep(pause)

    await asyncio.gather(*(again_and_again() for _ in range(connections)))
    took = sorted(took) or [0.0]
    p50, p99 = (took[len(took) * n // 100] for n in (50, 99))
    return Answered(statuses.total(), dict(statuses), sum(took) / len(took), p50, p99, took[-1])


if __name__ == "__main__":
    _, url, file, seconds, connections, pause = sys.argv
    messages = pickle.loads(Path(file).read_bytes())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    work = attack(url, messages, float(seconds), int(connections), float(pause))
    sys.stdout.write(json.dumps(asdict(asyncio.run(work))))
