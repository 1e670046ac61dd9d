"""Large bodies are read in other processes, so that no client waits for another's."""

import gzip
import json
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path

import httpx
import psutil
import pytest

from components.receive import client_tokens, readers
from components.receive.settings import Limits
from tests.support import logs, receivers, spans
from tests.support.receivers import Receiver

COUNT = 200
LINES = [json.dumps(logs.interaction("x" * 500, response_id=f"r{n}")) for n in range(COUNT)]
LARGE = "\n".join(LINES)
KIB = 2**10


def reading(receiver: Receiver) -> list[psutil.Process]:
    """Return the processes that read large bodies."""
    return psutil.Process(receiver.process.pid).children()


@contextmanager
def standing_still(process: psutil.Process) -> Generator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def sent_by(receiver: Receiver, token: str, content: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.post(
        f"{receiver.url}/v1/interactions", content=content, headers=headers, timeout=60
    )


def test_the_body_is_one_of_the_large():
    assert len(LARGE) > 4 * readers.SMALL_BYTES


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(LARGE, id="one-a-line"),
        pytest.param(f"[{','.join(LINES)}]", id="array"),
        pytest.param("[" + ",\n".join(LINES) + "]\n", id="array-over-several-lines"),
    ],
)
def test_a_large_body_is_acknowledged_and_stored(receiver: Receiver, body: str):
    answer = receiver.post("/v1/interactions", content=body)
    assert (answer.status_code, answer.json()) == (200, {"accepted": COUNT})
    receiver.stop()
    (entry,) = receiver.stored()
    assert json.loads(entry.body) == [json.loads(line) for line in LINES]


def test_large_telemetry_is_acknowledged_and_stored(receiver: Receiver):
    request = spans.request_json(name="x" * 100 * KIB)
    assert receiver.post("/v1/traces", json=request).status_code == 200
    receiver.stop()
    (entry,) = receiver.stored()
    assert (entry.kind, json.loads(entry.body)) == ("traces", request)


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        pytest.param(
            "interactions", f"{LARGE}\n{{", 400, f"line {COUNT + 1} is not JSON", id="end"
        ),
        pytest.param(
            "interactions", f"{LARGE}\n1", 422, f"line {COUNT + 1} is a number", id="kind"
        ),
        pytest.param("feedback", LARGE, 422, "line 1: missing keys: actor_id", id="keys"),
        pytest.param("traces", LARGE, 415, "expected application/json or", id="type"),
    ],
)
def test_a_large_body_is_refused_with_the_reason(
    shared: Receiver, path: str, body: str, status: int, reason: str
):
    answer = shared.post(f"/v1/{path}", content=body)
    assert answer.status_code == status
    assert reason in answer.text


def test_a_large_body_of_another_workload_is_refused(receiver: Receiver, tmp_path: Path):
    token = client_tokens.add_token(
        tmp_path / "tokens.json", "app", now=logs.NOW, workloads=("support",)
    )
    answer = sent_by(receiver, token, LARGE)
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith('record 1 is of the workload "weather"')


def test_no_client_waits_for_another_clients_bodies(receiver: Receiver, tmp_path: Path):
    other = client_tokens.add_token(tmp_path / "tokens.json", "other", now=logs.NOW)
    assert receiver.post("/v1/interactions", content=LARGE).is_success
    (process,) = reading(receiver)
    with ThreadPoolExecutor() as threads:
        with standing_still(process):
            waiting = [
                threads.submit(receiver.post, "/v1/interactions", content=LARGE) for _ in range(3)
            ]
            receivers.until(lambda: held_bytes(receiver), lambda held: held >= 3 * len(LARGE))
            assert receiver.post("/v1/interactions", content=LINES[0]).is_success
            assert sent_by(receiver, other, LINES[0]).is_success
            assert sent_by(receiver, other, LARGE).is_success
            assert not any(answer.done() for answer in waiting)
        assert all(answer.result().is_success for answer in waiting)
    assert len(reading(receiver)) == 2


def held_bytes(receiver: Receiver) -> float:
    page = receiver.get("/metrics").text
    (line,) = (row for row in page.splitlines() if row.startswith("flywheel_receive_held_bytes "))
    return float(line.split()[1])


def test_a_killed_reader_costs_only_the_request_it_was_reading(receiver: Receiver):
    assert receiver.post("/v1/interactions", content=LARGE).is_success
    (process,) = reading(receiver)
    process.suspend()
    with receivers.connected(receiver.url) as client:
        client.sendall(receivers.head(receiver.token, len(LARGE)) + LARGE.encode())
        for _ in range(20):  # turns of the receiver's loop, in which it hands the body on
            assert receiver.get("/healthz").is_success
        process.kill()
        answer = HTTPResponse(client)
        answer.begin()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert b"the process that read the body of" in answer.read()
    assert receiver.post("/v1/interactions", content=f"{LARGE}\n{LINES[0]}").is_success
    receiver.stop()
    assert len(receiver.stored()) == 2


@pytest.mark.slow
def test_a_reader_that_is_killed_while_it_waits_costs_no_request(receiver: Receiver):
    assert receiver.post("/v1/interactions", content=LARGE).is_success
    (idle,) = reading(receiver)
    idle.kill()
    psutil.wait_procs([idle], timeout=20)
    assert receiver.post("/v1/interactions", content=f"{LARGE}\n{LINES[0]}").is_success
    (idle,) = reading(receiver)
    idle.kill()
    receiver.stop()
    assert len(receiver.stored()) == 2


@pytest.mark.slow
def test_readers_end_with_their_receiver_however_it_ends(tmp_path: Path):
    for end in (Receiver.kill, Receiver.stop):
        with receivers.running(tmp_path) as receiver:
            assert receiver.post("/v1/interactions", content=LARGE).is_success
            (process,) = reading(receiver)
            end(receiver)
        _, left = psutil.wait_procs([process], timeout=20)
        assert not left


def test_a_client_that_sends_everything_before_reading_gets_the_refusal_and_may_continue(
    tmp_path: Path,
):
    with receivers.running(tmp_path, Limits(body_bytes=64 * KIB)) as receiver:
        line = LINES[0].encode()
        with receivers.connected(receiver.url) as connection:
            connection.sendall(receivers.head(receiver.token, 2**20) + b"x" * 2**20)
            connection.sendall(receivers.head(receiver.token, len(line)) + line)
            answers = b""
            while not answers.endswith(b'{"accepted":1}'):
                part = connection.recv(4096)
                assert part, answers
                answers += part
    assert answers.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(False, id="plain", marks=pytest.mark.slow),
        pytest.param(True, id="gzip"),
    ],
)
def test_a_client_is_received_at_its_pace_on_all_its_connections(tmp_path: Path, packed: bool):
    line = json.dumps(logs.interaction("x" * 2**20)).encode()
    content = gzip.compress(line) if packed else line
    headers = {"content-encoding": "gzip"} if packed else {}

    def send(receiver: Receiver) -> httpx.Response:
        return receiver.post("/v1/interactions", content=content, headers=headers)

    with receivers.running(tmp_path, Limits(large_bytes_per_second=2**20)) as receiver:
        began = time.monotonic()
        with ThreadPoolExecutor() as threads:
            sent = [threads.submit(send, receiver) for _ in range(2)]
            assert all(answer.result().is_success for answer in sent)
        assert time.monotonic() - began > 1.5
