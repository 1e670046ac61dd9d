"""The embedded engine as a process, and a client of its socket."""

import json
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

STARTING_SECONDS = 120


@dataclass
class EngineProcess:
    process: subprocess.Popen[bytes]
    http: httpx.Client
    socket: Path
    log: Path

    def complete(self, model: str, prompt: str | list[int], /, **fields: Any) -> dict[str, Any]:
        """Answer a request; greedy if it doesn't say otherwise."""
        answer = self.http.post(
            "/v1/completions",
            json={"model": model, "prompt": prompt, "temperature": 0} | fields,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, model: str, prompt: str | list[int], /, **fields: Any) -> str:
        return self.complete(model, prompt, **fields)["choices"][0]["text"]

    def refusal(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.http.post(path, content=content)
        return answer.status_code, answer.json()["error"]

    def stream(self, model: str, prompt: str | list[int], /, **fields: Any) -> Generator[Any]:
        """Yield the chunks of a stream; it ends with [DONE] or fails."""
        body = {"model": model, "prompt": prompt, "temperature": 0, "stream": True} | fields
        with self.http.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    return
                if line:
                    yield json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended without [DONE]")

    def load(self, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder)}
        answer = self.http.post("/v1/load_lora_adapter", json=body)
        assert answer.status_code == 200, answer.text

    def metric(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)

    def wait_for(self, name: str, value: float, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.02)


@contextmanager
def running(base: Path, folder: Path, *options: str) -> Generator[EngineProcess]:
    """Run an engine with its socket in ``folder``, until the block's end."""
    socket, log = folder / "engine.sock", folder / "engine.log"
    command = [sys.executable, "-m", "components.extensions.embedded", "--base", str(base)]
    command += ["--listen", f"unix:{socket}", "--name", "base", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    transport = httpx.HTTPTransport(uds=str(socket))
    try:
        with httpx.Client(transport=transport, base_url="http://engine", timeout=600) as client:
            wait_until_ready(process, client, log)
            yield EngineProcess(process, client, socket, log)
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        assert process.poll() is None, f"the engine ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"the engine does not answer: {log.read_text()}"
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
