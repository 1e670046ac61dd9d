"""Bodies of Gemini's ``generateContent`` with their responses."""

import json

import pytest

from components.collect.sources import openai_logs
from components.schema import Json
from tests.support.gemini_bodies import ASKED, answered, candidate
from tests.support.source_reading import reason, record

USER: Json = {"role": "user", "parts": [{"text": "Weather in Rome?"}]}


def pair(response: Json = None, **request: Json) -> dict[str, Json]:
    return {"request": {"contents": [USER], **request}, "response": response or answered()}


def asked(**request: Json) -> dict[str, Json]:
    converted = record(openai_logs, pair(**request))["request"]
    assert isinstance(converted, dict)
    return converted


def choices(response: Json) -> Json:
    converted = record(openai_logs, pair(response))["response"]
    assert isinstance(converted, dict)
    return converted["choices"]


def test_a_row_of_a_batch_on_vertex_ai_is_an_interaction():
    row = {"status": "", "processed_time": "2024-11-01T18:13:16.826+00:00"} | pair()
    assert openai_logs.claims(row)
    read = record(openai_logs, row)
    assert read["timestamp"] == "2024-11-01T18:13:16.826+00:00"
    assert read["request"] == {"messages": [{"role": "user", "content": "Weather in Rome?"}]}


def test_a_pair_without_a_time_has_that_of_its_response():
    assert record(openai_logs, pair())["timestamp"] == "2025-09-08T21:04:11.034753Z"


def test_a_row_of_a_batch_that_failed_has_no_answer():
    row = {"status": "Bad Request: 400", "processed_time": "x"} | pair({})
    row["response"] = {}
    assert reason(openai_logs, row) == "`response.candidates[0]` is missing, expected a candidate"


@pytest.mark.parametrize(
    "contents",
    [
        "Weather in Rome?",
        USER,
        {"parts": {"text": "Weather in Rome?"}},
        [{"parts": [{"text": "Weather in Rome?"}]}],
        ["Weather in Rome?"],
        [{"text": "Weather in Rome?"}],
    ],
    ids=["text", "one-content", "one-part", "no-role", "a-list-of-text", "a-list-of-parts"],
)
def test_contents_may_be_as_short_as_the_api_and_its_clients_take_them(contents: Json):
    assert asked(contents=contents)["messages"] == [{"role": "user", "content": "Weather in Rome?"}]


@pytest.mark.parametrize(
    "instruction",
    [
        "Be brief.",
        {"parts": {"text": "Be brief."}},
        {"role": "system", "parts": [{"text": "Be brief."}]},
    ],
    ids=["text", "one-part", "role"],
)
def test_the_system_prompt_comes_first(instruction: Json):
    messages = asked(systemInstruction=instruction)["messages"]
    assert isinstance(messages, list)
    assert messages[0] == {"role": "system", "content": "Be brief."}


PART: dict[str, Json] = dict.fromkeys(
    [
        *("text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall"),
        *("functionResponse", "executableCode", "codeExecutionResult", "videoMetadata"),
    ]
)
CALL: dict[str, Json] = dict.fromkeys(("id", "name", "args", "partialArgs", "willContinue"))


def dumped(value: Json, *, is_snake: bool) -> Json:
    """Write a value as ``model_dump(mode="json")`` of Google's client for Python does.

    It writes the keys that a part lacks as null.
    """
    match value:
        case dict():
            whole = (PART if value.keys() & PART.keys() else {}) | value
            whole = CALL | whole if value.keys() & {"args"} else whole
            return {
                _snake(key) if is_snake else key: dumped(whole[key], is_snake=is_snake)
                for key in whole
            }
        case list():
            return [dumped(inner, is_snake=is_snake) for inner in value]
        case _:
            return value


def _snake(key: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in key)


@pytest.mark.parametrize("is_snake", [True, False], ids=["names-of-python", "names-of-the-api"])
def test_what_googles_client_for_python_dumps_is_read_the_same(is_snake: bool):
    response = answered(
        candidate({"text": "I look."}, {"functionCall": {"name": "weather", "args": {}}}),
        usageMetadata={"promptTokenCount": 9, "cachedContentTokenCount": 4},
    )
    request: Json = {key: ASKED[key] for key in ("contents", "tools", "toolConfig")}
    row: dict[str, Json] = {"request": request, "response": response}
    written = {key: dumped(value, is_snake=is_snake) for key, value in row.items()}
    assert record(openai_logs, written) == record(openai_logs, row)


def test_bytes_in_the_alphabet_of_addresses_are_those_of_data_urls():
    """So Google's client for Python dumps them."""
    part: Json = {"inlineData": {"mimeType": "image/png", "data": "__777z4_"}}
    assert asked(contents=[{"parts": [part]}])["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,//777z4/"}}
            ],
        }
    ]


def test_calls_and_results_without_ids_belong_together_by_name_and_order():
    def call(name: str, **more: Json) -> Json:
        return {"functionCall": {"name": name, "args": {}, **more}}

    def result(name: str, text: str, **more: Json) -> Json:
        return {"functionResponse": {"name": name, "response": {"output": text}, **more}}

    contents: Json = [
        USER,
        {"role": "model", "parts": [call("a"), call("b"), call("a"), call("c", id="x9")]},
        {
            "role": "function",
            "parts": [
                result("b", "1"),
                result("c", "2", id="x9"),
                result("a", "3"),
                result("a", "4"),
                result("d", "5"),
            ],
        },
        {"role": "model", "parts": [call("a")]},
        {"role": "user", "parts": [result("a", "6"), {"text": "And now?"}]},
    ]
    messages = asked(contents=contents)["messages"]
    assert isinstance(messages, list)
    assert [
        (message.get("tool_call_id"), message["content"])
        for message in messages
        if isinstance(message, dict) and message["role"] == "tool"
    ] == [
        ("call_1", '{"output": "1"}'),
        ("x9", '{"output": "2"}'),
        ("call_0", '{"output": "3"}'),
        ("call_2", '{"output": "4"}'),
        (None, '{"output": "5"}'),
        ("call_4", '{"output": "6"}'),
    ]
    assert messages[-1] == {"role": "user", "content": "And now?"}


def test_parts_without_a_content_are_one_of_the_user():
    contents: Json = [
        "What is",
        {"text": "this?"},
        {"role": "model", "parts": [{"text": "A shoe."}]},
        "Thanks",
    ]
    first: Json = [{"type": "text", "text": text} for text in ("What is", "this?")]
    assert asked(contents=contents)["messages"] == [
        {"role": "user", "content": first},
        {"role": "assistant", "content": "A shoe."},
        {"role": "user", "content": "Thanks"},
    ]


def test_images_and_sounds_are_those_of_openai():
    parts: Json = [
        {"text": "What is this?"},
        {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}},
        {"fileData": {"mimeType": "image/png", "fileUri": "gs://shop/a.png"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "BBBB"}},
        {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://shop/a.mp4"}},
    ]
    assert asked(contents=[{"role": "user", "parts": parts}])["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "gs://shop/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
                {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://shop/a.mp4"}},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("calling", "expected"),
    [
        ({"mode": "ANY"}, "required"),
        ({"mode": "ANY", "allowedFunctionNames": ["a", "b"]}, "required"),
        (
            {"mode": "ANY", "allowedFunctionNames": ["a"]},
            {"type": "function", "function": {"name": "a"}},
        ),
        ({"mode": "NONE"}, "none"),
        ({"mode": "VALIDATED"}, "auto"),
        ({}, None),
    ],
)
def test_which_functions_had_to_be_called_is_openais_choice(calling: Json, expected: Json):
    request = asked(toolConfig={"functionCallingConfig": calling}, tools=ASKED["tools"])
    assert request.get("tool_choice") == expected


def test_tools_of_the_server_are_left_out_and_a_json_schema_stays_as_it_is():
    schema: Json = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    tools: Json = [
        {"googleSearch": {}},
        {"functionDeclarations": [{"name": "a", "parametersJsonSchema": schema}, {"name": "b"}]},
    ]
    assert asked(tools=tools)["tools"] == [
        {"type": "function", "function": {"name": "a", "parameters": schema}},
        {"type": "function", "function": {"name": "b"}},
    ]


def test_the_form_of_the_answer_is_openais():
    config: Json = {
        "responseMimeType": "application/json",
        "responseSchema": {"type": "ARRAY", "items": {"anyOf": [{"type": "STRING"}]}},
        "stopSequences": ["END"],
        "candidateCount": 1,
        "thinkingConfig": {"thinkingBudget": 0},
    }
    schema: Json = {"type": "array", "items": {"anyOf": [{"type": "string"}]}}
    request = asked(generationConfig=config)
    assert request["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "response", "schema": schema},
    }
    assert (request["stop"], request["n"]) == (["END"], 1)
    plain = asked(generationConfig={"responseMimeType": "application/json"})
    assert plain["response_format"] == {"type": "json_object"}


def test_an_answer_may_think_and_call():
    answer = candidate(
        {"text": "Rome.", "thought": True},
        {"text": "Let me "},
        {"text": "see.", "thoughtSignature": "CtwB"},
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
        {"functionCall": {"name": "time"}},
    )
    function: Json = {"name": "weather", "arguments": {"city": "Rome"}}
    assert choices(answered(answer)) == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"type": "function", "function": function},
                    {"type": "function", "function": {"name": "time", "arguments": {}}},
                ],
                "reasoning_content": "Rome.",
            },
            "finish_reason": "tool_calls",
        }
    ]


@pytest.mark.parametrize(
    ("reason_to_stop", "expected"),
    [
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("A_NEW_REASON", "A_NEW_REASON"),
    ],
)
def test_reasons_to_stop_are_openais(reason_to_stop: str, expected: str):
    match choices(answered(candidate({"text": "Clear"}, reason=reason_to_stop))):
        case [{"finish_reason": finish}]:
            assert finish == expected
        case other:
            pytest.fail(f"{other}")


def test_an_answer_that_was_blocked_is_empty():
    assert choices(answered({"finishReason": "SAFETY", "safetyRatings": []})) == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None},
            "finish_reason": "content_filter",
        }
    ]


CHUNKS: list[Json] = [
    {
        "candidates": [candidate({"text": "Let me ", "thought": False}, reason=None)],
        "responseId": "r1",
    },
    {
        "candidates": [candidate({"text": "see."}, reason=None)],
        "usageMetadata": {"promptTokenCount": 9},
    },
    {
        "candidates": [candidate({"functionCall": {"name": "weather", "args": {}}})],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3},
        "modelVersion": "gemini-2.5-pro",
    },
]


@pytest.mark.parametrize("is_text", [False, True], ids=["array", "server-sent-events"])
def test_a_stream_is_one_answer(is_text: bool):
    text = "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in CHUNKS)
    read = record(openai_logs, {"timestamp": 1} | pair(text if is_text else CHUNKS))
    assert "finish" not in read
    function: Json = {"name": "weather", "arguments": {}}
    assert read["response"] == {
        "id": "r1",
        "model": "gemini-2.5-pro",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Let me see.",
                    "tool_calls": [{"type": "function", "function": function}],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    }


def test_a_stream_that_breaks_off_is_cut():
    assert record(openai_logs, {"timestamp": 1} | pair(CHUNKS[:2]))["finish"] == "upstream_cut"


def test_tokens_of_a_cached_prompt_are_counted_once():
    used: Json = {"promptTokenCount": 30, "candidatesTokenCount": 2, "cachedContentTokenCount": 20}
    assert record(openai_logs, pair(answered(usageMetadata=used)))["usage"] == {
        "prompt_tokens": 30,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 20},
    }


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            pair({"promptFeedback": {"blockReason": "SAFETY"}}),
            '`response.promptFeedback.blockReason` is "SAFETY", expected an answer: the prompt was '
            "blocked",
            id="blocked-prompt",
        ),
        pytest.param(
            pair([{"candidates": []}, {"error": {"code": 503}}]),
            "`response[1].error` is an object, expected a part of an answer",
            id="error-in-a-stream",
        ),
        pytest.param(
            pair(cachedContent="projects/1/locations/us/cachedContents/2"),
            '`request.cachedContent` is "projects/1/locations/us/cachedContents/2", expected all '
            "of the prompt in the request",
            id="prompt-elsewhere",
        ),
        pytest.param(
            pair(contents=[{"role": "user"}]),
            "`request.contents[0].parts` is null, expected an array",
            id="no-parts",
        ),
        pytest.param(
            pair(contents=None), "`request.contents` is null, expected an array", id="no-contents"
        ),
        pytest.param(
            pair(answered(candidate({"functionCall": {"args": {}}}))),
            "`response.candidates[0].content.parts[0].functionCall.name` is missing, expected text",
            id="call-without-a-name",
        ),
        pytest.param(
            pair(answered(candidate({"functionCall": {"name": "a", "args": "{}"}}))),
            "`response.candidates[0].content.parts[0].functionCall.args` is text, expected an "
            "object",
            id="arguments",
        ),
        pytest.param(
            pair(
                answered(
                    candidate(
                        {"functionCall": {"name": "a", "partialArgs": [], "willContinue": True}}
                    )
                )
            ),
            "`response.candidates[0].content.parts[0].functionCall.partialArgs` is an array, "
            "expected `args`",
            id="arguments-in-pieces",
        ),
        pytest.param(
            pair(systemInstruction={"parts": [{"inlineData": {}}]}),
            "`request.systemInstruction.parts[0].text` is missing, expected text",
            id="system",
        ),
    ],
)
def test_what_cannot_be_read_says_why(row: dict[str, Json], expected: str):
    assert reason(openai_logs, row) == expected
