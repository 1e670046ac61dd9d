import base64
import json

import pytest

from components.collect.source import ParsedRecord, RejectedRecord
from components.extensions.sources import mlflow_traces
from components.schema import Json
from tests.support import logs
from tests.support.source_reading import read, reason, record

QUESTION: Json = {"role": "user", "content": "What is the weather in Rome?"}


def span(number: int = 1, **changes: Json) -> dict[str, Json]:
    """Return a span of a chat model; ``changes`` are attributes without their prefix."""
    attributes: dict[str, Json] = {
        "spanType": "CHAT_MODEL",
        "spanInputs": {"model": "gpt-4o-mini", "messages": [QUESTION]},
        "spanOutputs": {
            "id": f"r{number}",
            "choices": [{"index": 0, "message": logs.say("Sunny.")}],
        },
    }
    attribute_texts: Json = {
        f"mlflow.{key}": json.dumps(value) for key, value in (attributes | changes).items()
    }
    return {
        "trace_id": "vsKrXyjhWHB+MBcqTSQ9aw==",
        "span_id": base64.b64encode(bytes([number] * 8)).decode(),
        "parent_span_id": None,
        "name": "chat",
        "start_time_unix_nano": 1_760_000_000_250_000_000,
        "attributes": attribute_texts,
    }


def trace(*spans: Json, assessments: list[Json] | None = None) -> dict[str, Json]:
    """Return a trace in its dictionary form."""
    info: Json = {
        "trace_id": "tr-1",
        "request_time": "2025-10-09T08:53:20Z",
        "trace_metadata": {},
        "tags": {"mlflow.traceName": "turn"},
        "assessments": assessments or [],
    }
    return {"info": info, "data": {"spans": [*spans]}}


def assessment(**changes: Json) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "assessment_id": "a-1",
        "assessment_name": "thumbs_up",
        "source": {"source_type": "HUMAN", "source_id": "ann"},
        "create_time": "2025-10-09T09:00:00Z",
        "feedback": {"value": True},
        "valid": True,
    }
    return fields | changes


def test_a_chat_span_is_an_interaction_field_by_field():
    assert record(mlflow_traces, trace(span())) == {
        "timestamp": 1_760_000_000.25,
        "workload_id": "support",
        "client_id": "shop",
        "request": {"messages": [QUESTION], "model": "gpt-4o-mini"},
        "response": {
            "id": "r1",
            "choices": [{"index": 0, "message": logs.say("Sunny.")}],
        },
        "trace_id": "tr-1",
    }


def test_plain_text_input_and_output_are_request_and_answer_with_the_spans_id():
    row = trace(span(7, spanType="LLM", spanInputs="Rome?", spanOutputs="Sunny."))
    converted = record(mlflow_traces, row)
    assert converted["request"] == {"messages": [{"role": "user", "content": "Rome?"}]}
    assert converted["response"] == {
        "id": "07" * 8,
        "choices": [{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}],
    }


def test_a_trace_is_cut_into_parts_that_read_the_same_again():
    row = trace(span(1), span(2), span(3, spanType="TOOL"), assessments=[assessment()])
    first, second, thumb = read(mlflow_traces, row)
    assert isinstance(second, ParsedRecord)
    assert isinstance(thumb, ParsedRecord)
    assert record(mlflow_traces, json.loads(second.row.text)) == second.record
    assert second.record != first.record if isinstance(first, ParsedRecord) else False
    again = read(mlflow_traces, json.loads(thumb.row.text))
    assert [outcome.record for outcome in again if isinstance(outcome, ParsedRecord)] == [
        second.record,
        thumb.record,
    ]


def test_a_bad_call_is_refused_and_its_neighbours_are_read():
    good, bad, broken = read(
        mlflow_traces,
        trace(
            span(1),
            span(2, spanInputs={"messages": [{"content": "Rome?"}]}),
            assessments=[assessment(feedback={"error": {"error_code": "X"}})],
        ),
    )
    assert isinstance(good, ParsedRecord)
    assert isinstance(bad, RejectedRecord)
    assert isinstance(broken, RejectedRecord)
    assert bad.reason == (
        "`data.spans[1].attributes.mlflow.spanInputs.messages[0].role` is missing, expected text"
    )
    assert broken.reason == (
        "`info.assessments[0].feedback.value` is missing, expected a boolean, number or text"
    )
    assert json.loads(bad.row.text)["data"]["spans"][0]["name"] == "chat"


@pytest.mark.parametrize(
    ("changes", "kind", "value"),
    [
        pytest.param(
            {"assessment_name": "grade", "feedback": {"value": "good"}},
            "outcome",
            {"name": "grade", "value": "good"},
            id="text",
        ),
        pytest.param(
            {"assessment_name": "expected_facts", "expectation": {"value": ["sun"]}},
            "outcome",
            {"name": "expected_facts", "value": '["sun"]'},
            id="facts",
        ),
        pytest.param(
            {"assessment_name": "expected_response", "expectation": {"value": logs.say("Sun.")}},
            "correction",
            logs.say("Sun."),
            id="expected-message",
        ),
    ],
)
def test_assessments_have_their_kind(changes: dict[str, Json], kind: str, value: Json):
    _, converted = read(mlflow_traces, trace(span(), assessments=[assessment(**changes)]))
    assert isinstance(converted, ParsedRecord)
    assert (converted.record["kind"], converted.record["value"]) == (kind, value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"info": {"trace_id": "t"}, "data": {"spans": 3}},
            "`data.spans` is a number, expected an array",
            id="spans",
        ),
        pytest.param(
            trace(span(spanType="TOOL")),
            "`data.spans[].attributes.mlflow.spanType` is missing, expected CHAT_MODEL or LLM",
            id="no-call",
        ),
        pytest.param(
            trace(span() | {"start_time_unix_nano": "soon"}),
            "`data.spans[0].start_time_unix_nano` is text, expected nanoseconds as digits",
            id="time",
        ),
        pytest.param(
            trace(span(spanOutputs=None)),
            "`data.spans[0].attributes.mlflow.spanOutputs` is empty, expected messages or text",
            id="no-output",
        ),
    ],
)
def test_a_trace_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], expected: str
):
    assert reason(mlflow_traces, row) == expected


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        pytest.param(1_760_000_001_000_000_000, 750.0, id="later"),
        pytest.param(None, None, id="not-ended"),
        pytest.param("soon", None, id="no-time"),
        pytest.param(1_760_000_000_000_000_000, None, id="before-it-began"),
    ],
)
def test_a_call_has_the_duration_of_its_span(ended: Json, expected: float | None):
    converted = record(mlflow_traces, trace(span() | {"end_time_unix_nano": ended}))
    assert converted.get("duration_ms") == expected


@pytest.mark.parametrize(
    ("system", "content"),
    [
        pytest.param("Be brief.", "Be brief.", id="text"),
        pytest.param(
            [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "Be brief.",
            id="block",
        ),
        pytest.param(
            [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
            [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
            id="blocks",
        ),
    ],
)
def test_a_system_prompt_beside_the_messages_is_their_first(system: Json, content: Json):
    question: Json = {"role": "user", "content": "Hello?"}
    inputs: Json = {"model": "claude", "system": system, "messages": [question]}
    call = record(mlflow_traces, trace(span(1, spanInputs=inputs)))
    assert call["request"] == {
        "model": "claude",
        "messages": [{"role": "system", "content": content}, question],
    }
