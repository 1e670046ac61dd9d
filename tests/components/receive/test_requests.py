"""A receiver's answers, and its spool after them."""

import gzip
import json

import httpx
import pytest

from components.schema import Json
from tests.support import logs
from tests.support.receivers import Receiver

KIB = 2**10


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
    flat = [record for each in records for record in (each if isinstance(each, list) else [each])]
    assert flat == [logs.interaction()] * count


def test_a_record_without_a_client_gets_the_tokens_owner(receiver: Receiver):
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


@pytest.mark.parametrize("path", ["/v1/interactions", "/v1/feedback", "/v1/traces", "/v1/logs"])
@pytest.mark.parametrize(
    "header",
    [
        pytest.param({}, id="none"),
        pytest.param({"authorization": "Bearer wrong"}, id="wrong"),
        pytest.param({"authorization": "Bearer fw_00000000_wrong"}, id="unknown-id"),
        pytest.param({"authorization": "Basic YXBwOmFwcA=="}, id="another-scheme"),
    ],
)
def test_requests_without_a_valid_token_are_refused(
    shared: Receiver, path: str, header: dict[str, str]
):
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
            "the body is empty, expected a JSON object, an array, or one a line",
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
            json.dumps([logs.interaction(), {**logs.interaction(), "served": {"arm": "champion"}}])
            .replace("served", "\\u0073erved")
            .encode(),
            422,
            "record 2 has the key served, by which the gateway says which version answered; send "
            "it under another name",
            id="an-answer-of-the-gateways",
        ),
        pytest.param(
            "interactions",
            json.dumps([logs.interaction(), 7]).encode(),
            422,
            "record 2 is a number, expected an object",
            id="number",
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
def test_bodies_that_could_never_be_loaded_are_refused_with_the_reason(
    shared: Receiver, path: str, body: bytes, status: int, reason: str
):
    answer = shared.post(f"/v1/{path}", content=body)
    assert (answer.status_code, answer.json()) == (status, {"detail": reason})


def test_a_body_that_is_not_utf8_is_refused(shared: Receiver):
    answer = shared.post("/v1/feedback", content=b'{"timestamp": 1, "actor_id": "\xff"}')
    reason = "the body is not JSON: invalid unicode code point at line 1 column 3"
    assert answer.status_code == 400
    assert answer.json()["detail"][:-1] == reason  # pydantic's versions differ in the last digit


def test_a_body_with_one_bad_record_is_refused_whole(receiver: Receiver):
    lines: list[Json] = [logs.interaction(), {"no": "record"}]
    assert receiver.post("/v1/interactions", json=lines).status_code == 422
    receiver.stop()
    assert receiver.stored() == []


@pytest.mark.parametrize(
    ("encoding", "body", "status", "reason"),
    [
        pytest.param(
            "br", b"{}", 415, "the content encoding is br, expected gzip or none", id="br"
        ),
        pytest.param(
            "gzip",
            b"{}",
            400,
            "the body is not a gzip stream: Error -3 while decompressing data: incorrect header "
            "check",
            id="plain",
        ),
        pytest.param(
            "gzip",
            gzip.compress(b"{}")[:-4],
            400,
            "the body is a gzip stream that ends early",
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


@pytest.mark.slow
def test_a_body_of_20_mb_is_refused_and_the_connection_stays_open(shared: Receiver):
    big = json.dumps(logs.interaction("x" * 20_000_000)).encode()
    with httpx.Client(headers={"authorization": f"Bearer {shared.token}"}) as client:
        for content in (big, iter([big])):  # with its length in the head, and in chunks
            answer = client.post(shared.url + "/v1/interactions", content=content, timeout=20)
            assert answer.status_code == 413
            assert "expected at most 16777216" in answer.json()["detail"]
            small = client.post(shared.url + "/v1/interactions", json=logs.interaction())
            assert small.status_code == 200


def test_a_gzip_bomb_is_refused(shared: Receiver):
    bomb = gzip.compress(bytes(100 * 2**20))
    answer = shared.post("/v1/interactions", content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert "more than 16777216 bytes unpacked" in answer.json()["detail"]


def test_metrics_count_acknowledged_and_refused_requests(receiver: Receiver):
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
        "/v1/logs",
        "/healthz",
        "/metrics",
    }
    taken = page["paths"]["/v1/interactions"]["post"]
    assert {"200", "401", "413", "429", "503"} <= taken["responses"].keys()
    assert page["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "Swagger" in shared.get("/docs").text
