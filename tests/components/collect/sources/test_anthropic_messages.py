"""Content blocks of Anthropic's Messages API become OpenAI's tool calls and tool messages."""

import json
from typing import cast

import pytest

from components.collect.source import Defaults, ParsedRecord, SourceRow
from components.collect.sources import openai_logs
from components.extensions.sources import langfuse, mlflow_traces, otlp
from components.schema import Json
from tests.components.extensions.sources.test_mlflow_traces import span as mlflow_span
from tests.components.extensions.sources.test_mlflow_traces import trace
from tests.support import logs
from tests.support.langfuse_rows import observation
from tests.support.otlp_requests import log, span, text
from tests.support.source_reading import reason, record, records

FUNCTION = cast("dict[str, Json]", logs.WEATHER["function"])
TOOL: Json = {
    "name": FUNCTION["name"],
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
    "cache_control": {"type": "ephemeral"},
}


def use(city: Json, call_id: str | None = "toolu_1") -> dict[str, Json]:
    block: dict[str, Json] = {"type": "tool_use", "name": "weather", "input": city}
    return block if call_id is None else {**block, "id": call_id}


def result(content: Json, call_id: str | None = "toolu_1", **more: Json) -> dict[str, Json]:
    block: dict[str, Json] = {"type": "tool_result", "content": content, **more}
    return block if call_id is None else {**block, "tool_use_id": call_id}


def called(arguments: Json, call_id: str | None = "toolu_1") -> Json:
    call: dict[str, Json] = {
        "type": "function",
        "function": {"name": "weather", "arguments": arguments},
    }
    return call if call_id is None else {"id": call_id, **call}


def words(content: str) -> Json:
    return {"type": "text", "text": content}


ROME: Json = {"city": "Rome"}
ASKED: list[Json] = [
    {"role": "user", "content": [{**cast("dict[str, Json]", words("Rome?")), "cache_control": {}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Look it up.", "signature": "EqQB"},
            {"type": "redacted_thinking", "data": "EmwK"},
            words("I look."),
            use(ROME),
            words("And there."),
            use({}, "toolu_2"),
        ],
    },
    {
        "role": "user",
        "content": [
            result([words("clear"), words("cold")]),
            result("no city", "toolu_2", is_error=True),
            words("Well?"),
        ],
    },
]
AS_CHAT: list[Json] = [
    {"role": "user", "content": [{**cast("dict[str, Json]", words("Rome?")), "cache_control": {}}]},
    {
        "role": "assistant",
        "content": [words("I look."), words("And there.")],
        "tool_calls": [called(ROME), called({}, "toolu_2")],
        "reasoning_content": "Look it up.",
    },
    {"role": "tool", "tool_call_id": "toolu_1", "content": [words("clear"), words("cold")]},
    {"role": "tool", "tool_call_id": "toolu_2", "content": "no city"},
    {"role": "user", "content": "Well?"},
]
REQUEST: dict[str, Json] = {
    "model": "claude-sonnet-4-5",
    "system": [words("Be brief.")],
    "messages": ASKED,
    "tools": [TOOL],
    "max_tokens": 200,
}
SYSTEM: Json = {"role": "system", "content": "Be brief."}
ANSWER: dict[str, Json] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [words("Again."), use({"city": "Oslo"}, "toolu_3")],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 20, "output_tokens": 9},
}
CHOICE: dict[str, Json] = {
    "index": 0,
    "message": {
        "role": "assistant",
        "content": "Again.",
        "tool_calls": [called({"city": "Oslo"}, "toolu_3")],
    },
    "finish_reason": "tool_calls",
}


def logged(**changes: Json) -> dict[str, Json]:
    return {
        "timestamp": 1_760_000_000,
        "request": {**REQUEST},
        "response": {**ANSWER, **changes},
    }


def messages_of(converted: dict[str, Json]) -> Json:
    request = converted["request"]
    assert isinstance(request, dict)
    return request["messages"]


def choice_of(converted: dict[str, Json]) -> dict[str, Json]:
    response = converted["response"]
    assert isinstance(response, dict)
    match response["choices"]:
        case [dict(choice)]:
            return choice
        case other:
            pytest.fail(f"{other}")


STREAM: list[dict[str, Json]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "look."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": use({})},
    *(
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": piece},
        }
        for piece in ("", '{"city": ', '"Rome"}')
    ),
    {"type": "content_block_start", "index": 2, "content_block": use({}, "toolu_2")},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use"},
        "usage": {"output_tokens": 30},
    },
    {"type": "message_stop"},
]


def answered(response: Json) -> dict[str, Json]:
    return {"request": {"messages": [{"role": "user", "content": "Rome?"}]}, "response": response}


@pytest.mark.parametrize("form", ["events", "text"])
def test_a_stream_is_the_message_that_it_consists_of(form: str):
    written = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in STREAM)
    row = answered(written if form == "text" else [*STREAM])
    assert record(openai_logs, row)["response"] == {
        "id": "msg_1",
        "model": "claude",
        "usage": {"prompt_tokens": 9, "completion_tokens": 30},
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "I look.",
                    "tool_calls": [called('{"city": "Rome"}'), called({}, "toolu_2")],
                },
            }
        ],
    }


@pytest.mark.parametrize("events", range(1, len(STREAM) - 2))
def test_a_stream_that_broke_off_is_told_from_a_whole_answer(events: int):
    match record(openai_logs, answered([*STREAM[:events]]))["response"]:
        case {"choices": [{"finish_reason": finish}]}:
            assert finish == "upstream_cut"
        case response:
            pytest.fail(f"no choice in {response}")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (STREAM[1:], "`response[]` is missing, expected a message_start in the events of a stream"),
        ([STREAM[0], STREAM[3]], "`response[]` is missing, expected the start of the block 0"),
        (
            [*STREAM[:4], {"type": "error", "error": {"type": "overloaded_error"}}],
            "`response[4].error` is an object, expected a part of an answer",
        ),
    ],
)
def test_a_stream_without_an_answer_is_refused(events: list[Json], expected: str):
    assert reason(openai_logs, answered(events)) == expected


def test_a_logged_request_with_its_response_is_an_interaction_in_chat_form():
    assert record(openai_logs, logged()) == {
        "timestamp": 1_760_000_000,
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "messages": [SYSTEM, *AS_CHAT],
            "model": "claude-sonnet-4-5",
            "max_tokens": 200,
            "tools": [logs.WEATHER],
        },
        "response": {
            "id": "msg_1",
            "model": "claude-sonnet-4-5-20250929",
            "choices": [CHOICE],
            "usage": {"prompt_tokens": 20, "completion_tokens": 9},
        },
    }


def test_tokens_of_the_providers_cache_are_counted_beside_the_response():
    used: Json = {
        "input_tokens": 20,
        "cache_read_input_tokens": 900,
        "cache_creation_input_tokens": 80,
        "output_tokens": 9,
    }
    row = logged()
    row["response"] = {**ANSWER, "usage": used}
    converted = record(openai_logs, row)
    assert converted["usage"] == {
        "prompt_tokens": 1000,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 900, "cache_creation_tokens": 80},
    }
    # As before there was such a count: a log that is loaded again marks the rows it has.
    assert converted["response"] == record(openai_logs, logged())["response"]


def test_a_five_key_line_keeps_its_workload_and_client():
    line = SourceRow(1, "", logged() | {"workload_id": "shop", "client_id": "app"})
    (converted,) = openai_logs.read([line], Defaults("", ""))
    assert isinstance(converted, ParsedRecord)
    assert (converted.record["workload_id"], converted.record["client_id"]) == ("shop", "app")
    (converted,) = openai_logs.read([line], Defaults("", "known"))
    assert isinstance(converted, ParsedRecord)
    assert converted.record["client_id"] == "known"


def test_calls_in_langchains_form_are_calls():
    call: Json = {"name": "weather", "args": {"city": "Oslo"}, "id": "toolu_3", "type": "tool_call"}
    contents: list[Json] = ["Again.", [words("Again."), use({"city": "Oslo"}, "toolu_3")]]
    for content in contents:
        message: dict[str, Json] = {"role": "assistant", "content": content, "tool_calls": [call]}
        asked: Json = [
            {"type": "human", "content": "Oslo?"},
            {**message, "type": "ai"},
            {"type": "tool", "content": "rain", "tool_call_id": "toolu_3"},
        ]
        row = observation(input=json.dumps(asked), output=json.dumps(message))
        converted = record(langfuse, row)
        assert choice_of(converted) == CHOICE | {"finish_reason": "tool_calls"}
        match messages_of(converted):
            case [_, {"tool_calls": calls}, _]:
                assert calls == [called({"city": "Oslo"}, "toolu_3")]
            case other:
                pytest.fail(f"{other}")


def test_tracing_tools_log_the_same_call():
    for converted in (
        record(langfuse, observation(input=json.dumps(REQUEST), output=json.dumps(ANSWER))),
        record(mlflow_traces, trace(mlflow_span(spanInputs=REQUEST, spanOutputs=ANSWER))),
    ):
        request = converted["request"]
        assert isinstance(request, dict)
        assert request["messages"] == [SYSTEM, *AS_CHAT]
        assert request["tools"] == [logs.WEATHER]
        assert choice_of(converted) == CHOICE


def test_the_blocks_of_an_answer_alone_are_its_message():
    for output in (
        ANSWER["content"],
        {"role": "assistant", "content": ANSWER["content"]},
        [{"role": "assistant", "content": ANSWER["content"]}],
    ):
        assert choice_of(record(langfuse, observation(output=json.dumps(output)))) == CHOICE


def test_blocks_in_events_and_numbered_attributes_of_spans_are_read():
    events: list[dict[str, Json]] = [
        log(f"gen_ai.{cast('dict[str, Json]', message)['role']}.message", message)
        for message in ASKED
    ]
    answered: Json = {"message": {"content": ANSWER["content"]}, "finish_reason": "tool_calls"}
    (converted,) = records(otlp, *events, log("gen_ai.choice", answered), span())
    assert messages_of(converted) == AS_CHAT
    assert choice_of(converted) == CHOICE
    numbered: list[Json] = []
    for index, message in enumerate(cast("list[dict[str, Json]]", ASKED)):
        numbered += [
            text(f"gen_ai.prompt.{index}.role", str(message["role"])),
            text(f"gen_ai.prompt.{index}.content", json.dumps(message["content"])),
        ]
    numbered += [text("gen_ai.completion.0.content", json.dumps(ANSWER["content"]))]
    converted = record(otlp, span(*numbered))
    assert messages_of(converted) == AS_CHAT
    assert choice_of(converted)["message"] == CHOICE["message"]


@pytest.mark.parametrize(
    ("stopped", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        (None, "upstream_cut"),
    ],
)
def test_the_stop_reason_is_the_finish_reason(stopped: str | None, finish: str):
    row = logged(stop_reason=stopped)
    assert choice_of(record(openai_logs, row))["finish_reason"] == finish
    traced = observation(output=json.dumps(row["response"]))
    assert choice_of(record(langfuse, traced))["finish_reason"] == finish


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        pytest.param(
            [use(ROME, None)], {"content": None, "tool_calls": [called(ROME, None)]}, id="no-id"
        ),
        pytest.param(
            [{**use(ROME), "id": ["a"]}],
            {
                "content": None,
                "tool_calls": [{**cast("dict[str, Json]", called(ROME)), "id": ["a"]}],
            },
            id="id-is-an-array",
        ),
        pytest.param(
            [use('{"city": "Ro')],
            {"content": None, "tool_calls": [called('{"city": "Ro')]},
            id="input-is-text",
        ),
        pytest.param([use(None)], {"content": None, "tool_calls": [called({})]}, id="input-null"),
        pytest.param(
            [{"type": "thinking", "thinking": "Hm."}, words("Clear.")],
            {"content": "Clear.", "reasoning_content": "Hm."},
            id="thinking",
        ),
        pytest.param(
            [words("See."), {"type": "server_tool_use", "name": "web_search", "input": {}}],
            {
                "content": [
                    words("See."),
                    {"type": "server_tool_use", "name": "web_search", "input": {}},
                ]
            },
            id="tool-of-the-server",
        ),
        pytest.param(
            [result("clear")], {"content": [result("clear")]}, id="result-of-an-assistant"
        ),
    ],
)
def test_any_blocks_of_an_answer_are_read(blocks: list[Json], message: dict[str, Json]):
    converted = choice_of(record(openai_logs, logged(content=blocks)))
    assert converted["message"] == {"role": "assistant", **message}


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        pytest.param(
            [words("First."), result(None)],
            [
                {"role": "tool", "tool_call_id": "toolu_1", "content": ""},
                {"role": "user", "content": "First."},
            ],
            id="no-content",
        ),
        pytest.param([result("clear", None)], [{"role": "tool", "content": "clear"}], id="no-id"),
        pytest.param(
            [result({"sky": "clear"})],
            [{"role": "tool", "tool_call_id": "toolu_1", "content": '{"sky": "clear"}'}],
            id="content-is-an-object",
        ),
        pytest.param(
            [
                result(
                    [
                        {
                            "type": "image",
                            "source": {
                                "type": "base64",
                                "media_type": "image/png",
                                "data": "AAAA",
                            },
                        }
                    ]
                ),
                {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
            ],
            [
                {
                    "role": "tool",
                    "tool_call_id": "toolu_1",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
                    ],
                },
            ],
            id="images",
        ),
        pytest.param([use(ROME)], [{"role": "user", "content": [use(ROME)]}], id="use-of-a-user"),
    ],
)
def test_any_blocks_of_a_user_are_read(content: Json, messages: Json):
    row = logged()
    row["request"] = {"messages": [{"role": "user", "content": content}]}
    assert messages_of(record(openai_logs, row)) == messages


def test_a_plain_response_that_was_traced_keeps_the_form_that_loaded_homes_have():
    output = {**ANSWER, "content": [words("Again.")], "stop_reason": "end_turn"}
    choice = choice_of(record(langfuse, observation(output=json.dumps(output))))
    message = {key: value for key, value in output.items() if key != "type"}
    assert choice == {"index": 0, "message": message, "finish_reason": "stop"}


def test_calls_that_are_logged_in_both_forms_are_not_doubled():
    both: Json = {
        "role": "assistant",
        "content": [words("Again."), use({"city": "Oslo"}, "toolu_3")],
        "tool_calls": [called('{"city": "Oslo"}', "toolu_3")],
    }
    message = choice_of(record(langfuse, observation(output=json.dumps(both))))["message"]
    assert message == {
        "role": "assistant",
        "content": "Again.",
        "tool_calls": [called('{"city": "Oslo"}', "toolu_3")],
    }


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(
            use([1]), "`response.content[0].input` is an array, expected an object", id="input"
        ),
        pytest.param(
            {"type": "tool_use", "id": "t", "input": {}},
            "`response.content[0].name` is missing, expected text",
            id="name",
        ),
        pytest.param("text", "`response.content[0]` is text, expected an object", id="text"),
    ],
)
def test_a_block_that_is_none_is_refused_with_its_place(block: Json, expected: str):
    assert reason(openai_logs, logged(content=[block])) == expected
