"""A stand-in for the production model: an OpenAI-compatible server that answers with references."""

import json
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer

from components.schema import Answer, Json
from components.store import manifest
from flows.demo import traffic
from flows.demo.wheels import BfclRequest

MODEL = "production"
HOST = "127.0.0.1"


def message_of(answer: Answer) -> dict[str, Json]:
    """Return an answer as OpenAI's message."""
    calls: list[Json] = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for place, call in enumerate(answer.calls)
    ]
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    return {**message, "tool_calls": calls} if calls else message


class StandIn:
    """Answers requests by their references; counts tokens as the base's tokenizer does."""

    def __init__(self, requests: Iterable[BfclRequest], base: Path) -> None:
        self._answers = {
            _key([*request.messages], [*request.tools]): traffic.right_answer(request)
            for request in requests
        }
        self._tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))

    def answer(self, body: dict[str, Json]) -> dict[str, Json] | None:
        """Return OpenAI's completion; ``None`` for a request without a reference."""
        messages, tools = body.get("messages"), body.get("tools")
        answer = self._answers.get(_key(messages, tools))
        if answer is None:
            return None
        prompt, completion = self._count([messages, tools]), self._count(message_of(answer))
        return {
            "id": f"chatcmpl-{manifest.digest([messages, tools])}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": message_of(answer),
                    "finish_reason": "tool_calls" if answer.calls else "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }

    def _count(self, content: Json) -> int:
        return len(self._tokenizer.encode(json.dumps(content)).ids)


@contextmanager
def serving(stand_in: StandIn, port: int) -> Generator[str]:
    """Serve in a thread; yield the URL. Port 0 is any free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = cast("dict[str, Json]", json.loads(self.rfile.read(length)))
            answer = stand_in.answer(content)
            missing: dict[str, Json] = {"error": {"message": "this request has no reference"}}
            encoded = json.dumps(answer or missing).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: object) -> None:
            del format, args  # the gateway logs who answered

    server = ThreadingHTTPServer((HOST, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _key(messages: Json, tools: Json) -> str:
    return manifest.digest([messages, tools])
