"""Logs of the Responses API."""

from typing import Any, cast

import pytest

from components.collect.sources import openai_logs
from components.schema import Json
from tests.support import logs
from tests.support.openai_completions import RESPONSE
from tests.support.source_reading import reason, record

FUNCTION = cast("dict[str, Json]", logs.WEATHER["function"])
LOGGED: Json = {
    "model": "gpt-5",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Oslo?"}]},
        {"type": "function_call", "call_id": "c0", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c0", "output": "rain"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And here?"},
                {"type": "input_image", "image_url": "https://x.test/a.png"},
            ],
        },
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "temperature": 0.5,
}
AS_CHAT: Json = {
    "timestamp": 1_760_000_002,
    "workload_id": "support",
    "client_id": "shop",
    "request": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Oslo?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c0",
                        "type": "function",
                        "function": {"name": "weather", "arguments": "{}"},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c0", "content": "rain"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And here?"},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                ],
            },
        ],
        "tools": [logs.WEATHER],
        "model": "gpt-5",
        "temperature": 0.5,
    },
    "response": {
        "id": "resp_1",
        "model": "gpt-5",
        "created": 1_760_000_002,
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "One moment.",
                    "tool_calls": [
                        {
                            "id": "call_a",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                        }
                    ],
                },
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6},
    },
}


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_responses_api_reads_as_a_chat_completion(is_streamed: bool):
    response: Json = RESPONSE.model_dump(mode="json")
    if is_streamed:
        response = [
            {"type": "response.created"},
            {"type": "response.completed", "response": response},
        ]
    row: dict[str, Json] = {"request": LOGGED, "response": response}
    assert openai_logs.claims(row)
    assert record(openai_logs, row) == AS_CHAT


def messages_of(*items: Json) -> Json:
    row: dict[str, Json] = {
        "request": {"input": [{"role": "user", "content": "Oslo?"}, *items]},
        "response": RESPONSE.model_dump(mode="json"),
    }
    request = record(openai_logs, row)["request"]
    return cast("Any", request)["messages"][1:]


def test_an_output_in_parts_is_read_as_text():
    called: Json = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    parts: Json = [{"type": "input_text", "text": "dry"}]
    output: Json = {"type": "function_call_output", "call_id": "c", "output": parts}
    *_, result = cast("list[Json]", messages_of(called, output))
    assert result == {"role": "tool", "tool_call_id": "c", "content": "dry"}


def test_a_custom_tools_call_is_not_left_out():
    called: Json = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "+a"}
    output: Json = {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}
    call: Json = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "+a"}}
    assert messages_of(called, output) == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param(
            {"previous_response_id": "resp_0"}, "request.previous_response_id", id="previous"
        ),
        pytest.param({"conversation": {"id": "conv_1"}}, "request.conversation", id="conversation"),
        pytest.param(
            {"input": [{"type": "item_reference", "id": "msg_1"}]},
            "request.input[0].",
            id="reference",
        ),
    ],
)
def test_a_request_whose_history_is_elsewhere_is_refused(more: dict[str, Json], expected: str):
    row: dict[str, Json] = {
        "request": {"input": "And here?", **more},
        "response": RESPONSE.model_dump(mode="json"),
    }
    assert expected in reason(openai_logs, row)
