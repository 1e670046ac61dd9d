"""A body that is damaged anywhere is read, or refused with the field's name; nothing else."""

from collections.abc import Callable

import orjson
import pytest

from components.schema import Json
from components.serve.chat_request import chat_of, completion_of
from components.serve.openai_error import OpenAiError
from components.serve.responses_request import response_of
from tests.support import mutation

SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION: dict[str, Json] = {"name": "f", "description": "d", "parameters": SCHEMA}
COMMON: dict[str, Json] = {"model": "w", "metadata": {"a": "b"}, "stream": True, "user": "u"}
CALLED: dict[str, Json] = {"name": "f", "arguments": "{}"}
CHAT: dict[str, Json] = {
    **COMMON,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "ok", "tool_call_id": "c"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    "stop": ["a"],
    "stream_options": {"include_usage": True},
    "logprobs": True,
    "top_logprobs": 2,
    "n": 1,
}
RESPONSE: dict[str, Json] = {
    **COMMON,
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "t"}]},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
    "max_output_tokens": 16,
}
COMPLETION: dict[str, Json] = {
    **COMMON,
    "prompt": ["a"],
    "logprobs": 1,
    "echo": False,
    "suffix": "",
}


@pytest.mark.parametrize(
    ("read", "body"),
    [
        pytest.param(chat_of, CHAT, id="chat"),
        pytest.param(response_of, RESPONSE, id="response"),
        pytest.param(completion_of, COMPLETION, id="completion"),
    ],
)
def test_a_damaged_body_is_read_or_refused_by_the_name_of_its_field(
    read: Callable[[dict[str, Json]], object], body: dict[str, Json]
) -> None:
    read(body)
    refused = 0
    for damaged in mutation.mutants([body], 1_000, seed=5):
        try:
            sent = orjson.dumps(damaged)
        except TypeError:  # no JSON text, so no client can send it
            continue
        try:
            read(orjson.loads(sent))
        except OpenAiError as error:
            refused += 1
            assert error.status == 400
            assert error.to_json()["param"]
    assert refused > 100
