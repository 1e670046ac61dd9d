import json
from typing import cast

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageToolCallUnion,
)
from openai.types.responses import Response

from components.collect.record import Found, Refused
from components.collect.sources import openai_logs
from components.schema import Json
from tests import logs
from tests.collect.sources.reading import read, reason, record, records

REQUEST: dict[str, Json] = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "You sell shoes."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
    ],
    "tools": [logs.WEATHER],
    "temperature": 0.2,
    "user": "u-7",
}


def completion(**changes: Json) -> dict[str, Json]:
    """Write a response as the client library has it."""
    value: dict[str, Json] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "A shoe."},
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
    }
    model = ChatCompletion.model_validate(value)
    return cast("dict[str, Json]", model.model_dump(mode="json", exclude_unset=True)) | changes


def chunk(delta: dict[str, Json], finish: str | None = None, **more: Json) -> dict[str, Json]:
    value: dict[str, Json] = {
        "id": "chatcmpl-2",
        "object": "chat.completion.chunk",
        "created": 1_760_000_001,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    model = ChatCompletionChunk.model_validate(value)
    return cast("dict[str, Json]", model.model_dump(mode="json", exclude_unset=True))


def piece(index: int, arguments: str, **head: Json) -> dict[str, Json]:
    name: dict[str, Json] = {"name": head.pop("name")} if "name" in head else {}
    function: Json = {**name, "arguments": arguments}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


USED: dict[str, Json] = {
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17},
}
CALLING: list[dict[str, Json]] = [
    chunk({"role": "assistant", "content": None}),
    chunk({"content": "Let me "}),
    chunk({"content": "see."}),
    chunk(piece(0, "", id="call_a", type="function", name="weather")),
    chunk(piece(0, '{"city": "Ro')),
    chunk(piece(1, "", id="call_b", type="function", name="weather")),
    chunk(piece(0, 'me"}')),
    chunk(piece(1, '{"city": "Oslo"}')),
    chunk({}, "tool_calls"),
    chunk({}) | USED,
]


def test_a_logged_request_with_its_response_is_taken_as_it_is():
    row: dict[str, Json] = {"request": REQUEST, "response": completion(), "conversation_id": "c1"}
    assert openai_logs.claims(row)
    assert record(openai_logs, row) == {
        "timestamp": 1_760_000_000,
        "workload_id": "support",
        "client_id": "shop",
        "request": REQUEST,
        "response": completion(),
        "conversation_id": "c1",
        "user_id": "u-7",
    }


def test_the_bodies_of_an_http_log_are_found_and_its_own_time_counts():
    row: dict[str, Json] = {
        "timestamp": "2025-10-09T08:53:20Z",
        "request": {"method": "POST", "url": "/v1/chat/completions", "body": REQUEST},
        "response": {"status_code": 200, "request_id": "req_1", "body": completion()},
    }
    assert openai_logs.claims(row)
    found = record(openai_logs, row)
    assert found["timestamp"] == "2025-10-09T08:53:20Z"
    assert (found["request"], found["response"]) == (REQUEST, completion())


def test_chunks_of_a_stream_become_the_message_that_the_client_library_makes_of_them():
    state = ChatCompletionStreamState()
    for one in CALLING:
        state.handle_chunk(ChatCompletionChunk.model_validate(one))
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


def test_a_stream_gives_every_field_of_a_response():
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
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in CALLING) + "data: [DONE]\n\n"
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


def test_a_stored_completion_carries_its_request():
    stored = completion(
        temperature=1.0, tools=[logs.WEATHER], tool_choice=None, input_user="u-7",
        metadata={"task": "shoes"}, request_id="req_1",
        messages={
            "object": "list",
            "data": [
                {"id": "chatcmpl-1-0", "role": "user", "content": "Hello", "content_parts": None},
                {
                    "id": "chatcmpl-1-1", "role": "user", "content": None,
                    "content_parts": [{"type": "text", "text": "Look"}],
                },
            ],
        },
    )  # fmt: skip
    assert openai_logs.claims(stored)
    assert record(openai_logs, stored) == {
        "timestamp": 1_760_000_000,
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "gpt-4o-mini-2024-07-18",
            "tools": [logs.WEATHER],
            "temperature": 1.0,
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "user", "content": [{"type": "text", "text": "Look"}]},
            ],
        },
        "response": completion(),
        "user_id": "u-7",
        "metadata": {"task": "shoes"},
    }


def test_a_page_of_stored_completions_is_cut_into_its_parts():
    good = completion(messages=[{"role": "user", "content": "Hello"}])
    page: dict[str, Json] = {"object": "list", "data": [good, completion(id="chatcmpl-9")]}
    assert openai_logs.claims(page)
    first, second = read(openai_logs, page)
    assert isinstance(first, Found)
    assert json.loads(first.row.text) == good
    assert isinstance(second, Refused)
    assert second.reason == "`messages` is missing, wants an array"
    assert json.loads(second.row.text) == completion(id="chatcmpl-9")


RESPONSE = Response.model_validate(
    {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_760_000_002,
        "model": "gpt-5",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "One moment.", "annotations": []}],
            },
            {
                "type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "weather",
                "arguments": '{"city": "Rome"}', "status": "completed",
            },
        ],
        "usage": {
            "input_tokens": 5, "output_tokens": 6, "total_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
)  # fmt: skip


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_responses_api_reads_as_a_chat_completion(is_streamed: bool):
    response: Json = RESPONSE.model_dump(mode="json")
    if is_streamed:
        response = [
            {"type": "response.created"},
            {"type": "response.completed", "response": response},
        ]
    function: dict[str, Json] = dict(cast("dict[str, Json]", logs.WEATHER["function"]))
    row: dict[str, Json] = {
        "request": {
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
            "tools": [{"type": "function", **function}],
            "temperature": 0.5,
        },
        "response": response,
    }
    assert openai_logs.claims(row)
    assert record(openai_logs, row) == {
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


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        pytest.param(
            {"request": {"messages": 3}, "response": completion()},
            "`request.messages` is a number, wants an array",
            id="messages",
        ),
        pytest.param(
            {"request": {"messages": [{"content": "x"}]}, "response": completion()},
            "`request.messages[0].role` is missing, wants text",
            id="role",
        ),
        pytest.param(
            {"request": {"body": {"messages": ["x"]}}, "response": completion()},
            "`request.body.messages[0]` is text, wants an object",
            id="message-in-a-body",
        ),
        pytest.param(
            {"request": REQUEST, "response": {"error": {"code": "429"}}},
            "`response.error` is an object, wants a response with `choices`",
            id="failed-request",
        ),
        pytest.param(
            {"request": REQUEST, "response": [{"choices": [{"index": "0", "delta": {}}]}]},
            "`response[0].choices[0].index` is text, wants a whole number",
            id="chunk",
        ),
        pytest.param(
            {"request": REQUEST, "response": []},
            "`response[].choices` is missing, wants at least one choice in the chunks of a stream",
            id="empty-stream",
        ),
        pytest.param(
            {"request": REQUEST, "response": "data: {oops\n"},
            '`response` is the text "{oops", wants JSON as text or as it is',
            id="damaged-stream",
        ),
        pytest.param(
            {"request": REQUEST, "response": "sorry"},
            '`response` is "sorry", wants a response, or the `data:` lines of a stream',
            id="text",
        ),
        pytest.param(
            completion(messages=[{"role": "user", "content": 7}]),
            "`messages[0].content` is a number, wants text, an array of parts or null",
            id="stored",
        ),
    ],
)
def test_a_row_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], wanted: str
):
    assert reason(openai_logs, row) == wanted


def test_a_five_key_line_belongs_to_another_source():
    assert not openai_logs.claims(logs.interaction())
    assert not openai_logs.claims({"messages": []})


def test_good_rows_beside_bad_ones_are_read():
    row: dict[str, Json] = {"request": REQUEST, "response": completion()}
    assert len(records(openai_logs, row, row)) == 2
    assert [type(one) for one in read(openai_logs, {"request": 1}, row)] == [Refused, Found]
