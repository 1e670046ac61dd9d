"""A receiver without room refuses requests and says when to retry."""

from pathlib import Path

import httpx
import pytest

from components.receive import client_tokens
from components.receive.settings import Limits
from tests.support import logs, receivers
from tests.support.receivers import Receiver

KIB = 2**10


def test_one_client_may_not_hold_more_than_its_share(tmp_path: Path):
    with receivers.running(tmp_path, Limits(held_bytes=64 * KIB)) as receiver:
        answer = receiver.post("/v1/interactions", json=logs.interaction("x" * 40 * KIB))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert receiver.post("/v1/interactions", json=logs.interaction()).status_code == 200


def test_a_request_is_refused_while_others_hold_the_memory(tmp_path: Path):
    limits = Limits(held_bytes=64 * KIB, client_share=1)
    with receivers.running(tmp_path, limits) as receiver:
        other = client_tokens.add_token(tmp_path / "tokens.json", "other", now=logs.NOW)
        with receivers.connected(receiver.url) as slow:
            slow.sendall(receivers.head(other, 50 * KIB) + b"x" * 40 * KIB)
            line = logs.interaction("x" * 40 * KIB)
            answer = receivers.until(
                lambda: receiver.post("/v1/interactions", json=line),
                lambda answer: answer.status_code != 200,
            )
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "of 65536" in answer.json()["detail"]
        receivers.until(
            lambda: receiver.post("/v1/interactions", json=line),
            lambda answer: answer.status_code == 200,
        )


@pytest.mark.slow
def test_a_full_spool_refuses_all_requests_until_it_is_loaded(tmp_path: Path):
    limits = Limits(spooled_bytes=1, segment_seconds=0.2)
    with receivers.running(tmp_path, limits) as receiver:
        assert receiver.post("/v1/interactions", json=logs.interaction()).status_code == 200
        answer = receivers.until(
            lambda: receiver.post("/v1/feedback", json=logs.feedback()),
            lambda answer: answer.status_code != 200,
        )
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "bytes wait for `flywheel collect`" in answer.json()["detail"]
        assert receiver.get("/healthz").status_code == 503

        def load_and_ask() -> httpx.Response:
            for segment in receiver.folder.glob("*.segment"):
                segment.unlink()  # as collect does once the rows are committed
            return receiver.post("/v1/feedback", json=logs.feedback())

        receivers.until(load_and_ask, lambda answer: answer.status_code == 200)


def test_nothing_is_acknowledged_while_the_spool_can_not_be_written(receiver: Receiver):
    assert receiver.get("/healthz").status_code == 200
    receiver.folder.rename(receiver.folder.with_name("away"))
    answer = receiver.post("/v1/interactions", json=logs.interaction())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "No such file or directory" in answer.json()["detail"]
    health = receiver.get("/healthz")
    assert (health.status_code, health.json()["status"]) == (503, "failing")
    receiver.folder.mkdir()
    assert receiver.post("/v1/interactions", json=logs.interaction()).status_code == 200
    assert receiver.get("/healthz").status_code == 200
