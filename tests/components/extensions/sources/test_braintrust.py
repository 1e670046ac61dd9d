import json
from pathlib import Path

import pytest

from components.collect.source import Defaults, Input, ParsedRecord, RejectedRecord
from components.extensions.sources import braintrust
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import gemini_bodies, logs
from tests.support.braintrust_spans import MESSAGES, root, span
from tests.support.source_reading import read, reason, record, records


def test_a_span_of_openais_client_is_an_interaction_field_by_field():
    assert braintrust.claims(span())
    assert record(braintrust, span()) == {
        "timestamp": "2025-10-09T08:53:20.250Z",
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "gpt-4o-mini",
            "temperature": 0.2,
            "tools": [logs.WEATHER],
            "messages": MESSAGES,
        },
        "response": {
            "id": "8b3a1c4e",
            "model": "gpt-4o-mini",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Dry."},
                    "finish_reason": "stop",
                    "logprobs": None,
                }
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3},
        },
        "conversation_id": "s-1",
        "user_id": "u-7",
        "trace_id": "s1",
        "duration_ms": 750.0,
        "metadata": {
            "provider": "openai",
            "user_id": "u-7",
            "session_id": "s-1",
            "team": "travel",
        },
    }


def test_a_span_of_anthropics_client_has_its_system_prompt_first():
    """Braintrust's SDK logs it after the messages, where no model saw it."""
    tool: Json = {"name": "weather", "input_schema": {"type": "object"}}
    call: Json = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
    row = span(
        input=[
            {"role": "user", "content": "Weather in Rome?"},
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        ],
        output={
            "role": "assistant",
            "model": "claude",
            "content": [call],
            "stop_reason": "tool_use",
        },
        metadata={"provider": "anthropic", "model": "claude", "max_tokens": 9, "tools": [tool]},
        metrics={
            "prompt_tokens": 1000,
            "completion_tokens": 9,
            "prompt_cached_tokens": 900,
            "prompt_cache_creation_5m_tokens": 80,
        },
    )
    converted = record(braintrust, row)
    function: Json = {"name": "weather", "parameters": {"type": "object"}}
    assert converted["request"] == {
        "model": "claude",
        "max_tokens": 9,
        "tools": [{"type": "function", "function": function}],
        "messages": MESSAGES,
    }
    match converted["response"]:
        case {"choices": [{"message": {"tool_calls": [{"id": "t1"}]}, "finish_reason": finish}]}:
            assert finish == "tool_calls"
        case other:
            pytest.fail(f"{other}")
    assert converted["usage"] == {
        "prompt_tokens": 1000,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 900, "cache_creation_tokens": 80},
    }


def test_a_system_message_that_an_application_sent_last_stays_there():
    asked: Json = [*reversed(MESSAGES)]
    request = record(braintrust, span(input=asked))["request"]
    assert isinstance(request, dict)
    assert request["messages"] == asked


def test_a_span_of_the_responses_api_becomes_chat():
    output: Json = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
    ]
    row = span(
        input="Weather in Rome?",
        output=output,
        metadata={
            "model": "gpt-5",
            "instructions": "Be brief.",
            "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
            "object": "response",
            "id": "resp_1",
            "status": "completed",
        },
    )
    converted = record(braintrust, row)
    assert isinstance(converted["request"], dict)
    assert converted["request"]["messages"] == MESSAGES
    match converted["response"]:
        case {"id": "resp_1", "choices": [{"message": {"tool_calls": [_]}}]}:
            pass
        case other:
            pytest.fail(f"{other}")
    row["metadata"] = {"object": "response", "status": "failed"}
    assert record(braintrust, row)["finish"] == "upstream_cut"


@pytest.mark.parametrize("is_beside", [True, False], ids=["tools-beside", "tools-within"])
def test_a_span_of_googles_client_becomes_chat(is_beside: bool):
    """Newer versions of Braintrust's SDK have the tools in the metadata."""
    tools: Json = [{"functionDeclarations": [{"name": "weather"}]}]
    config: dict[str, Json] = {"system_instruction": "Be brief.", "temperature": 0.2}
    asked: Json = {
        "model": "gemini-2.5-pro",
        "contents": ["Weather in", {"text": "Rome?"}],
        "config": config if is_beside else config | {"tools": tools},
    }
    metadata: Json = {"provider": "google", "tools": tools} if is_beside else None
    row = span(input=asked, output=gemini_bodies.answered(), metadata=metadata)
    converted = record(braintrust, row)
    parts: Json = [{"type": "text", "text": text} for text in ("Weather in", "Rome?")]
    assert converted["request"] == {
        "model": "gemini-2.5-pro",
        "messages": [MESSAGES[0], {"role": "user", "content": parts}],
        "temperature": 0.2,
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    }
    assert isinstance(converted["response"], dict)
    assert converted["response"]["id"] == "y0S_aMGPArCYqsMPntGNyA4"
    plain: Json = {"contents": "Rome?", "config": None, "model": "gemini-2.5-pro"}
    request = record(braintrust, span(input=plain, output=gemini_bodies.answered()))["request"]
    assert isinstance(request, dict)
    assert request["messages"] == [{"role": "user", "content": "Rome?"}]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"messages": MESSAGES}, "Dry."),
        (MESSAGES, {"role": "assistant", "content": "Dry."}),
        (
            MESSAGES,
            {"choices": [{"index": 0, "message": logs.say("Dry."), "finish_reason": "stop"}]},
        ),
    ],
    ids=["request-and-text", "message", "completion"],
)
def test_what_applications_log_themselves_is_read(asked: Json, answer: Json):
    read = record(braintrust, span(input=asked, output=answer))
    assert isinstance(read["request"], dict)
    assert read["request"]["messages"] == MESSAGES
    match read["response"]:
        case {"choices": [{"message": message, "finish_reason": "stop"}]}:
            assert message == logs.say("Dry.")
        case other:
            pytest.fail(f"{other}")


def test_an_answer_with_an_error_or_without_a_reason_to_stop_is_cut():
    assert record(braintrust, span(error="timeout"))["finish"] == "upstream_cut"
    pieces: Json = [{"index": 0, "message": logs.say("Dr"), "finish_reason": None}]
    assert record(braintrust, span(output=pieces))["finish"] == "upstream_cut"


def test_scores_of_a_call_and_what_was_expected_are_feedback_on_it():
    _, score, correction = records(
        braintrust, span(scores={"correct": 0}, expected={"role": "assistant", "content": "Rain."})
    )
    assert score == {
        "timestamp": "2025-10-09T08:53:20.250Z",
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "unknown",
        "kind": "outcome",
        "value": {"name": "correct", "value": 0},
        "response_id": "8b3a1c4e",
    }
    assert (correction["kind"], correction["value"]) == ("correction", logs.say("Rain."))


def test_scores_of_the_first_span_are_feedback_on_its_trace():
    said = records(braintrust, root())
    assert [(each["value"], each["target_id"]) for each in said] == [
        ({"name": "thumbs", "value": 1}, "s1"),
        ({"name": "correct", "value": 0.5}, "s1"),
    ]


def test_the_first_span_is_the_one_without_parents():
    """Newer versions of the SDK take the ids of OpenTelemetry: the trace's is not its span's."""
    row = root(span_id="e400", root_span_id="5366", is_root=None)
    assert [each["target_id"] for each in records(braintrust, row)] == ["5366", "5366"]
    inner = root(span_id="e401", root_span_id="5366", span_parents=["e400"], is_root=False)
    assert "only calls of a model" in reason(braintrust, inner)


def test_a_score_that_cannot_be_read_costs_only_itself():
    interaction, refused = read(braintrust, span(scores={"correct": "yes"}))
    assert isinstance(interaction, ParsedRecord)
    assert isinstance(refused, RejectedRecord)
    assert refused.reason == "`scores.correct` is text, expected a number"


@pytest.mark.parametrize("key", ["events", "data"])
def test_pages_of_the_api_have_several_spans(key: str):
    page: dict[str, Json] = {key: [span(), span(id="b")], "cursor": "x"}
    assert braintrust.claims(page)
    assert len(records(braintrust, page)) == 2


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            span(output=None, error="RateLimitError: slow down"),
            "`output` is missing, expected an answer: RateLimitError: slow down",
            id="failed",
        ),
        pytest.param(
            span(span_attributes={"type": "tool"}),
            '`span_attributes.type` is "tool", expected llm: only calls of a model are '
            "interactions",
            id="tool",
        ),
        pytest.param(
            root(scores=None),
            '`span_attributes.type` is "task", expected llm: only calls of a model are '
            "interactions",
            id="application-without-scores",
        ),
        pytest.param(
            span(span_attributes={"type": "llm", "purpose": "scorer"}),
            '`span_attributes.purpose` is "scorer", expected a call of the application',
            id="judge",
        ),
        pytest.param(
            span(input=None), "`input` is empty, expected messages or text", id="no-input"
        ),
        pytest.param(
            span(metadata="{"),
            '`metadata` is the text "{", expected JSON as text or as it is',
            id="half-written",
        ),
        pytest.param(span(id=None), "`id` is null, expected text", id="no-id"),
        pytest.param(
            span(
                metadata={"model": "gpt-5", "previous_response_id": "resp_0"},
                output=[{"type": "message", "role": "assistant", "content": "Dry."}],
            ),
            "`previous_response_id` refers to what the server kept, and the log lacks it; expected "
            "the whole conversation in `input`",
            id="conversation-elsewhere",
        ),
    ],
)
def test_a_span_that_cannot_be_read_says_why(row: dict[str, Json], expected: str):
    assert reason(braintrust, row) == expected


def test_spans_and_scores_are_loaded_once(con: Connection, tmp_path: Path):
    rows = [root(), span(), span(id="b", created="soon")]
    logs.write(tmp_path / "spans.jsonl", rows)
    (tmp_path / "page.json").write_text(json.dumps({"events": rows[:2], "cursor": None}))
    loaded: list[tuple[str, int, int, int]] = []
    for name in ("spans.jsonl", "page.json"):
        item = Input(str(tmp_path / name), defaults=Defaults("support", "shop"))
        result = logs.load_input(con, item, now=logs.NOW)
        loaded.append((result.source, result.new, result.known, result.quarantined))
    assert loaded == [("braintrust", 3, 0, 1), ("braintrust", 0, 3, 0)]
