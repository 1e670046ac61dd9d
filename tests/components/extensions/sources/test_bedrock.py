import json

import pytest

from components.extensions.sources import bedrock
from components.schema import Json
from tests.support.bedrock_logs import answered, invocation
from tests.support.source_reading import reason, record


def test_a_call_of_converse_is_an_interaction_field_by_field():
    assert bedrock.claims(invocation())
    weather: Json = {"name": "weather", "arguments": {"city": "Rome"}}
    assert record(bedrock, invocation()) == {
        "timestamp": "2025-03-11T00:38:02Z",
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "amazon.nova-lite-v1:0",
            "max_tokens": 512,
            "temperature": 0.7,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "description": "Tell the weather",
                        "parameters": {"type": "object"},
                    },
                }
            ],
            "tool_choice": "auto",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
                {
                    "role": "assistant",
                    "content": "I look.",
                    "tool_calls": [{"id": "t1", "type": "function", "function": weather}],
                },
                {"role": "tool", "tool_call_id": "t1", "content": '{"sky": "clear"}'},
                {"role": "user", "content": "And now?"},
            ],
        },
        "response": {
            "id": "ff4b6c63-5561-4431-93b8-06a817275900",
            "model": "amazon.nova-lite-v1:0",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Clear."},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 4, "completion_tokens": 38},
        },
        "user_id": "u-7",
        "trace_id": "ff4b6c63-5561-4431-93b8-06a817275900",
        "duration_ms": 302,
        "metadata": {
            "user_id": "u-7",
            "team": "travel",
            "region": "us-east-1",
            "operation": "ConverseStream",
        },
    }


def test_an_answer_may_call_tools_and_think():
    thought: Json = {"reasoningContent": {"reasoningText": {"text": "Rome.", "signature": "x"}}}
    call: Json = {"toolUse": {"toolUseId": "t2", "name": "weather", "input": {"city": "Rome"}}}
    response = record(bedrock, invocation(answer=answered(thought, call, reason="tool_use")))[
        "response"
    ]
    assert isinstance(response, dict)
    assert response["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "t2",
                        "type": "function",
                        "function": {"name": "weather", "arguments": {"city": "Rome"}},
                    }
                ],
                "reasoning_content": "Rome.",
            },
            "finish_reason": "tool_calls",
        }
    ]


@pytest.mark.parametrize("is_text", [False, True], ids=["as-it-is", "as-text"])
def test_an_invoked_model_of_anthropic_is_read_streamed_or_not(is_text: bool):
    asked: Json = {"anthropic_version": "x", "messages": [{"role": "user", "content": "Rain?"}]}
    whole: dict[str, Json] = {
        "id": "msg_bdrk_1",
        "role": "assistant",
        "content": [{"type": "text", "text": "Dry."}],
        "stop_reason": "end_turn",
    }
    stream: Json = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Dry."},
        },
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ]
    answers: list[Json] = [whole, stream]
    responses = [
        record(
            bedrock,
            invocation(json.dumps(asked) if is_text else asked, json.dumps(a) if is_text else a),
        )["response"]
        for a in answers
    ]
    assert responses[0] == responses[1]
    assert isinstance(responses[0], dict)
    assert responses[0]["id"] == "msg_bdrk_1"
    assert responses[0]["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Dry."},
            "finish_reason": "stop",
        }
    ]


def test_what_cannot_be_read_says_why():
    elsewhere: Json = {"inputBodyS3Path": "s3://logs/data/a_input.json.gz"}
    assert "it is in s3://logs/data/a_input.json.gz" in reason(bedrock, invocation(input=elsewhere))
    failed = invocation(errorCode="ThrottlingException", output=None)
    assert "the call has no answer" in reason(bedrock, failed)
    llama = invocation({"prompt": "<|begin_of_text|>Rain?"}, {"generation": "Dry."})
    assert reason(bedrock, llama) == "`input.inputBodyJson.messages` is missing, expected an array"
