"""Whatever ends or delays another server's answer: slots, memory and other clients' answers."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from components.receive import client_tokens
from tests.support import fake_production, forking, gateways
from tests.support.gateways import RunningGateway, script

MIB = 2**20
CHATS = "/v1/chat/completions"


@dataclass
class Production:
    """A production model's server."""

    url: str
    pid: int

    def seen(self) -> dict[str, Any]:
        seen: dict[str, Any] = httpx.get(f"{self.url}/requests", timeout=30).json()
        return seen

    @contextmanager
    def hanging(self) -> Generator[None]:
        """Neither read nor write for the block."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    with forking.server(True, fake_production.serve) as (process, url):
        assert process.pid is not None
        yield Production(url, process.pid)


@contextmanager
def running(
    home: Path, production: Production, *, urls: dict[str, str] | None = None, **limits: float
) -> Generator[RunningGateway]:
    """Run a gateway where ``support`` has a champion, and production answers ``fresh``."""
    server = {"url": f"{production.url}/v1", "model": "gpt-x"}
    settings = {"workloads": {"fresh": {"fallbacks": [server]}}, "limits": limits}
    engines = () if urls else ("one",)
    with gateways.running(home, settings, engines=engines, urls=urls) as gateway:
        yield gateway


def open_requests(gateway: RunningGateway) -> int:
    page = httpx.get(f"{gateway.url}/metrics", timeout=30).text
    return int(float(page.split("\nflywheel_serve_open_requests ")[1].split("\n")[0]))


def wait_until_idle(gateway: RunningGateway) -> None:
    until = time.monotonic() + 10
    while open_requests(gateway):
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def measured(gateway: RunningGateway) -> Generator[list[float]]:
    """Yield by how many MiB the gateway has grown at most."""
    process, is_over = psutil.Process(gateway.process.pid), threading.Event()
    before, grown = process.memory_info().rss, [0.0]

    def measure() -> None:
        while not is_over.wait(0.05):
            grown[0] = max(grown[0], (process.memory_info().rss - before) / MIB)

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield grown
    finally:
        is_over.set()
        thread.join()


def client(gateway: RunningGateway, token: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {token}"}
    # To load certificates would take the processor from the gateway.
    return httpx.Client(base_url=gateway.url, headers=headers, timeout=60, verify=False)


def others_wait(gateway: RunningGateway, seconds: float) -> list[float]:
    """Ask the champion for so long; return the seconds of each answer."""
    body = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}
    with client(gateway, gateway.token) as http:
        waits, until = list[float](), time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            answer = http.post(CHATS, json=body)
            assert answer.status_code == 200, answer.text
            waits.append(time.monotonic() - began)
            time.sleep(0.05)
    return waits


def tokens(gateway: RunningGateway, count: int) -> list[str]:
    file, now = gateway.home / "tokens.json", datetime.now(UTC)
    return [client_tokens.add_token(file, f"large-{n}", now=now) for n in range(count)]


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_production_that_hangs_before_its_headers_is_504_and_the_slot_is_free(
    tmp_path: Path, production: Production, is_streamed: bool
):
    before = production.seen()["cancelled"]
    with running(tmp_path, production, answer_seconds=0.5) as gateway:
        answer = gateway.ask(script(wait=60), model="fresh", stream=is_streamed)
        assert answer.status_code == 504
        assert "took more than 0.5 seconds" in answer.json()["error"]["message"]
        wait_until_idle(gateway)
        assert production.seen()["cancelled"] == before + 1
        gateway.stop()
        assert gateway.records() == []


def test_production_that_hangs_in_a_stream_ends_it_with_an_error_and_the_slot_is_free(
    tmp_path: Path, production: Production
):
    with running(tmp_path, production, answer_seconds=0.5) as gateway:
        answer = gateway.ask(script(delay=60), model="fresh", stream=True)
        *_, last = [line for line in answer.text.splitlines() if line]
        assert answer.status_code == 200
        assert "took more than 0.5 seconds" in json.loads(last[6:])["error"]["message"]
        wait_until_idle(gateway)
        gateway.stop()
        (record,) = gateway.records()
        assert record["finish"] == "upstream_cut"


def test_production_that_stops_reading_is_504_and_the_slot_is_free(
    tmp_path: Path, production: Production
):
    with running(tmp_path, production, answer_seconds=1) as gateway:
        assert gateway.ask(model="fresh").status_code == 200
        with production.hanging():
            answer = gateway.ask("x" * 16 * MIB, model="fresh")
            assert answer.status_code == 504
            wait_until_idle(gateway)
        assert gateway.ask(model="fresh").status_code == 200


@pytest.mark.slow
def test_a_gateway_killed_in_relayed_streams_keeps_what_was_seen_whole_and_serves_again(
    tmp_path: Path, production: Production
):
    whole, begun = dict[str, str](), set[str]()

    def converse(gateway: RunningGateway, delay: float) -> None:
        body: dict[str, object] = {"model": "fresh", "stream": True}
        body["messages"] = [{"role": "user", "content": script(delay=delay, pieces=20)}]
        with client(gateway, gateway.token) as http:
            try:
                while True:
                    read(http, body)
            except httpx.TransportError:
                return  # it was killed

    def read(http: httpx.Client, body: Any) -> None:
        with http.stream("POST", CHATS, json=body) as answer:
            assert answer.status_code == 200
            answer_id, text = answer.headers["x-request-id"], ""
            begun.add(answer_id)
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    whole[answer_id] = text
                elif line:
                    chunk = json.loads(line[6:])
                    assert chunk["id"] == answer_id
                    text += "".join(each["delta"].get("content", "") for each in chunk["choices"])

    with gateways.scripted_engine("one") as engine, ThreadPoolExecutor(12) as threads:
        for _ in range(5):
            with running(tmp_path, production, urls={"one": engine}) as gateway:
                assert gateway.ask(model="fresh").status_code == 200
                clients = [threads.submit(converse, gateway, 0.001 + 0.01 * n) for n in range(12)]
                time.sleep(1)
                gateway.kill()
                for each in clients:
                    each.result()
    stored = gateways.records(tmp_path)
    assert max(Counter(record["response"]["id"] for record in stored).values()) == 1
    finished = {each["response"]["id"]: each["response"]["choices"][0] for each in stored}
    assert whole.keys() <= finished.keys()
    for answer_id, text in whole.items():
        assert finished[answer_id]["finish_reason"] == "stop"
        assert finished[answer_id]["message"]["content"] == text
    assert {record["finish"] for record in stored} == {"stop"}
    assert len(whole) > 50
    assert len(begun - finished.keys()) > 10
    until = time.monotonic() + 10
    asked = production.seen()
    while asked["open"] and time.monotonic() < until:
        time.sleep(0.1)
        asked = production.seen()
    assert asked["open"] == 0


@pytest.mark.slow
def test_clients_that_read_slowly_fill_no_memory_and_delay_nobody(
    tmp_path: Path, production: Production
):
    body: dict[str, object] = {"model": "fresh", "stream": True}
    body["messages"] = [{"role": "user", "content": script(pieces=400, pad=2**16)}]

    def read_slowly(gateway: RunningGateway, token: str) -> None:
        try:
            with (
                client(gateway, token) as http,
                http.stream("POST", CHATS, json=body) as answer,
            ):
                for _ in answer.iter_raw():
                    time.sleep(0.5)
        except httpx.TransportError:
            return  # its time was over

    with (
        running(tmp_path, production, answer_seconds=8) as gateway,
        ThreadPoolExecutor(24) as threads,
    ):
        gateway.ask(model="fresh")
        with measured(gateway) as grown:
            for token in tokens(gateway, 24):
                threads.submit(read_slowly, gateway, token)
            waits = others_wait(gateway, 6)
        print(f"{grown[0]:.0f} MiB, {max(waits):.3f} s")  # noqa: T201 - figures
        assert grown[0] < 256
        assert max(waits) < 2
        threads.shutdown()
        wait_until_idle(gateway)
        assert gateway.ask(model="fresh").status_code == 200


@pytest.mark.slow
def test_large_bodies_for_a_production_that_hangs_fill_no_memory_and_delay_nobody(
    tmp_path: Path, production: Production
):
    content = json.dumps(
        {"model": "fresh", "messages": [{"role": "user", "content": "x" * 4_100_000}]}
    ).encode()

    until = time.monotonic() + 7

    def ask(gateway: RunningGateway, token: str) -> set[int]:
        statuses = set[int]()
        with client(gateway, token) as http:
            while time.monotonic() < until:
                statuses.add(http.post(CHATS, content=content).status_code)
        return statuses

    with (
        running(tmp_path, production, answer_seconds=8) as gateway,
        ThreadPoolExecutor(64) as threads,
    ):
        gateway.ask(model="fresh")
        with production.hanging(), measured(gateway) as grown:
            asked = [threads.submit(ask, gateway, token) for token in tokens(gateway, 64)]
            waits = others_wait(gateway, 6)
            statuses = Counter(status for each in asked for status in each.result())
        print(f"{grown[0]:.0f} MiB, {max(waits):.3f} s, {statuses}")  # noqa: T201 - figures
        assert statuses.keys() == {503, 504}
        assert grown[0] < 512
        assert max(waits) < 2
        wait_until_idle(gateway)
        assert gateway.ask("x" * 4 * MIB, model="fresh").status_code == 200
