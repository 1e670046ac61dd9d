import json
from pathlib import Path
from typing import cast

import pytest

from components.collect.source import Defaults, Input, ParsedRecord, SourceRow
from components.extensions.sources import litellm
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs, openai_completions
from tests.support.litellm_payloads import ASKED, MESSAGES, as_text, payload, spend_log
from tests.support.source_reading import reason, record

FAILED: dict[str, Json] = {
    "status": "failure",
    "error_str": "litellm.RateLimitError: slow down",
    "error_information": {"error_code": "429", "error_class": "RateLimitError"},
}


def test_a_payload_is_an_interaction_field_by_field():
    assert litellm.claims(payload())
    assert record(litellm, payload()) == {
        "timestamp": 1_760_000_000.25,
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "gpt-4o-mini",
            "temperature": 0.2,
            "tools": [logs.WEATHER],
            "stream": False,
            "messages": MESSAGES,
        },
        "response": openai_completions.completion(),
        "conversation_id": "s-1",
        "user_id": "u-7",
        "trace_id": "trace-1",
        "duration_ms": 750.0,
        "metadata": {
            "tenant": "a",
            "custom_llm_provider": "openai",
            "model_group": "small",
            "call_type": "acompletion",
            "request_tags": ["beta"],
        },
    }


def test_the_names_that_a_caller_sent_count_where_no_default_does():
    metadata: Json = {
        "user_api_key_alias": "shop-key",
        "requester_metadata": {"workload_id": "weather"},
    }
    row = payload(metadata=metadata)
    (read,) = litellm.read([SourceRow(1, json.dumps(row), row)], Defaults("support", ""))
    assert isinstance(read, ParsedRecord)
    assert (read.record["workload_id"], read.record["client_id"]) == ("weather", "shop-key")


def test_calls_of_tools_are_kept():
    message = logs.call("weather", '{"city": "Rome"}')
    choice: Json = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    response = openai_completions.completion(choices=[choice])
    converted = record(litellm, payload(response=response, stream=True))["response"]
    assert isinstance(converted, dict)
    assert converted["choices"] == [choice]


def test_a_call_of_the_responses_api_becomes_chat():
    response = openai_completions.RESPONSE.model_dump(mode="json")
    row = payload(
        call_type="aresponses",
        messages="Oslo?",
        model_parameters={"instructions": "Be brief.", "temperature": 0.2},
        response=response,
    )
    request = record(litellm, row)["request"]
    assert isinstance(request, dict)
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Oslo?"},
    ]


def test_a_call_of_the_messages_api_becomes_chat():
    response: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    tool: Json = {"name": "weather", "input_schema": {"type": "object"}}
    row = payload(
        call_type="anthropic_messages", response=response, model_parameters={"tools": [tool]}
    )
    converted = record(litellm, row)
    assert isinstance(converted["request"], dict)
    assert converted["request"]["tools"] == [
        {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    ]
    match converted["response"]:
        case {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}:
            function: Json = {"name": "weather", "arguments": {"city": "Rome"}}
            assert call == {"id": "t1", "type": "function", "function": function}
        case other:
            pytest.fail(f"{other}")


def test_a_text_completion_becomes_chat():
    row = payload(
        call_type="atext_completion",
        messages=[{"role": "user", "content": "Say this is a test"}],
        model_parameters={"max_tokens": 7},
        response=openai_completions.text_completion("This is a test."),
    )
    response = record(litellm, row)["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "This is a test."},
        }
    ]


ITEMS: Json = [
    {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "dry"},
]


def test_a_call_of_the_responses_api_that_another_api_answered_becomes_chat():
    """The proxy translates: items came in, tools and the answer are those of the model's API."""
    row = payload(
        call_type="aresponses", messages=ITEMS, model_parameters={"tools": [logs.WEATHER]}
    )
    converted = record(litellm, row)
    function: Json = {"name": "weather", "arguments": "{}"}
    assert converted["request"] == {
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "dry"},
        ],
        "tools": [logs.WEATHER],
        "model": "gpt-4o-mini",
    }
    assert converted["response"] == openai_completions.completion()


def test_messages_that_were_logged_as_chat_stay_so_whatever_the_call_was():
    messages: Json = [
        {"role": "user", "content": "Rain?"},
        logs.call("weather", "{}"),
        {"role": "tool", "tool_call_id": "c1", "content": "dry"},
    ]
    request = record(litellm, payload(call_type="aresponses", messages=messages))["request"]
    assert isinstance(request, dict)
    assert request["messages"] == messages


def test_a_call_of_the_messages_api_that_openai_answered_has_its_tools():
    """The proxy asks OpenAI's models by the Responses API, whose tools are flat."""
    tool: Json = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    row = payload(call_type="anthropic_messages", model_parameters={"tools": [tool]})
    request = record(litellm, row)["request"]
    assert isinstance(request, dict)
    assert request["tools"] == [
        {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    ]


@pytest.mark.parametrize("details", [None, {"cached_tokens": 0}, {"cached_tokens": 2}])
def test_a_call_of_the_responses_api_keeps_its_usage_under_litellms_names(details: Json):
    response = openai_completions.RESPONSE.model_dump(mode="json")
    response["usage"] = {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "total_tokens": 11,
        "prompt_tokens_details": details,
    }
    read = record(litellm, payload(call_type="aresponses", messages="Oslo?", response=response))
    cached: Json = {"prompt_tokens_details": {"cached_tokens": 2}}
    expected: Json = {"prompt_tokens": 5, "completion_tokens": 6}
    assert read["usage"] == expected | (cached if details == {"cached_tokens": 2} else {})


@pytest.mark.parametrize("is_text", [False, True], ids=["as-it-is", "as-text"])
def test_a_spend_log_is_an_interaction_field_by_field(is_text: bool):
    row = as_text(spend_log()) if is_text else spend_log()
    assert litellm.claims(row)
    assert record(litellm, row) == {
        "timestamp": "2025-10-09T08:53:20.250",
        "workload_id": "support",
        "client_id": "shop",
        "request": ASKED,
        "response": openai_completions.completion(),
        "conversation_id": "s-1",
        "user_id": "u-7",
        "duration_ms": 750.0,
        "metadata": {
            "team": "shoes",
            "tenant": "a",
            "custom_llm_provider": "openai",
            "model_group": "small",
            "call_type": "acompletion",
            "request_tags": '["beta"]' if is_text else ["beta"],
        },
    }


def test_a_spend_log_has_the_body_in_the_form_of_the_api_that_the_client_called():
    responses: Json = {"input": "Oslo?", "instructions": "Be brief."}
    messages: Json = {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": "Oslo?"}],
    }
    text: Json = {"prompt": "Oslo?"}
    asked: list[Json] = []
    for call_type, body in (
        ("aresponses", responses),
        ("anthropic_messages", messages),
        ("atext_completion", text),
    ):
        request = record(litellm, spend_log(call_type=call_type, proxy_server_request=body))[
            "request"
        ]
        assert isinstance(request, dict)
        asked.append(request["messages"])
    system: Json = {"role": "system", "content": "Be brief."}
    user: Json = {"role": "user", "content": "Oslo?"}
    assert asked == [[system, user], [system, user], [user]]


def test_an_older_spend_log_has_its_messages_in_their_own_column():
    request = record(litellm, spend_log(proxy_server_request="{}", messages=MESSAGES))["request"]
    assert request == {"model": "gpt-4o-mini", "messages": MESSAGES}


def test_what_a_client_did_not_wait_for_is_cut_in_a_spend_log():
    error: Json = {"error_information": {"error_class": "ClientDisconnected"}}
    assert record(litellm, spend_log(metadata=error))["finish"] == "upstream_cut"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"proxy_server_request": {}, "response": {}},
            "`proxy_server_request` is missing, expected the texts of the call: "
            "is store_prompts_in_spend_logs turned on?",
            id="no-texts",
        ),
        pytest.param(
            {"response": "{}"},
            "`response` is missing, expected the texts of the call: "
            "is store_prompts_in_spend_logs turned on?",
            id="no-answer",
        ),
        pytest.param(
            {"status": "failure", "response": "{}"},
            '`status` is "failure", expected a response: the call has no answer',
            id="failed",
        ),
        pytest.param(
            {"response": '{"id": "chatcmpl-1", "cho'},
            '`response` is the text "{"id": "chatcmpl-1", "cho", expected JSON as text or as it is',
            id="half-written",
        ),
        pytest.param(
            {
                "proxy_server_request": {
                    "messages": [
                        {
                            "role": "user",
                            "content": "Once ... (litellm_truncated skipped 1200 chars. Truncation "
                            "is a DB storage safeguard.) ... end",
                        }
                    ]
                }
            },
            'a text has "(litellm_truncated skipped ", expected all of it: set '
            "MAX_STRING_LENGTH_PROMPT_IN_DB, or collect what a callback writes",
            id="shortened",
        ),
        pytest.param(
            {"response": openai_completions.completion(id=None), "request_id": None},
            "`request_id` is null, expected text",
            id="no-id",
        ),
    ],
)
def test_a_spend_log_that_cannot_be_read_says_why(changes: dict[str, Json], expected: str):
    assert reason(litellm, spend_log(**changes)) == expected


def test_a_call_that_failed_has_no_answer_or_a_part_of_one():
    expected = '`status` is "failure", expected a response: the call has no answer'
    assert reason(litellm, payload(**FAILED, response={})) == expected
    assert record(litellm, payload(**FAILED))["finish"] == "upstream_cut"


def test_what_a_client_of_the_proxy_did_not_wait_for_is_cut():
    """LiteLLM counts it a success that has stopped."""
    error: Json = {"error_code": "499", "error_class": "ClientDisconnected"}
    assert record(litellm, payload(error_information=error))["finish"] == "upstream_cut"


def test_a_stream_without_its_last_chunk_is_cut():
    choice: Json = {"index": 0, "message": logs.say("Sun"), "finish_reason": None}
    response: Json = {**openai_completions.completion(), "choices": [choice]}
    assert record(litellm, payload(stream=True, response=response))["finish"] == "upstream_cut"


def test_a_response_without_an_id_has_the_payloads():
    nameless = {key: value for key, value in openai_completions.completion().items() if key != "id"}
    response = record(litellm, payload(response=nameless, id="call-9"))["response"]
    assert isinstance(response, dict)
    assert response["id"] == "call-9"
    row = payload(response=nameless)
    del row["id"]
    assert reason(litellm, row) == "`id` is missing, expected text"


REDACTED = logs.say("redacted-by-litellm")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"messages": [{"role": "user", "content": "redacted-by-litellm"}]},
            'the text is "redacted-by-litellm", expected the text: is the logging of messages '
            "turned off?",
            id="redacted-question",
        ),
        pytest.param(
            {"response": openai_completions.completion(choices=[{"message": REDACTED}])},
            'the text is "redacted-by-litellm", expected the text: is the logging of messages '
            "turned off?",
            id="redacted-answer",
        ),
        pytest.param(
            {"call_type": "aembedding", "response": {"object": "list", "data": []}},
            "`response.choices` is missing, expected an array",
            id="no-chat",
        ),
        pytest.param({"messages": None}, "`messages` is null, expected an array", id="no-messages"),
        pytest.param(
            {"model_parameters": []},
            "`model_parameters` is an array, expected an object, or its JSON as text",
            id="parameters",
        ),
    ],
)
def test_a_payload_of_another_shape_is_refused_by_that_reason(
    changes: dict[str, Json], expected: str
):
    assert reason(litellm, payload(**changes)) == expected


@pytest.mark.parametrize("ended", [10**400, float("nan"), float("inf"), "soon", None])
def test_a_time_that_is_none_gives_no_duration(ended: Json):
    assert "duration_ms" not in record(litellm, payload(endTime=ended))


def test_payloads_of_any_callback_are_loaded_once(con: Connection, tmp_path: Path):
    rows = [payload(), payload(id="b", response=openai_completions.completion(id="b"))]
    hostile = [
        payload(startTime=float("nan")),
        payload(startTime=10**400),
        payload(messages=[{"role": "user", "content": "a\x00b"}]),
        payload(end_user="\ud800"),
        payload(messages=cast("Json", json.loads("[" * 300 + "]" * 300))),
    ]
    defaults = Defaults("support", "shop")
    loaded: list[tuple[str, int, int, int]] = []
    spent = [spend_log(), as_text(spend_log(session_id="s-2")), spend_log(startTime="soon")]
    (tmp_path / "spend.json").write_text(json.dumps(spent))
    (tmp_path / "one.json").write_text(json.dumps(rows[0]))  # as the S3 callback
    (tmp_path / "array.json").write_text(json.dumps(rows))  # as the HTTP callback
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hostile))
    for name in ("one.json", "array.json", "lines.jsonl", "odd.jsonl", "spend.json"):
        item = Input(str(tmp_path / name), defaults=defaults)
        result = logs.load_input(con, item, now=logs.NOW)
        loaded.append((result.source, result.new, result.known, result.quarantined))
    assert loaded == [
        ("litellm", 1, 0, 0),
        ("litellm", 1, 1, 0),
        ("litellm", 0, 4, 0),
        ("litellm", 1, 0, 4),
        ("litellm", 2, 0, 1),
    ]
    counted = warehouse.rows(
        con, "select count(distinct interaction_id) as n from raw.interactions"
    )
    assert counted == [{"n": 5}]
