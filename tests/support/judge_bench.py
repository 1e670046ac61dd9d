"""A judge on a real local endpoint, which decides as a test tells it to."""

import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

from components.evaluate.answer_judge import JudgeSettings

Decide = Callable[[str, str], str]
"""Gives a reply to the first and the second answer."""

PART = r"<{0} (\w+)>\n(.*)\n</{0} \1>"


@dataclass
class Judge:
    """An endpoint; ``states`` are given before it answers, one a request, ``bare`` instead.

    Questions with the text ``filtered`` are refused, and those with a parameter of ``unknown``. It
    answers each ``answered``-th one, and finds that the others are too many, and all that come in
    the ``busy_seconds`` after the first."""

    decide: Decide
    key: str | None = None
    states: list[int] = field(default_factory=list[int])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    bare: bytes | None = None
    filtered: str = ""
    filter_status: int = 400
    unknown: tuple[str, ...] = ()
    answered: int = 1
    busy_seconds: float = 0.0
    count: int = 0
    began: float = math.inf
    port: int = 0

    @property
    def settings(self) -> JudgeSettings:
        return JudgeSettings(model="big", base_url=f"http://127.0.0.1:{self.port}/v1")

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            self.count += 1
            self.began = min(self.began, time.monotonic())
            is_busy = time.monotonic() < self.began + self.busy_seconds
            if is_busy or self.count % self.answered:
                return Response(status_code=429, headers={"Retry-After": "0"})
            if self.states:
                return Response(status_code=self.states.pop(0), headers={"Retry-After": "0"})
            if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
                return Response(status_code=401)
            body = await request.json()
            if refused := [name for name in self.unknown if name in body]:
                fault = {"code": "unsupported_parameter", "param": refused[0], "message": "No."}
                return Response(json.dumps({"error": fault}), status_code=400)
            self.asked.append(body)
            text = body["messages"][1]["content"]
            first, second = (
                found[2]
                for name in ("first", "second")
                if (found := re.search(PART.format(name), text, re.DOTALL))
            )
            if self.filtered and self.filtered in text:
                body = b'{"error": {"code": "content_filter"}}'
                return Response(body, self.filter_status, headers={"Retry-After": "0"})
            if self.bare is not None:
                return Response(self.bare, headers={"Retry-After": "0"})
            return Response(reply(self.decide(first, second)))

        return app


def reply(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@contextmanager
def serving(judge: Judge) -> Generator[Judge]:
    listener = socket.create_server(("127.0.0.1", 0))
    judge.port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(judge.app(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield judge
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def longer(first: str, second: str) -> str:
    """Find the longer answer better."""
    if len(first) == len(second):
        return "TIE"
    return "FIRST" if len(first) > len(second) else "SECOND"
