"""Streamed chunks become a completion."""

import json

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageToolCallUnion,
)

from components.collect.sources import openai_logs
from components.schema import Json
from tests.support import logs
from tests.support.openai_completions import CALLING, REQUEST
from tests.support.source_reading import record


def test_chunks_of_a_stream_become_the_message_that_the_client_library_makes_of_them():
    state = ChatCompletionStreamState()
    for chunk in CALLING:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    theirs = state.get_final_completion().choices[0]
    response = record(openai_logs, {"request": REQUEST, "response": [*CALLING]})["response"]
    ours = ChatCompletion.model_validate(response).choices[0]
    assert (ours.finish_reason, ours.message.content) == ("tool_calls", "Let me see.")
    assert (ours.finish_reason, ours.message.content) == (
        theirs.finish_reason,
        theirs.message.content,
    )
    assert [_call(call) for call in ours.message.tool_calls or []] == [
        _call(call) for call in theirs.message.tool_calls or []
    ]


def _call(call: ChatCompletionMessageToolCallUnion) -> tuple[str, str, str]:
    assert call.type == "function"
    return call.id, call.function.name, call.function.arguments


def test_a_stream_yields_every_field_of_a_response():
    assert record(openai_logs, {"request": REQUEST, "response": [*CALLING]})["response"] == {
        "object": "chat.completion",
        "id": "chatcmpl-2",
        "created": 1_760_000_001,
        "model": "gpt-4o-mini",
        "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17},
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "Let me see.",
                    "tool_calls": [
                        {
                            "id": "call_a",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                        },
                        {
                            "id": "call_b",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                        },
                    ],
                },
            }
        ],
    }


def test_a_stream_logged_as_text_reads_like_its_chunks():
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CALLING) + "data: [DONE]\n\n"
    as_text = record(openai_logs, {"request": REQUEST, "response": text})
    assert as_text == record(openai_logs, {"request": REQUEST, "response": [*CALLING]})


def test_several_choices_of_a_stream_are_kept_apart():
    chunks: list[Json] = [
        {"id": "c", "choices": [{"index": 1, "delta": {"role": "assistant", "content": "B"}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "A"}}]},
        {"id": "c", "choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]},
    ]
    response = record(openai_logs, {"request": REQUEST, "response": chunks})["response"]
    assert response == {
        "object": "chat.completion",
        "id": "c",
        "choices": [
            {"index": 0, "message": logs.say("A"), "finish_reason": None},
            {"index": 1, "message": logs.say("Bb"), "finish_reason": "stop"},
        ],
    }


def test_a_stream_logged_as_text_may_contain_unicode_line_breaks():
    chunk = json.dumps(_chunk({"content": "a\u2028b\x85c"}), ensure_ascii=False)
    text = f"data: {chunk}\r\n\r\ndata: [DONE]\r\n"
    response = record(openai_logs, {"request": REQUEST, "response": text})["response"]
    completion = ChatCompletion.model_validate(response)
    assert completion.choices[0].message.content == "a\u2028b\x85c"


@pytest.mark.parametrize("index", [{"index": 0}, {}], ids=["one-index", "no-index"])
def test_calls_that_are_sent_whole_under_one_index_are_kept_apart(index: dict[str, Json]):
    calls = [("1", "weather", '{"city": "Rome"}'), ("2", "time", '{"city": "Oslo"}')]
    chunks: list[Json] = []
    for call_id, name, arguments in calls:
        function: Json = {"name": name, "arguments": arguments}
        call: Json = {**index, "id": call_id, "type": "function", "function": function}
        chunks.append(_chunk({"tool_calls": [call]}))
    response = record(openai_logs, {"request": REQUEST, "response": chunks})["response"]
    message = ChatCompletion.model_validate(response).choices[0].message
    assert [_call(call) for call in message.tool_calls or []] == calls


def _chunk(delta: Json) -> Json:
    choice: Json = {"index": 0, "delta": delta, "finish_reason": "stop"}
    return {"id": "c", "created": 1_760_000_000, "model": "m", "choices": [choice]}
