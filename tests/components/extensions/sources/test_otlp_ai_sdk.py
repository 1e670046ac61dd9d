"""Spans of Vercel's AI SDK."""

import json

import pytest

from components.extensions.sources import otlp
from components.schema import Json
from tests.support import logs
from tests.support.otlp_requests import CALL, attribute, span, text, typed
from tests.support.source_reading import record

CALLED: dict[str, Json] = {"type": "tool-call", "toolCallId": "call_1", "toolName": "weather"}
RESULT: dict[str, Json] = {"type": "tool-result", "toolCallId": "call_1", "toolName": "weather"}


def sdk_span(asked: Json, *attributes: Json) -> dict[str, Json]:
    """Write a span of a call to a provider."""
    written: list[Json] = [
        text("operation.name", "ai.generateText.doGenerate"),
        text("gen_ai.system", "openai.chat"),
        text("ai.telemetry.metadata.userId", "u-7"),
        text("ai.prompt.messages", json.dumps(asked)),
        *attributes,
    ]
    return span(attributes=written)


@pytest.mark.parametrize(
    ("call", "result", "schema"),
    [
        pytest.param(
            {"input": {"city": "Rome"}},
            {"output": {"type": "json", "value": {"sky": "clear"}}},
            "inputSchema",
            id="version-5",
        ),
        pytest.param(
            {"args": {"city": "Rome"}}, {"result": {"sky": "clear"}}, "parameters", id="version-4"
        ),
    ],
)
def test_a_span_of_the_ai_sdk_is_an_interaction(
    call: dict[str, Json], result: dict[str, Json], schema: str
):
    asked: Json = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
        {"role": "assistant", "content": [CALLED | call]},
        {"role": "tool", "content": [RESULT | result]},
    ]
    function = logs.WEATHER["function"]
    assert isinstance(function, dict)
    tool = {"type": "function", "name": function["name"], schema: function["parameters"]}
    tool |= {"description": function["description"]} if "description" in function else {}
    interaction = record(
        otlp,
        sdk_span(
            asked,
            attribute("ai.prompt.tools", typed([json.dumps(tool)])),
            text("ai.response.text", "Clear."),
            text("ai.response.finishReason", "stop"),
            text("gen_ai.response.id", "chatcmpl-1"),
        ),
    )
    assert interaction["user_id"] == "u-7"
    request = interaction["request"]
    assert isinstance(request, dict)
    assert request["tools"] == [logs.WEATHER]
    messages = request["messages"]
    assert isinstance(messages, list)
    assert [message for message in messages if isinstance(message, dict)] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome?"},
        logs.call("weather", {"city": "Rome"}),
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "clear"}'},
    ]
    assert interaction["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Clear."), "finish_reason": "stop"}],
    }


def test_the_calls_of_an_answer_are_read():
    calls = [CALLED | {"type": "tool-call", "input": '{"city": "Rome"}'}]
    interaction = record(
        otlp,
        sdk_span(
            [{"role": "user", "content": "Weather in Rome?"}],
            text("ai.response.toolCalls", json.dumps(calls)),
            text("ai.response.finishReason", "tool-calls"),
        ),
    )
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        }
    ]
