"""An engine that answers at once: ``python -m tests.benchmarks.fast_engine PORT``.

It has vLLM's `/v1/completions`, and `/v1/chat/completions` for other gateways, always with the
same call; a stream has ``CHUNKS`` chunks, ``GAP_SECONDS`` apart. What it costs is subtracted by
asking it directly as well.
"""

import asyncio
import json
import sys
from typing import Any, cast

import httptools
import uvloop

CHUNKS = 16
GAP_SECONDS = 0.004
MODEL = "tool-calls.v1-0123456789ab"
ANSWER = '{"name": "count_calories", "arguments": {"food": "banana", "grams": 120}}'


def completion(text: str, finish: str | None, usage: bool) -> bytes:
    body: dict[str, Any] = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None}],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 120, "completion_tokens": 24, "total_tokens": 144}
    return json.dumps(body).encode()


def response(body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def chat_answer(piece: dict[str, Any], finish: str | None, usage: bool) -> bytes:
    is_whole = "role" in piece and finish is not None
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion" if is_whole else "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [
            {"index": 0, "message" if is_whole else "delta": piece, "finish_reason": finish}
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 120, "completion_tokens": 24, "total_tokens": 144}
    return json.dumps(body).encode()


def chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def stream(pieces: list[bytes]) -> list[bytes]:
    return [*map(chunk, pieces[:-1]), chunk(pieces[-1]) + chunk(b"[DONE]") + b"0\r\n\r\n"]


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORDS = [f"word{n} " for n in range(CHUNKS - 1)]
FUNCTION = json.loads(ANSWER)
FUNCTION["arguments"] = json.dumps(FUNCTION["arguments"])
CALL = {"id": "call_1", "type": "function", "function": FUNCTION}
MESSAGE = {"role": "assistant", "content": None, "tool_calls": [CALL]}

WHOLE = {
    False: response(completion(ANSWER, "stop", usage=True)),
    True: response(chat_answer(MESSAGE, "tool_calls", usage=True)),
}
EVENTS = {
    False: stream(
        [
            *(completion(word, None, usage=False) for word in WORDS),
            completion(".", "stop", usage=True),
        ]
    ),
    True: stream(
        [
            *(chat_answer({"content": word}, None, usage=False) for word in WORDS),
            chat_answer({"content": "."}, "stop", usage=True),
        ]
    ),
}
"""Whole answers, and the events of streams, by whether chats were asked for."""


class Protocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_url(self, url: bytes) -> None:
        self.is_chat = b"chat" in url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if b'"stream":true' in self.body.replace(b": ", b":"):
            self.transport.write(HEAD)
            self.send(0)
        else:
            self.transport.write(WHOLE[self.is_chat])

    def send(self, number: int) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(EVENTS[self.is_chat][number])
        if number + 1 < CHUNKS:
            asyncio.get_running_loop().call_later(GAP_SECONDS, self.send, number + 1)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
