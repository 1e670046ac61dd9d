"""Clients that never finish, and too many clients."""

import json
import socket
import time
from collections.abc import Generator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from components.receive import client_tokens
from components.receive.settings import Limits
from tests.support import logs, receivers
from tests.support.receivers import Receiver

PATIENCE = 0.5


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    limits = Limits(request_seconds=PATIENCE, connections=4)
    with receivers.running(tmp_path_factory.mktemp("receiver"), limits) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def other_token(receiver: Receiver) -> str:
    file = receiver.folder.parent / "tokens.json"
    return client_tokens.add_token(file, "other", now=datetime.now(UTC))


def rest_of(connection: socket.socket) -> bytes:
    """Read until the receiver closes."""
    parts: list[bytes] = []
    while part := connection.recv(4096):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"POST /v1/inter", id="cut-in-the-head"),
        pytest.param(b"HEAD", id="cut-after-the-head"),
        pytest.param(b"BODY", id="cut-in-the-body"),
    ],
)
def test_an_endless_request_is_cut_off(receiver: Receiver, begun: bytes):
    head = receivers.head(receiver.token, 1000)
    sent = {b"HEAD": head, b"BODY": head + b'{"timestamp"'}.get(begun, begun)
    with receivers.connected(receiver.url) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        answer = rest_of(connection)
        assert PATIENCE / 2 < time.monotonic() - began < 10 * PATIENCE
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def assert_accepted(connection: socket.socket) -> None:
    """Read an answer to its end: head and body may come one after the other."""
    answer = b""
    while not answer.endswith(b'{"accepted":1}'):
        more = connection.recv(4096)
        assert more, answer
        answer += more
    assert b"200 OK" in answer


def test_slow_bytes_do_not_extend_the_deadline(receiver: Receiver):
    with receivers.connected(receiver.url) as connection:
        connection.sendall(receivers.head(receiver.token, 1000))
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 20:
                connection.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() - began < 10 * PATIENCE


def test_a_refused_body_is_not_read_indefinitely(receiver: Receiver):
    with receivers.connected(receiver.url) as connection:
        connection.sendall(receivers.head("nobody", 10**9) + b"x" * 1000)
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert answer.count(b"HTTP/1.1") == 1


def test_the_second_request_of_a_connection_has_a_deadline_too(receiver: Receiver):
    body = json.dumps(logs.interaction()).encode()
    with receivers.connected(receiver.url) as connection:
        connection.sendall(receivers.head(receiver.token, len(body)) + body)
        assert_accepted(connection)
        time.sleep(2 * PATIENCE)  # an idle connection is not a slow one
        connection.sendall(receivers.head(receiver.token, len(body)) + body[:50])
        assert rest_of(connection).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_other_clients_are_served_meanwhile(receiver: Receiver):
    with receivers.connected(receiver.url) as slow:
        slow.sendall(receivers.head(receiver.token, 1000))
        assert receiver.post("/v1/interactions", json=logs.interaction()).status_code == 200


def test_connections_above_the_limit_displace_those_that_ask_nothing(receiver: Receiver):
    body = json.dumps(logs.interaction()).encode()
    with receivers.connected(receiver.url) as used:
        used.sendall(receivers.head(receiver.token, len(body)) + body)
        assert_accepted(used)
        crowd = [receivers.connected(receiver.url) for _ in range(8)]
        assert receiver.post("/v1/interactions", json=logs.interaction()).status_code == 200
        used.sendall(receivers.head(receiver.token, len(body)) + body)
        assert_accepted(used)
    for connection in crowd:
        connection.close()


def crowd_of(receiver: Receiver, *tokens: str) -> list[socket.socket]:
    """Open connections whose requests never end."""
    crowd = [receivers.connected(receiver.url) for _ in tokens]
    for connection, token in zip(crowd, tokens, strict=True):
        connection.sendall(receivers.head(token, 1000))
    time.sleep(PATIENCE / 5)
    return crowd


def test_a_connection_above_the_limit_of_busy_ones_is_refused_with_a_retry_time(
    receiver: Receiver, other_token: str
):
    crowd = crowd_of(receiver, *[receiver.token, other_token] * 2)
    with receivers.connected(receiver.url) as late:
        answer = rest_of(late)
    for connection in crowd:
        connection.close()
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in answer


def test_no_client_has_all_connections_with_requests_that_never_end(
    receiver: Receiver, other_token: str
):
    crowd = crowd_of(receiver, *[receiver.token] * 4)
    body = json.dumps(logs.interaction()).encode()
    with receivers.connected(receiver.url) as other:
        other.sendall(receivers.head(other_token, len(body)) + body)
        assert_accepted(other)
    answers = b"".join(map(rest_of, crowd))
    assert answers.count(b"HTTP/1.1 429 Too Many Requests\r\n") == 2
    assert answers.count(b"HTTP/1.1 408 Request Timeout\r\n") >= 2


def test_trailers_are_no_headers(receiver: Receiver):
    head, authorization, rest = receivers.head(receiver.token, 2).partition(b"authorization")
    token, _, _ = rest.partition(b"\r\n")
    with receivers.connected(receiver.url) as connection:
        connection.sendall(
            head
            + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
            + authorization
            + token
            + b"\r\n\r\n"
        )
        assert b"401 Unauthorized" in connection.recv(4096)


def test_a_request_with_two_authorizations_is_refused(receiver: Receiver):
    head = receivers.head(receiver.token, 2).removesuffix(b"\r\n")
    with receivers.connected(receiver.url) as connection:
        connection.sendall(head + b"Authorization: Bearer another\r\n\r\n{}")
        assert b"400 Bad Request" in connection.recv(4096)


@pytest.mark.parametrize("begun", ["POST /v1/interactions HTTP/1.1\r\n", "CHUNKED"])
def test_an_endless_head_is_refused(receiver: Receiver, begun: str):
    chunked = receivers.head(receiver.token, 1).replace(
        b"content-length: 1\r\n", b"transfer-encoding: chunked\r\n"
    )
    lines = b"".join(b"x%d: y\r\n" % n for n in range(20_000))
    with receivers.connected(receiver.url) as connection:
        connection.sendall(chunked + b"0\r\n" if begun == "CHUNKED" else begun.encode())
        with suppress(ConnectionError):
            connection.sendall(lines)
        with suppress(ConnectionResetError):
            assert b"431 Request Header Fields Too Large" in rest_of(connection)
    assert receiver.get("/healthz").status_code == 200
