"""Write what OpenAI's API takes and gives: requests, completions, chunks and responses."""

from typing import cast

from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from components.schema import Json
from tests.support import logs

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


def text_completion(text: str, **changes: Json) -> dict[str, Json]:
    """Write a response, or a chunk of one, of the older API that takes a prompt."""
    value: dict[str, Json] = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1_760_000_000,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }
    model = Completion.model_validate(value)
    return cast("dict[str, Json]", model.model_dump(mode="json", exclude_unset=True)) | changes


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
