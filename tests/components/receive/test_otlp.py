"""OTLP/HTTP: ``/v1/traces`` and ``/v1/logs``."""

import base64
import gzip
import json

import pytest

from components.schema import Json
from tests.support import spans
from tests.support.receivers import Receiver

KIB = 2**10


@pytest.mark.parametrize("body", [spans.request_json(), {}], ids=["span", "none"])
def test_otlp_json_is_answered_in_json(shared: Receiver, body: Json):
    answer = shared.post("/v1/traces", json=body)
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"


def test_otlp_protobuf_is_answered_in_protobuf_and_stored_unchanged(receiver: Receiver):
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
        pytest.param("[]", "the body is [], expected an object with resourceSpans", id="array"),
        pytest.param(
            '{"resource_spans": []}',
            "the body has resource_spans, expected an object with resourceSpans",
            id="snake-case",
        ),
        pytest.param(
            '{"resourceSpans": {}}', "resourceSpans is {}, expected an array", id="no-array"
        ),
        pytest.param(
            '{"resourceSpans": [{"scopeSpans": [3]}]}',
            "resourceSpans[0].scopeSpans[0] is 3, expected an object",
            id="no-object",
        ),
        pytest.param(
            json.dumps(spans.request_json(traceId="W47/95gDgQPSabYzgT/GDA==")),
            "resourceSpans[0].scopeSpans[0].spans[0].traceId is "
            '"W47/95gDgQPSabYzgT/GDA==", expected 32 hex digits',
            id="base64-id",
        ),
        pytest.param(
            json.dumps(spans.request_json(spanId=None)),
            "resourceSpans[0].scopeSpans[0].spans[0].spanId is missing, expected 16 hex digits",
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
        pytest.param(b"\x0a\xff", b"the body is not an ExportTraceServiceRequest", id="garbage"),
        pytest.param(
            spans.request_protobuf(span_id=b"abc"),
            b"span 1 (chat gpt-5): span_id has 3 bytes, expected 8",
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
        "the content type is text/plain, expected application/json or application/x-protobuf"
    )


SPAN_ID = "eee19b7ec3c1b174"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(spans.logs_json(), id="on-no-span"),
        pytest.param(spans.logs_json(traceId="", spanId=""), id="empty-ids"),
        pytest.param(spans.logs_json(traceId="5B" * 16, spanId=SPAN_ID), id="on-a-span"),
        pytest.param({}, id="none"),
    ],
)
def test_log_records_are_accepted_as_json(shared: Receiver, body: Json):
    answer = shared.post("/v1/logs", json=body)
    assert (answer.status_code, answer.json()) == (200, {})


def test_log_records_are_accepted_as_protobuf_and_stored_unchanged(receiver: Receiver):
    content = spans.logs_protobuf()
    headers = {"content-type": "application/x-protobuf"}
    answer = receiver.post("/v1/logs", content=content, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    receiver.stop()
    (entry,) = receiver.stored()
    assert (entry.kind, entry.client_id) == ("logs", "app")
    assert base64.b64decode(json.loads(entry.body)) == content


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            json.dumps(spans.request_json()),
            "the body has resourceSpans, expected an object with resourceLogs",
            id="spans",
        ),
        pytest.param(
            json.dumps(spans.logs_json(spanId="abc")),
            'resourceLogs[0].scopeLogs[0].logRecords[0].spanId is "abc", expected 16 hex digits',
            id="id",
        ),
        pytest.param(
            '{"resourceLogs": [{"scopeLogs": 3}]}',
            "resourceLogs[0].scopeLogs is 3, expected an array",
            id="no-array",
        ),
    ],
)
def test_malformed_log_records_are_refused_with_the_reason(
    shared: Receiver, body: str, reason: str
):
    headers = {"content-type": "application/json"}
    answer = shared.post("/v1/logs", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"code": 3, "message": reason})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"\x0a\xff", b"the body is not an ExportLogsServiceRequest", id="garbage"),
        pytest.param(
            spans.logs_protobuf(span_id=b"abc"),
            b"log record 1: span_id has 3 bytes, expected 8 or none",
            id="id",
        ),
    ],
)
def test_malformed_log_records_in_protobuf_are_refused(
    shared: Receiver, body: bytes, reason: bytes
):
    headers = {"content-type": "application/x-protobuf"}
    answer = shared.post("/v1/logs", content=body, headers=headers)
    assert answer.status_code == 400
    assert reason in answer.content
