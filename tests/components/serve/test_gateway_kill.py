"""A gateway killed under load: what clients saw the end of is in the spool."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support import gateways, receivers
from tests.support.gateways import RunningGateway, script

CLIENTS = 24
LEAVERS = 4


class Seen:
    """What the clients saw: ids of whole answers, and those that clients left."""

    def __init__(self) -> None:
        self.whole: dict[str, str] = {}
        self.left: set[str] = set()


async def lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        content = (await reader.readexactly(size + 2))[:-2]
        if not content:
            return
        for line in content.split(b"\n"):
            if line.startswith(b"data: "):
                yield line.removeprefix(b"data: ")


async def ask(gateway: RunningGateway, number: int, seen: Seen, stop: asyncio.Event) -> None:
    """Ask until the gateway is gone: every other client for streams; some leave in the middle."""
    address = urlsplit(gateway.url)
    turn = 0
    while not stop.is_set():
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            while not stop.is_set():
                turn += 1
                leaves = number < LEAVERS
                is_streamed = leaves or number % 2 == 0
                text = f"client {number} turn {turn} says this and more"
                content = script(say=text, delay=0.01 if leaves else 0.001)
                body = json.dumps(
                    {
                        "model": "support",
                        "messages": [{"role": "user", "content": content}],
                        "stream": is_streamed,
                    }
                ).encode()
                writer.write(
                    receivers.head(gateway.token, len(body), "/v1/chat/completions") + body
                )
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                if not is_streamed:
                    sizes = [line for line in head.split(b"\r\n") if b"content-length" in line]
                    answer = json.loads(await reader.readexactly(int(sizes[0].split(b":")[1])))
                    seen.whole[answer["id"]] = answer["choices"][0]["message"]["content"]
                elif leaves:
                    async for line in lines(reader):
                        seen.left.add(json.loads(line)["id"])
                        break
                    return await leave(gateway, number, seen, stop, writer)
                else:
                    await read_stream(reader, seen)
        finally:
            writer.close()
    return None


async def leave(
    gateway: RunningGateway, number: int, seen: Seen, stop: asyncio.Event, writer: Any
) -> None:
    writer.close()
    await asyncio.sleep(0.1)  # a busy machine's gateway notices it in this time
    await ask(gateway, number, seen, stop)


async def read_stream(reader: asyncio.StreamReader, seen: Seen) -> None:
    parts: list[str] = []
    answer_id = ""
    async for line in lines(reader):
        if line == b"[DONE]":
            seen.whole[answer_id] = "".join(parts)
            continue
        chunk = json.loads(line)
        answer_id = chunk["id"]
        parts += [choice["delta"].get("content") or "" for choice in chunk["choices"]]


async def load_and_kill(gateway: RunningGateway, seconds: float, seen: Seen) -> None:
    stop = asyncio.Event()

    async def client(number: int) -> None:
        try:
            await ask(gateway, number, seen, stop)
        except (OSError, asyncio.IncompleteReadError):
            return  # it was killed

    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    await asyncio.sleep(seconds)
    gateway.kill()
    stop.set()
    await asyncio.gather(*clients)


def kill(home: Path, times: int, seed: int) -> tuple[int, int]:
    """Kill a gateway under load so many times; return how many answers were seen and were left."""
    draw = random.Random(seed)
    seen = Seen()
    with gateways.scripted_engine("one") as engine:
        for _ in range(times):
            with gateways.running(home, engines=(), urls={"one": engine}) as gateway:
                asyncio.run(load_and_kill(gateway, 0.5 + draw.random(), seen))
    stored = {record["response"]["id"]: record for record in gateways.records(home)}
    missing = seen.whole.keys() - stored.keys()
    assert missing == set()
    for answer_id, text in seen.whole.items():
        record = stored[answer_id]
        assert record["finish"] == "stop"
        assert record["response"]["choices"][0]["message"]["content"] == text
    # The last ones of each round may not have been noticed before the kill.
    unnoticed = seen.left - stored.keys()
    assert len(unnoticed) <= times * LEAVERS
    finishes = {stored[answer_id]["finish"] for answer_id in seen.left & stored.keys()}
    assert finishes <= {"client_gone", "stop"}
    partial = [record for record in stored.values() if record["finish"] == "client_gone"]
    assert {record["response"]["id"] for record in partial} <= seen.left
    assert len(partial) > times
    return len(seen.whole), len(seen.left)


def test_no_answer_whose_end_was_seen_is_lost_in_a_kill(tmp_path: Path):
    answers, _ = kill(tmp_path, 2, seed=1)
    assert answers > 50


@pytest.mark.slow
def test_no_answer_is_lost_in_fifty_kills(tmp_path: Path):
    answers, left = kill(tmp_path, 50, seed=2)
    print(f"50 kills: {answers} answers seen, {left} left by their clients")  # noqa: T201 - figures
    assert answers > 5000
