"""What a gateway logs, and what collect and curate make of it."""

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from components.store import warehouse
from tests.support import gateways, logs, receivers, small_disk
from tests.support.gateways import RunningGateway, script
from tests.support.scripted_engine import ANSWER

CHAT = "/v1/chat/completions"
CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'
SLOW = script(say="one two three four five six seven eight", delay=0.3)


def stream_and_leave(
    gateway: RunningGateway, content: str, bytes_to_read: int = 200, **more: Any
) -> None:
    """Ask for a stream, read its beginning, and close the connection."""
    messages = [{"role": "user", "content": content}]
    request = {"model": "support", "messages": messages, "stream": True, **more}
    body = json.dumps(request).encode()
    with receivers.connected(gateway.url) as client:
        client.sendall(receivers.head(gateway.token, len(body), CHAT) + body)
        received = b""
        while len(received) < bytes_to_read:
            received += client.recv(4096)


def until(is_right: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not is_right():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def message_of(record: dict[str, Any]) -> dict[str, Any]:
    return record["response"]["choices"][0]["message"]


def test_a_record_is_what_was_asked_and_answered(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": "Grüße \U0001f30d\u0000"}],
            "user": "ann",
            "metadata": {"conversation_id": "c-1"},
        }
        answer = gateway.post("/v1/chat/completions", json=body, headers={"traceparent": trace})
        unnamed = {**body, "metadata": {"conversation_id": ""}, "user": ""}
        gateway.post("/v1/chat/completions", json=unnamed, headers={"x-conversation-id": ""})
        gateway.stop()
        record, other = gateway.records()
    assert not other.keys() & {"conversation_id", "user_id"}  # all that have none are not one
    assert record["request"] == body
    assert record["response"] == answer.json()
    assert (record["workload_id"], record["client_id"]) == ("support", "app")
    assert (record["user_id"], record["conversation_id"]) == ("ann", "c-1")
    assert record["traceparent"] == trace
    assert record["finish"] == "stop"
    assert record["served"].pop("ttft_ms") <= record["duration_ms"]
    assert record["served"] == {
        "version": "7", "adapter": "0123456789abcdef", "sha256": "ab" * 32, "epoch": 3,
        "engine": "vllm", "replica": "one", "arm": "champion",
    }  # fmt: skip


def test_a_streamed_answer_is_logged_as_a_whole_one(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        content = script(say=f"I look.\n{CALL}")
        stream = gateway.openai.chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": content}],
            tools=[logs.WEATHER],  # type: ignore[list-item]
            stream=True,
        )
        chunks = list(stream)
        gateway.stop()
        (record,) = gateway.records()
    assert record["finish"] == "tool_calls"
    assert record["response"]["id"] == chunks[0].id
    assert message_of(record)["content"] == "I look."
    (call,) = message_of(record)["tool_calls"]
    (sent,) = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or []]
    assert (call["id"], call["function"]["name"]) == (sent.id, "weather")


def test_an_answer_that_is_not_to_be_stored_is_not(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        answer = gateway.ask(store=False)
        feedback = {"response_id": answer.json()["id"], "kind": "thumb", "value": "up"}
        refused = gateway.post("/v1/feedback", json=feedback)
        stream_and_leave(gateway, SLOW.replace("<<", "x <<"), 100)
        assert gateway.ask(store=True).status_code == 200
        gateway.stop()
        stored = gateway.records()
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "response_not_stored")
    assert sorted(record["finish"] for record in stored) == ["client_gone", "stop"]


def test_a_stream_that_is_not_to_be_stored_leaves_nothing(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        assert gateway.ask(stream=True, store=False).text.endswith("data: [DONE]\n\n")
        stream_and_leave(gateway, SLOW, store=False)
        until(lambda: gateway.seen()["cancelled"] == 1)
        gateway.ask(script(say="one two three", cut=2), stream=True, store=False)
        gateway.stop()
        assert gateway.records() == []


def test_the_end_of_an_answer_is_on_the_disk_when_it_is_seen(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        seen = [gateway.ask(f"question {number}").json()["id"] for number in range(20)]
        gateway.kill()
        stored = [record["response"]["id"] for record in gateway.records()]
    assert stored == seen


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_a_client_that_goes_away_leaves_a_partial_record(tmp_path: Path, is_streamed: bool):
    with gateways.running(tmp_path) as gateway:
        if is_streamed:
            stream_and_leave(gateway, SLOW)
        else:
            with pytest.raises(httpx.ReadTimeout):
                body = {"model": "support", "messages": [{"role": "user", "content": SLOW}]}
                header = {"authorization": f"Bearer {gateway.token}"}
                httpx.post(
                    f"{gateway.url}/v1/chat/completions", json=body, headers=header, timeout=0.7
                )
        until(lambda: gateway.seen()["cancelled"] == 1)
        gateway.stop()
        (record,) = gateway.records()
    assert record["finish"] == "client_gone"
    assert record["response"]["choices"][0]["finish_reason"] == "client_gone"
    content = message_of(record)["content"]
    assert content != "one two three four five six seven eight"
    assert content.startswith("one" if is_streamed else "")


def test_a_cut_stream_ends_with_an_error_and_a_partial_record(tmp_path: Path):
    with gateways.running(tmp_path, engines=("one", "two")) as gateway:
        stream = gateway.openai.chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": script(say="one two three four", cut=2)}],
            stream=True,
        )
        texts: list[str] = []
        with pytest.raises(openai.APIError):
            texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
        gateway.stop()
        (record,) = gateway.records()
    assert record["finish"] == "upstream_cut"
    assert message_of(record)["content"] == "one two"


def test_a_reader_that_stops_reading_is_cut_and_recorded(tmp_path: Path):
    settings = {"limits": {"max_tokens": 100}}
    with gateways.running(tmp_path, settings, limits={"write_seconds": 0.5}) as gateway:
        body = json.dumps(
            {
                "model": "support",
                "messages": [{"role": "user", "content": script(say="word " * 60_000)}],
                "stream": True,
            }
        ).encode()
        address = urlsplit(gateway.url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((address.hostname, address.port))
            client.sendall(receivers.head(gateway.token, len(body), CHAT) + body)
            gone = 'partial_answers_total{finish="client_gone",workload="support"} 1.0'
            until(lambda: gone in gateway.get("/metrics").text, 30)
            gateway.stop()
        (record,) = gateway.records()
    assert record["finish"] == "client_gone"


def test_a_gateway_that_ends_finishes_its_answers(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        stream = gateway.openai.chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": script(say="one two three", delay=0.2)}],
            stream=True,
        )
        first = next(stream)
        gateway.process.terminate()
        rest = [chunk.choices[0].delta.content or "" for chunk in stream]
        gateway.process.join(20)
        assert gateway.process.exitcode == 0
        (record,) = gateway.records()
    assert (first.choices[0].delta.content or "") + "".join(rest) == "one two three"
    assert record["finish"] == "stop"


def test_answers_that_are_cut_at_the_end_of_a_gateway_are_recorded(tmp_path: Path):
    slow = script(say="word " * 100, delay=0.2)
    with gateways.running(tmp_path, shutdown_seconds=1) as gateway:
        with ThreadPoolExecutor(8) as clients:
            streams = [clients.submit(gateway.ask, slow, stream=True) for _ in range(8)]
            until(lambda: len(gateway.seen()["requests"]) == 8)
            time.sleep(0.5)
            gateway.stop()
        assert all(isinstance(stream.exception(), httpx.HTTPError) for stream in streams)
        records = gateway.records()
    assert [record["finish"] for record in records] == ["upstream_cut"] * 8
    assert all(message_of(record)["content"].startswith("word") for record in records)


@pytest.mark.slow
def test_a_disk_that_fills_in_the_middle_of_a_stream_ends_it_with_an_error(tmp_path: Path):
    with small_disk.mounted(tmp_path / "spool", "256k") as disk:
        with gateways.running(tmp_path) as gateway:
            assert gateway.ask("first").status_code == 200
            header = {"authorization": f"Bearer {gateway.token}"}
            body = {"model": "support", "stream": True,
                    "messages": [{"role": "user", "content": "x" * 20_000 + SLOW}]}  # fmt: skip
            url = f"{gateway.url}/v1/chat/completions"
            with httpx.stream("POST", url, json=body, headers=header, timeout=20) as stream:
                lines = stream.iter_lines()
                first = next(lines)
                ballast = small_disk.fill(disk)
                rest = "\n".join(lines)
            refused = gateway.ask("second")
            ballast.unlink()
            until(lambda: gateway.ask("third").status_code == 200)
            gateway.stop()
        questions = [record["request"]["messages"][0]["content"] for record in gateway.records()]
    assert '"content":"one"' in first
    assert "No space left" in rest
    assert "[DONE]" not in rest
    assert refused.status_code == 503
    assert questions == ["first", "third"]


@pytest.mark.slow
def test_a_record_of_ten_megabytes_is_logged_and_collected(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        content = "ä" * 1_900_000 + script(say="word " * 30_000)
        answer = gateway.ask(content, logprobs=True, top_logprobs=2, stream=True)
        gateway.stop()
        (record,) = gateway.records()
    assert len(json.dumps(record, ensure_ascii=False).encode()) > 9_000_000
    assert answer.text.endswith("data: [DONE]\n\n")
    with warehouse.connect(tmp_path / "warehouse.duckdb") as con:
        logs.load_spool(con, tmp_path / "spool", now=datetime.now(UTC))
        counts = con.execute(
            "select (select count(*) from raw.interactions), (select count(*) from raw.quarantine)"
        )
        assert counts.fetchall() == [(1, 0)]


def test_with_a_full_spool_nothing_is_generated(tmp_path: Path):
    with gateways.running(tmp_path, limits={"spooled_bytes": 1}) as gateway:
        assert gateway.ask("first").status_code == 200
        full = "flywheel_serve_can_log 0.0"
        receivers.until(lambda: gateway.get("/metrics").text, lambda page: full in page)
        refused = gateway.ask(script(say="never"))
        assert refused.status_code == 503
        assert "wait for `flywheel collect`" in refused.json()["error"]["message"]
        assert gateway.seen()["requests"] == []
        assert gateway.ask(script(say="not stored"), store=False).status_code == 200
        assert gateway.get("/readyz").status_code == 503
        assert gateway.get("/healthz").status_code == 200, "a restart would end such answers"


@pytest.mark.slow
def test_best_effort_answers_without_a_log_and_counts_it(tmp_path: Path):
    settings = {"logging": "best_effort"}
    with gateways.running(tmp_path, settings, limits={"spooled_bytes": 1}) as gateway:
        assert gateway.ask("first").status_code == 200
        time.sleep(2.5)
        assert gateway.ask("second").status_code == 200
        assert gateway.get("/readyz").status_code == gateway.get("/healthz").status_code == 200
        page = gateway.get("/metrics").text
    line = 'flywheel_serve_unlogged_answers_total{reason="no_room",workload="support"} 1.0'
    assert line in page


def test_collect_loads_all_records_and_partial_ones_count_nowhere(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        whole = [gateway.ask(f"question {number}").json()["id"] for number in range(3)]
        gateway.ask("question 0")  # again: another interaction
        gateway.post("/v1/completions", json={"model": "support", "prompt": "Once"})
        gateway.post("/v1/responses", json={"model": "support", "input": "Oslo?"})
        stream_and_leave(gateway, SLOW)
        feedback = {"response_id": whole[0], "kind": "thumb", "value": "up"}
        assert gateway.post("/v1/feedback", json=feedback).status_code == 200
        until(lambda: gateway.seen()["cancelled"] == 1)
        gateway.stop()
    with warehouse.connect(tmp_path / "warehouse.duckdb") as con:
        loaded = logs.load_spool(con, tmp_path / "spool", now=datetime.now(UTC))
        (quarantined,) = con.execute("select count(*) from raw.quarantine").fetchall()[0]
        (rows,) = con.execute("select count(*) from raw.interactions").fetchall()[0]
        since = datetime(2026, 1, 1, tzinfo=UTC)
        days = warehouse.select(con, "marts/live_days", workload_id="support", since=since)
        latency = warehouse.select(con, "marts/live_latency", workload_id="support", since=since)
    assert loaded is not None
    assert (quarantined, rows) == (0, 7)
    (day,) = days
    assert (day["model_name"], day["requests"], day["up"]) == ("support@7", 6, 1)
    assert (day["served"], day["fallbacks"]) == (6, 0)
    assert [row["timed"] for row in latency] == [6]
