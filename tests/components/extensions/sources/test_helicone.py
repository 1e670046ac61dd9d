import json
from pathlib import Path

import pytest

from components.collect.source import Defaults, Input, ParsedRecord, RejectedRecord
from components.extensions.sources import helicone
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import gemini_bodies, logs, openai_completions
from tests.support.helicone_rows import NOT_EXPORTED, row
from tests.support.source_reading import read, reason, record, records

EVENTS: list[dict[str, Json]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "role": "assistant",
            "model": "claude",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": '{"city": "Rome"}'},
    },
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
]


def test_a_row_is_an_interaction_field_by_field():
    assert helicone.claims(row())
    assert record(helicone, row()) == {
        "timestamp": "2025-10-09 08:53:20.250",
        "workload_id": "support",
        "client_id": "shop",
        "request": openai_completions.REQUEST,
        "response": openai_completions.completion(),
        "conversation_id": "s-1",
        "user_id": "u-7",
        "trace_id": "0c9d1b8e-7b57-4d5e-9f6b-5d1d0a2f6c22",
        "duration_ms": 750,
        "metadata": {
            "Helicone-Session-Id": "s-1",
            "team": "shoes",
            "provider": "OPENAI",
            "request_path": "https://api.openai.com/v1/chat/completions",
        },
    }


def test_bodies_may_be_text():
    texts = {key: json.dumps(row()[key]) for key in ("request_body", "response_body")}
    assert record(helicone, {**row(), **texts}) == record(helicone, row())


def test_a_stream_is_read_from_its_chunks():
    """Those of OpenAI and Gemini are in a list, those of Anthropic the text that was sent."""
    joined: dict[str, Json] = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "choices": []}
    sent = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in EVENTS)
    chunk: Json = gemini_bodies.answered(gemini_bodies.candidate({"text": "Clear."}))
    chunks: list[Json] = [*openai_completions.CALLING, {}]
    bodies: list[tuple[Json, str | None]] = [
        ({**joined, "streamed_data": chunks}, "weather"),
        ({"streamed_data": sent}, "weather"),
        ({"streamed_data": [chunk]}, None),
    ]
    for body, expected in bodies:
        response = record(helicone, row(response_body=body))["response"]
        match response:
            case {"choices": [{"message": {"tool_calls": [{"function": {"name": name}}, *_]}}]}:
                assert name == expected
            case {"choices": [{"message": {"content": "Clear."}}]}:
                assert expected is None
            case other:
                pytest.fail(f"{other}")


def test_a_response_without_an_id_has_the_requests_that_applications_know():
    body = {key: value for key, value in openai_completions.completion().items() if key != "id"}
    response = record(helicone, row(response_body=body))["response"]
    assert isinstance(response, dict)
    assert response["id"] == "0c9d1b8e-7b57-4d5e-9f6b-5d1d0a2f6c22"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, {"prompt_tokens": 20, "completion_tokens": 3}),
        ({"prompt_tokens": -1, "completion_tokens": -1}, None),
        ({"prompt_tokens": 0}, None),
    ],
)
def test_tokens_that_the_response_does_not_say_are_those_that_helicone_counted(
    counts: dict[str, Json], expected: Json
):
    body = {key: value for key, value in openai_completions.completion().items() if key != "usage"}
    assert record(helicone, row(response_body=body, **counts)).get("usage") == expected


@pytest.mark.parametrize(
    ("scores", "kind", "value"),
    [
        ({"helicone-score-feedback": "1"}, "thumb", "up"),
        ({"helicone-score-feedback": 0}, "thumb", "down"),
        ({"correct-hcone-bool": "0"}, "outcome", {"name": "correct", "value": False}),
        ({"liked-hcone-bool": 1}, "thumb", "up"),
        ({"relevance": "87"}, "outcome", {"name": "relevance", "value": 87}),
        (
            {"relevance": {"value": 87, "valueType": "number"}},
            "outcome",
            {"name": "relevance", "value": 87},
        ),
    ],
)
def test_scores_are_feedback_on_the_answer(scores: Json, kind: str, value: Json):
    _, said = records(helicone, row(scores=scores))
    assert said == {
        "timestamp": "2025-10-09 09:00:00.000",
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "unknown",
        "kind": kind,
        "value": value,
        "response_id": "chatcmpl-1",
    }


def test_older_rows_have_a_rating_with_its_time():
    rated = row(scores=None, feedback_rating=False, feedback_created_at="2025-10-09T09:01:00+00:00")
    _, said = records(helicone, rated)
    assert (said["kind"], said["value"]) == ("thumb", "down")
    assert said["timestamp"] == "2025-10-09T09:01:00+00:00"


def test_a_score_that_cannot_be_read_costs_only_itself():
    interaction, refused = read(helicone, row(scores={"relevance": "high"}))
    assert isinstance(interaction, ParsedRecord)
    assert isinstance(refused, RejectedRecord)
    assert '`scores.relevance` is the text "high"' in refused.reason


def test_a_page_of_the_api_has_several_rows():
    page: dict[str, Json] = {"data": [row(), row(request_id="b")], "error": None}
    assert helicone.claims(page)
    assert [each["trace_id"] for each in records(helicone, page)] == [row()["request_id"], "b"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"request_body": NOT_EXPORTED},
            "`request_body` is missing, expected the body: export with --include-body",
            id="no-bodies",
        ),
        pytest.param(
            {"response_status": 429, "response_body": {"error": {"message": "slow down"}}},
            '`response_status` is "429", expected a status of success: the call has no answer',
            id="failed",
        ),
        pytest.param(
            {"response_status": -2},
            '`response_status` is "-2", expected a status of success: the call has no answer',
            id="unfinished",
        ),
        pytest.param(
            {"response_body": None}, "`response` is null, expected an object", id="no-answer"
        ),
        pytest.param(
            {
                "request_body": {"_type": "tool", "toolName": "weather", "input": {"city": "Rome"}},
                "response_body": {"sky": "clear"},
            },
            "`request_body.input` is an object, expected an array",
            id="call-of-a-tool",
        ),
        pytest.param(
            {"request_properties": "team"},
            "`request_properties` is text, expected an object",
            id="properties",
        ),
        pytest.param(
            {"response_body": {"object": "x", "choices": []}, "request_id": None},
            "`request_id` is null, expected text",
            id="no-id",
        ),
    ],
)
def test_a_row_that_cannot_be_read_says_why(changes: dict[str, Json], expected: str):
    assert reason(helicone, row(**changes)) == expected


def test_rows_and_their_scores_are_loaded_once(con: Connection, tmp_path: Path):
    other = openai_completions.completion(id="b")
    rows = [
        row(scores={"helicone-score-feedback": "1"}),
        row(request_id="b", request_created_at="2025-10-09T08:54:00Z", response_body=other),
        row(request_created_at="soon"),
    ]
    logs.write(tmp_path / "export.jsonl", rows)
    (tmp_path / "page.json").write_text(json.dumps({"data": rows[:2], "error": None}))
    loaded: list[tuple[str, int, int, int]] = []
    for name in ("export.jsonl", "page.json"):
        item = Input(str(tmp_path / name), defaults=Defaults("support", "shop"))
        result = logs.load_input(con, item, now=logs.NOW)
        loaded.append((result.source, result.new, result.known, result.quarantined))
    assert loaded == [("helicone", 3, 0, 1), ("helicone", 0, 3, 0)]
    kept = warehouse.rows(con, "select response_id from raw.feedback")
    assert kept == [{"response_id": "chatcmpl-1"}]
