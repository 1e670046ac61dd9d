import json
from pathlib import Path

import pytest

from components.collect.source import Defaults, Input
from components.extensions.sources import vertex
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs
from tests.support.gemini_bodies import ASKED, answered, logged
from tests.support.source_reading import reason, record

SCHEMA: Json = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "type": {"type": "string", "enum": ["RAIN", "SUN"]},
    },
    "required": ["city"],
}


@pytest.mark.parametrize("is_text", [False, True], ids=["as-json", "as-text"])
def test_a_logged_call_is_an_interaction_field_by_field(is_text: bool):
    row = logged()
    if is_text:
        texts = ("full_request", "full_response", "metadata")
        row |= {key: json.dumps(row[key]) for key in texts} | {"request_id": "5374205265901353984"}
    assert vertex.claims(row)
    function: Json = {"name": "weather", "description": "Tell the weather", "parameters": SCHEMA}
    call: Json = {"name": "weather", "arguments": {"city": "Rome"}}
    assert record(vertex, row) == {
        "timestamp": "2025-09-08 21:04:22.248000 UTC",
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "gemini-2.5-pro",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Weather in Rome?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", "function": call, "id": "call_0"}],
                    "reasoning_content": "Rome it is.",
                },
                {
                    "role": "tool",
                    "tool_call_id": "call_0",
                    "content": '{"sky": "clear"}',
                    "name": "weather",
                },
            ],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 512,
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "auto",
        },
        "response": {
            "id": "y0S_aMGPArCYqsMPntGNyA4",
            "model": "gemini-2.5-pro",
            "created": "2025-09-08T21:04:11.034753Z",
            "choices": [{"index": 0, "message": logs.say("Clear."), "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 30, "completion_tokens": 42},
        },
        "user_id": "u-7",
        "conversation_id": "s-1",
        "trace_id": "5374205265901353984",
        "duration_ms": 11225.994,
        "metadata": {
            "team": "travel",
            "user_id": "u-7",
            "session_id": "s-1",
            "api_method": "GenerateContent",
        },
    }


def test_a_call_of_anthropics_models_is_read_too():
    asked: Json = {
        "anthropic_version": "vertex-2023-10-16",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Rain?"}],
    }
    answer: Json = {
        "id": "msg_vrtx_1",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Dry."}],
        "stop_reason": "end_turn",
    }
    read = record(vertex, logged(asked, answer, model="publishers/anthropic/models/claude"))
    assert isinstance(read["response"], dict)
    assert read["response"]["id"] == "msg_vrtx_1"
    assert isinstance(read["request"], dict)
    assert read["request"]["model"] == "claude"


def test_a_response_without_an_id_has_the_rows():
    response = record(vertex, logged(answer=answered(responseId=None)))["response"]
    assert isinstance(response, dict)
    assert response["id"] == "5374205265901353984"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"full_response": None},
            "`full_response` is missing, expected a response: the call has no answer",
            id="no-response",
        ),
        pytest.param(
            {"full_request": None}, "`full_request` is null, expected an object", id="no-request"
        ),
        pytest.param(
            {"full_response": '{"candidates": [{"cont'},
            '`full_response` is the text "{"candidates": [{"cont", expected JSON as text or as '
            "it is",
            id="half-written",
        ),
        pytest.param(
            {"full_response": answered(responseId=None), "request_id": None},
            "`request_id` is missing, expected text, or a number",
            id="no-id",
        ),
        pytest.param(
            {"full_request": ASKED | {"labels": [1]}},
            "`full_request.labels` is an array, expected an object",
            id="labels",
        ),
    ],
)
def test_a_row_that_cannot_be_read_says_why(changes: dict[str, Json], expected: str):
    assert reason(vertex, logged(**changes)) == expected


def test_rows_are_loaded_once_and_a_bad_one_costs_only_itself(con: Connection, tmp_path: Path):
    rows = [
        logged(),
        logged(logging_time="2025-09-08T21:05:00Z", answer=answered(responseId="b")),
        logged(logging_time="2025-09-08 21:06:00", answer=answered(responseId="c")),
        logged(logging_time="soon", answer=answered(responseId="d")),
        logged(full_response='{"candidates": [{"cont'),
    ]
    logs.write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "rows.json").write_text(json.dumps(rows[:3]))
    loaded: list[tuple[str, int, int, int]] = []
    for name in ("rows.jsonl", "rows.json"):
        item = Input(str(tmp_path / name), defaults=Defaults("support", "shop"))
        result = logs.load_input(con, item, now=logs.NOW)
        loaded.append((result.source, result.new, result.known, result.quarantined))
    assert loaded == [("vertex", 3, 0, 2), ("vertex", 0, 3, 0)]
