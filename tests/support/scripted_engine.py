"""A fast fake of an engine's HTTP API, whose answers are scripted by the prompt.

A prompt may hold a script, ``<<{"say": "text"}>>``: ``say`` (the answer; the prompt itself if left
out), ``delay`` (seconds between two pieces), ``wait`` (seconds before the first), ``status`` and
``message`` (an error), ``retry_after`` (its header), ``only`` (the replicas that follow the
script), ``cut`` (closes after so many pieces), ``finish``, ``logprobs``, ``models`` (what differs
by the model's name). Without a script the answer is ``ANSWER``.
"""

import asyncio
import json
import re
from contextlib import suppress
from typing import Any, ClassVar, cast

import httptools
import orjson
import uvloop

from tests.support.forking import Ready

ANSWER = "It is dry in Oslo, and will stay so."
SCRIPT = re.compile(r"<<(\{.*?\})>>", re.DOTALL)
PIECES = re.compile(r"\S+\s*|\s+")
HEAD = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\n"


class Engine(asyncio.Protocol):
    """One connection."""

    name = "engine"
    requests: ClassVar[list[dict[str, Any]]] = []
    cancelled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        self.task: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None and not self.task.done():
            type(self).cancelled += 1
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body, self.path, self.headers = b"", "", {}

    def on_url(self, url: bytes) -> None:
        self.path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.path == "/v1/completions":
            self.complete(orjson.loads(self.body))
        elif self.path == "/v1/chat/completions":
            self.chat(orjson.loads(self.body))
        elif self.path == "/requests":
            self.send(200, {"requests": self.requests, "cancelled": self.cancelled})
        else:
            self.send(200, {"data": []})

    def send(self, status: int, value: object, retry_after: object = None) -> None:
        body = orjson.dumps(value)
        head = HEAD % (status, b"application/json")
        if retry_after is not None:
            head += f"retry-after: {retry_after}\r\n".encode()
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)

    def complete(self, body: dict[str, Any]) -> None:
        prompt = body["prompt"]
        script = self.script_of(prompt)
        script |= script.pop("models", {}).get(body["model"], {})
        if "<<" in prompt:
            self.requests.append({"path": self.path, "headers": self.headers, "body": body})
            del self.requests[:-200]
        if status := script.get("status"):
            message = script.get("message", "scripted")
            error = {"error": {"message": message, "type": "x", "code": status}}
            self.send(status, error, script.get("retry_after"))
            return
        answer = script.get("say", prompt if script.get("echo") else ANSWER)
        finish = script.get("finish", "stop")
        if not body.get("stream") and not script:
            self.send(200, self.whole(body, answer, finish))
            return
        self.task = asyncio.get_running_loop().create_task(
            self.play(body, script, PIECES.findall(answer) or [""], finish)
        )

    def script_of(self, prompt: str) -> dict[str, Any]:
        match = SCRIPT.search(prompt)
        script: dict[str, Any] = json.loads(match[1]) if match else {}
        return script if self.name in script.get("only", [self.name]) else {}

    def whole(self, body: dict[str, Any], answer: str, finish: str) -> dict[str, Any]:
        count = len(PIECES.findall(answer))
        return {
            "id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "text": answer, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count},
        }  # fmt: skip

    async def play(
        self, body: dict[str, Any], script: dict[str, Any], pieces: list[str], finish: str
    ) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(script.get("wait", 0))
            if not body.get("stream"):
                await asyncio.sleep(script.get("delay", 0) * len(pieces))
                if "cut" in script:
                    self.transport.close()
                    return
                self.send(200, self.whole(body, "".join(pieces), finish))
                return
            self.transport.write(
                HEAD % (200, b"text/event-stream") + b"transfer-encoding: chunked\r\n\r\n"
            )
            for number, piece in enumerate(pieces):
                if number == script.get("cut"):
                    self.transport.close()
                    return
                choice: dict[str, Any] = {"index": 0, "text": piece, "finish_reason": None}
                if body.get("logprobs") is not None:
                    # As vLLM does: the token itself comes on top of the most probable ones.
                    likely = [("x", -0.25), (piece, -0.5)][: body["logprobs"]]
                    choice["logprobs"] = {
                        "tokens": [piece], "token_logprobs": [-0.5],
                        "top_logprobs": [{piece: -0.5} | dict(likely)],
                    }  # fmt: skip
                self.event({"model": body["model"], "choices": [choice]})
                if script.get("delay"):
                    await asyncio.sleep(script["delay"])
            end = {"index": 0, "text": "", "finish_reason": finish}
            usage = self.whole(body, "".join(pieces), finish)["usage"]
            self.event({"model": body["model"], "choices": [end]})
            self.event({"model": body["model"], "choices": [], "usage": usage})
            self.chunk(b"data: [DONE]\n\n")
            self.transport.write(b"0\r\n\r\n")

    def chat(self, body: dict[str, Any]) -> None:
        """Answer as another OpenAI-compatible server, with its own name of the model."""
        self.requests.append({"path": self.path, "headers": self.headers, "body": body})
        model = self.name if "@" in self.name else f"{body['model']}-2026"
        call = {"name": "weather", "arguments": '{"city": "Rome"}'}
        message: dict[str, Any] = {"role": "assistant", "content": "The teacher says: dry."}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        if body.get("tools"):
            message |= {
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": call}],
            }
        finish = "tool_calls" if body.get("tools") else "stop"
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": finish}
            self.send(200, {"id": "x", "model": model, "choices": [choice], "usage": usage})
            return
        self.transport.write(
            HEAD % (200, b"text/event-stream") + b"transfer-encoding: chunked\r\n\r\n"
        )
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model}
        deltas: list[dict[str, Any]] = [{"role": "assistant"}]
        if body.get("tools"):
            call_head = {"index": 0, "id": "c1", "type": "function"}
            deltas += [
                {"tool_calls": [{**call_head, "function": {"name": "weather", "arguments": ""}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]},
            ]
        else:
            deltas += [{"content": word} for word in PIECES.findall(message["content"])]
        for delta in deltas:
            self.event({**head, "choices": [{"index": 0, "delta": delta}]})
        self.event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        self.event({**head, "choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    def event(self, value: object) -> None:
        self.chunk(b"data: " + orjson.dumps(value) + b"\n\n")

    def chunk(self, content: bytes) -> None:
        self.transport.write(b"%x\r\n" % len(content) + content + b"\r\n")


def serve(ready: Ready, name: str) -> None:
    """Listen on a free port, say the URL, and serve until it is killed."""
    uvloop.run(_serve(ready, name))


async def _serve(ready: Ready, name: str) -> None:
    Engine.name = name
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0)
    ready(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()
