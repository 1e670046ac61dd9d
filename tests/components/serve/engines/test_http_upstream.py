"""Events of an engine's stream, however its bytes are cut, and what becomes of the connection."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from components.schema import Json
from components.serve.engines import http_upstream
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import Generation, UpstreamError
from components.serve.engines.vllm_server import VllmServer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
STREAM = b'data: {"a": 1}\r\n\r\ndata: {"b": 2}\r\n\r\n'


class Server:
    """Answers each request with the same writes, a moment apart."""

    def __init__(self, writes: list[bytes]) -> None:
        self.connections = 0
        self._writes = writes

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for part in self._writes:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.005)
        except asyncio.IncompleteReadError:
            writer.close()


@asynccontextmanager
async def streaming(*writes: bytes) -> AsyncGenerator[tuple[HttpUpstream, Server]]:
    server = Server([HEAD, *writes])
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    upstream = HttpUpstream(f"http://127.0.0.1:{port}", patience_seconds=5)
    try:
        yield upstream, server
    finally:
        await upstream.close()
        listener.close()


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


async def read(upstream: HttpUpstream) -> list[dict[str, Json]]:
    async with asyncio.timeout(2):
        return [event async for event in upstream.events("/x", {})]


def test_a_connection_is_used_again_after_a_stream():
    async def run() -> int:
        writes = chunk(b'data: {"a": 1}\n\n'), chunk(b"data: [DONE]\n\n"), END
        async with streaming(*writes) as (upstream, server):
            assert [await read(upstream) for _ in range(3)] == [[{"a": 1}]] * 3
            return server.connections

    assert asyncio.run(run()) == 1


def test_a_stream_is_over_with_done_even_if_the_body_never_ends():
    async def run() -> None:
        async with streaming(chunk(b'data: {"a": 1}\n\n'), chunk(b"data: [DONE]\n\n")) as (up, _):
            assert await read(up) == [{"a": 1}]

    asyncio.run(run())


@pytest.mark.parametrize("place", range(1, len(STREAM)))
def test_events_may_be_cut_anywhere(place: int):
    async def run() -> None:
        async with streaming(chunk(STREAM[:place]), chunk(STREAM[place:]), END) as (upstream, _):
            assert await read(upstream) == [{"a": 1}, {"b": 2}]

    asyncio.run(run())


def test_an_event_is_passed_on_before_the_next_one_begins():
    async def run() -> float:
        writes = chunk(b'data: {"a": 1}\r\n\r'), chunk(b"\n"), b""
        async with streaming(*writes) as (upstream, _):
            events = upstream.events("/x", {})
            async with asyncio.timeout(2):
                first = await anext(events)
            await events.aclose()
            return float(str(first["a"]))

    assert asyncio.run(run()) == 1


@asynccontextmanager
async def answering(body: bytes) -> AsyncGenerator[VllmServer]:
    """Run a server that answers every request with this body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server = VllmServer("one", HttpUpstream(f"http://127.0.0.1:{port}"), base="base")
    try:
        yield server
    finally:
        await server.close()
        listener.close()


def test_a_replica_whose_health_is_no_text_ends_no_watch_of_the_others():
    async def run() -> str:
        async with answering(b"\xff\xfe") as server:
            return await server.process_identity()

    assert asyncio.run(run()) == ""


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param({"finish_reason": ["stop"]}, id="reason"),
        pytest.param(
            {"finish_reason": "stop", "logprobs": {"tokens": ["a"], "token_logprobs": []}},
            id="logprobs",
        ),
    ],
)
def test_an_answer_of_another_form_is_the_replicas_failure(choice: dict[str, Json]):
    async def run() -> None:
        event = {"model": "m", "choices": [{"text": "x", **choice}]}
        body = b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"
        async with answering(body) as server:
            with pytest.raises(UpstreamError, match="one: "):
                _ = [piece async for piece in server.complete("m", Generation("a", 1))]

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
def test_a_body_without_an_end_is_an_error_before_it_fills_the_memory(path: str):
    async def run() -> None:
        half = chunk(b" " * (http_upstream.LONGEST_BODY // 2))
        async with streaming(half, half, half, END) as (upstream, _):
            get = upstream.get if path == "/v1/models" else upstream.get_text
            with pytest.raises(UpstreamError, match=f"{path}: the body has more than"):
                await get(path)

    asyncio.run(run())
