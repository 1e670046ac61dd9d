"""What a receiver answers, and what is in its spool then."""

import base64
import gzip
import json
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from components.receive import tokens
from components.receive.limits import Limits
from components.schema import Json
from tests import logs
from tests.receive import receivers, spans
from tests.receive.receivers import Receiver

KIB = 2**10


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    with receivers.running(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Generator[Receiver]:
    with receivers.running(tmp_path) as receiver:
        yield receiver


@pytest.mark.parametrize(
    ("body", "count"),
    [
        pytest.param(json.dumps(logs.interaction()), 1, id="one"),
        pytest.param(json.dumps(logs.interaction(), indent=2), 1, id="one-over-several-lines"),
        pytest.param(json.dumps([logs.interaction(), logs.interaction()]), 2, id="array"),
        pytest.param(f"{json.dumps(logs.interaction())}\n\n" * 3, 3, id="one-a-line"),
        pytest.param("[]", 0, id="none"),
    ],
)
def test_interactions_are_acknowledged_with_their_number_and_stored(
    receiver: Receiver, body: str, count: int
):
    answer = receiver.post("/v1/interactions", content=body)
    assert (answer.status_code, answer.json()) == (200, {"accepted": count})
    receiver.stop()
    stored = receiver.stored()
    assert {(entry.kind, entry.client_id) for entry in stored} <= {("interactions", "app")}
    records = [json.loads(entry.body) for entry in stored]
    flat = [one for each in records for one in (each if isinstance(each, list) else [each])]
    assert flat == [logs.interaction()] * count


def test_a_record_without_a_client_is_its_token_owners(receiver: Receiver):
    line = logs.interaction()
    del line["client_id"]
    assert receiver.post("/v1/interactions", json=line).status_code == 200
    receiver.stop()
    (entry,) = receiver.stored()
    assert (entry.client_id, json.loads(entry.body)) == ("app", line)


def test_feedback_is_stored(receiver: Receiver):
    lines = [logs.feedback(), logs.feedback("correction", logs.say("Rainy."))]
    answer = receiver.post("/v1/feedback", json=lines)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    receiver.stop()
    (entry,) = receiver.stored()
    assert (entry.kind, json.loads(entry.body)) == ("feedback", lines)


def test_a_gzipped_body_is_unpacked(receiver: Receiver):
    half = json.dumps(logs.interaction()).encode()
    packed = gzip.compress(half) + gzip.compress(b"\n" + half)
    headers = {"content-encoding": "gzip"}
    answer = receiver.post("/v1/interactions", content=packed, headers=headers)
    assert answer.json() == {"accepted": 2}


@pytest.mark.parametrize("path", ["/v1/interactions", "/v1/feedback", "/v1/traces"])
@pytest.mark.parametrize(
    "header",
    [
        pytest.param({}, id="none"),
        pytest.param({"authorization": "Bearer wrong"}, id="wrong"),
        pytest.param({"authorization": "Bearer fw_00000000_wrong"}, id="unknown-id"),
        pytest.param({"authorization": "Basic YXBwOmFwcA=="}, id="another-scheme"),
    ],
)
def test_without_a_right_token_nobody_may_send(shared: Receiver, path: str, header: dict[str, str]):
    answer = httpx.post(shared.url + path, headers=header, content="{}")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "the bearer token is missing or unknown" in answer.text


def test_a_right_id_with_a_wrong_secret_is_refused(shared: Receiver):
    header = {"authorization": f"Bearer {shared.token[:-1]}"}
    answer = httpx.post(shared.url + "/v1/feedback", headers=header, json=logs.feedback())
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        pytest.param(
            "interactions",
            b" ",
            400,
            "the body is empty, wants a JSON object, an array, or one a line",
            id="empty",
        ),
        pytest.param(
            "interactions",
            b'{"timestamp": 1,',
            400,
            "the body is not JSON: EOF while parsing a value at line 1 column 16",
            id="cut",
        ),
        pytest.param(
            "interactions",
            json.dumps(logs.interaction()).encode() + b"\n{oops",
            400,
            "line 2 is not JSON: key must be a string at line 1 column 2",
            id="second-line",
        ),
        pytest.param(
            "interactions",
            b'{"timestamp": 1, "request": {}}',
            422,
            "the body: missing keys: workload_id, response",
            id="keys",
        ),
        pytest.param(
            "interactions",
            json.dumps([logs.interaction(), 7]).encode(),
            422,
            "record 2 is a number, wants an object",
            id="number",
        ),
        pytest.param(
            "feedback",
            b'{"timestamp": 1, "actor_id": "\xff"}',
            400,
            "the body is not JSON: invalid unicode code point at line 1 column 31",
            id="not-utf8",
        ),
        pytest.param(
            "feedback",
            b'{"timestamp": 1, "workload_id": "w", "actor_id": "a", "kind": "thumb", "value": 1}',
            422,
            "the body: missing keys: response_id or conversation_id or target_id",
            id="no-target",
        ),
    ],
)
def test_what_could_never_be_loaded_is_refused_with_the_reason(
    shared: Receiver, path: str, body: bytes, status: int, reason: str
):
    answer = shared.post(f"/v1/{path}", content=body)
    assert (answer.status_code, answer.json()) == (status, {"detail": reason})


def test_of_a_body_with_one_bad_record_nothing_is_stored(receiver: Receiver):
    lines: list[Json] = [logs.interaction(), {"no": "record"}]
    assert receiver.post("/v1/interactions", json=lines).status_code == 422
    receiver.stop()
    assert receiver.stored() == []


@pytest.mark.parametrize(
    ("encoding", "body", "status", "reason"),
    [
        pytest.param("br", b"{}", 415, "the content encoding is br, wants gzip or none", id="br"),
        pytest.param(
            "gzip",
            b"{}",
            400,
            "the body is no gzip stream: Error -3 while decompressing data: incorrect header check",
            id="plain",
        ),
        pytest.param(
            "gzip",
            gzip.compress(b"{}")[:-4],
            400,
            "the body is a gzip stream that breaks off before its end",
            id="cut",
        ),
    ],
)
def test_a_body_that_can_not_be_unpacked_is_refused(
    shared: Receiver, encoding: str, body: bytes, status: int, reason: str
):
    headers = {"content-encoding": encoding}
    answer = shared.post("/v1/interactions", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (status, {"detail": reason})


def test_a_body_of_20_mb_is_refused_and_the_connection_goes_on(shared: Receiver):
    big = json.dumps(logs.interaction("x" * 20_000_000)).encode()
    with httpx.Client(headers={"authorization": f"Bearer {shared.token}"}) as client:
        for content in (big, iter([big])):  # with its length in the head, and in chunks
            answer = client.post(shared.url + "/v1/interactions", content=content, timeout=20)
            assert answer.status_code == 413
            assert "wants at most 16777216" in answer.json()["detail"]
            small = client.post(shared.url + "/v1/interactions", json=logs.interaction())
            assert small.status_code == 200


def test_a_gzip_bomb_is_refused(shared: Receiver):
    bomb = gzip.compress(bytes(100 * 2**20))
    answer = shared.post("/v1/interactions", content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert "more than 16777216 bytes unpacked" in answer.json()["detail"]


def test_one_client_may_not_hold_more_than_its_share(tmp_path: Path):
    with receivers.running(tmp_path, Limits(held_bytes=64 * KIB)) as receiver:
        answer = receiver.post("/v1/interactions", json=logs.interaction("x" * 40 * KIB))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert receiver.post("/v1/interactions", json=logs.interaction()).status_code == 200


def test_while_others_hold_the_memory_a_request_is_put_off(tmp_path: Path):
    limits = Limits(held_bytes=64 * KIB, client_share=1)
    with receivers.running(tmp_path, limits) as receiver:
        other = tokens.add(tmp_path / "tokens.json", "other", now=logs.NOW)
        with receivers.connected(receiver) as slow:
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


def test_a_full_spool_puts_everything_off_until_it_is_loaded(tmp_path: Path):
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


def test_while_the_spool_can_not_be_written_nothing_is_acknowledged(receiver: Receiver):
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


@pytest.mark.parametrize("body", [spans.request_json(), {}], ids=["span", "none"])
def test_otlp_json_is_answered_in_json(shared: Receiver, body: Json):
    answer = shared.post("/v1/traces", json=body)
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"


def test_otlp_protobuf_is_answered_in_protobuf_and_stored_as_it_came(receiver: Receiver):
    content = spans.request_protobuf()
    headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
    answer = receiver.post("/v1/traces", content=gzip.compress(content), headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-protobuf"
    receiver.stop()
    (entry,) = receiver.stored()
    assert (entry.kind, entry.client_id) == ("traces", "app")
    assert base64.b64decode(json.loads(entry.body)) == content


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            "{", "the body is not JSON: EOF while parsing an object at line 1 column 1", id="cut"
        ),
        pytest.param("[]", "the body is [], wants an object with resourceSpans", id="array"),
        pytest.param(
            '{"resource_spans": []}',
            "the body has resource_spans, wants an object with resourceSpans",
            id="snake-case",
        ),
        pytest.param('{"resourceSpans": {}}', "resourceSpans is {}, wants an array", id="no-array"),
        pytest.param(
            '{"resourceSpans": [{"scopeSpans": [3]}]}',
            "resourceSpans[0].scopeSpans[0] is 3, wants an object",
            id="no-object",
        ),
        pytest.param(
            json.dumps(spans.request_json(traceId="W47/95gDgQPSabYzgT/GDA==")),
            "resourceSpans[0].scopeSpans[0].spans[0].traceId is "
            '"W47/95gDgQPSabYzgT/GDA==", wants 32 hex digits',
            id="base64-id",
        ),
        pytest.param(
            json.dumps(spans.request_json(spanId=None)),
            "resourceSpans[0].scopeSpans[0].spans[0].spanId is missing, wants 16 hex digits",
            id="no-id",
        ),
    ],
)
def test_malformed_otlp_json_is_refused_with_the_reason(shared: Receiver, body: str, reason: str):
    headers = {"content-type": "application/json"}
    answer = shared.post("/v1/traces", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"code": 3, "message": reason})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"\x0a\xff", b"the body is no ExportTraceServiceRequest", id="garbage"),
        pytest.param(
            spans.request_protobuf(span_id=b"abc"),
            b"span 1 (chat gpt-5): span_id has 3 bytes, wants 8",
            id="id",
        ),
    ],
)
def test_malformed_otlp_protobuf_is_refused_with_a_status_message(
    shared: Receiver, body: bytes, reason: bytes
):
    headers = {"content-type": "application/x-protobuf"}
    answer = shared.post("/v1/traces", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert answer.content[:3] == bytes((0x08, 3, 0x12))  # google.rpc.Status: code 3, then message
    assert reason in answer.content


def test_traces_of_another_type_are_refused(shared: Receiver):
    answer = shared.post("/v1/traces", content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.json()["message"] == (
        "the content type is text/plain, wants application/json or application/x-protobuf"
    )


def test_metrics_count_what_was_acknowledged_and_what_was_not(receiver: Receiver):
    receiver.post("/v1/interactions", json=[logs.interaction(), logs.interaction()])
    receiver.post("/v1/interactions", content="oops")
    page = receiver.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=")
    lines = page.text.splitlines()
    counted = 'flywheel_receive_records_total{client_id="app",kind="interactions"} 2.0'
    assert counted in lines
    refused = 'flywheel_receive_answers_total{path="/v1/interactions",status="400"} 1.0'
    assert refused in lines
    assert "flywheel_receive_commit_seconds_count 1.0" in lines


def test_the_openapi_page_describes_each_path(shared: Receiver):
    page = shared.get("/openapi.json").json()
    assert set(page["paths"]) == {
        "/v1/interactions",
        "/v1/feedback",
        "/v1/traces",
        "/healthz",
        "/metrics",
    }
    taken = page["paths"]["/v1/interactions"]["post"]
    assert {"200", "401", "413", "429", "503"} <= taken["responses"].keys()
    assert page["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "Swagger" in shared.get("/docs").text
