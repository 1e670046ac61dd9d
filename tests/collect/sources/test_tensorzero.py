import json

import pytest

from components.collect.record import Found
from components.collect.sources import tensorzero
from components.schema import Json
from tests import logs
from tests.collect.sources.reading import read, reason, record

INFERENCE_ID = "0199c9b3-a580-7000-8000-000000000001"
EPISODE_ID = "0199c9b3-a580-7000-8000-000000000002"
FEEDBACK_ID = "0199c9b4-2c20-7000-8000-000000000003"
AT = 1_760_025_617.792
"""The time that INFERENCE_ID begins with, in unix seconds."""

INPUT: Json = {
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thought", "text": "Look it up."},
                {
                    "type": "tool_call",
                    "id": "call_1",
                    "name": "weather",
                    "arguments": {"city": "Rome"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "id": "call_1", "name": "weather", "result": "clear"},
                {"type": "text", "text": "And Oslo?"},
                {"type": "file", "file": {"url": "https://x.test/a.png", "mime_type": "image/png"}},
            ],
        },
    ],
}
OUTPUT: Json = [
    {"type": "text", "text": "Asking."},
    {
        "type": "tool_call",
        "id": "call_2",
        "name": "weather",
        "arguments": {"city": "Oslo"},
        "raw_name": "weather",
        "raw_arguments": '{"city":"Oslo"}',
    },
]
MESSAGES: Json = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Rome"}},
            }
        ],
        "reasoning_content": "Look it up.",
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "clear"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "And Oslo?"},
            {"type": "file", "file": {"url": "https://x.test/a.png", "mime_type": "image/png"}},
        ],
    },
]
ANSWER: Json = {
    "role": "assistant",
    "content": "Asking.",
    "tool_calls": [
        {
            "id": "call_2",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
        }
    ],
}
TOOL: Json = {
    "name": "weather",
    "description": "Tell the weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def chat_inference(**changes: Json) -> dict[str, Json]:
    """Write a row of ChatInference as ClickHouse exports it (JSONEachRow)."""
    row: dict[str, Json] = {
        "id": INFERENCE_ID,
        "function_name": "forecast",
        "variant_name": "gpt_4o_mini",
        "episode_id": EPISODE_ID,
        "input": json.dumps(INPUT),
        "output": json.dumps(OUTPUT),
        "tool_params": "",
        "inference_params": '{"chat_completion":{"temperature":0.5,"json_mode":null}}',
        "processing_time_ms": 812,
        "timestamp": "2025-10-09 08:53:20",
        "tags": {"user_id": "u-7"},
        "extra_body": None,
        "ttft_ms": None,
        "dynamic_tools": [json.dumps(TOOL)],
        "dynamic_provider_tools": [],
        "allowed_tools": None,
        "tool_choice": '"auto"',
        "parallel_tool_calls": False,
        "snapshot_hash": None,
    }
    return row | changes


def feedback(**columns: Json) -> dict[str, Json]:
    """Write a row of one of the tables of feedback."""
    return {
        "id": FEEDBACK_ID,
        "tags": {"author": "ann"},
        "timestamp": "2025-10-09 08:55:00",
        **columns,
    }


@pytest.mark.parametrize("is_text", [True, False], ids=["json-as-text", "json-as-it-is"])
def test_a_chat_inference_is_an_interaction_field_by_field(is_text: bool):
    row = chat_inference() if is_text else chat_inference(input=INPUT, output=OUTPUT)
    assert tensorzero.claims(row)
    assert record(tensorzero, row) == {
        "timestamp": "2025-10-09 08:53:20",
        "workload_id": "forecast",
        "client_id": "shop",
        "request": {
            "messages": MESSAGES,
            "temperature": 0.5,
            "tools": [logs.WEATHER],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
        },
        "response": {
            "id": INFERENCE_ID,
            "choices": [{"index": 0, "message": ANSWER, "finish_reason": "tool_calls"}],
        },
        "conversation_id": EPISODE_ID,
        "user_id": "u-7",
        "metadata": {"user_id": "u-7", "variant_name": "gpt_4o_mini"},
    }


def test_older_rows_hold_their_tools_in_tool_params_and_their_text_in_value():
    params: Json = {"tools_available": [TOOL], "tool_choice": "required"}
    given: Json = {"messages": [{"role": "user", "content": [{"type": "text", "value": "Rome?"}]}]}
    columns = ("dynamic_tools", "tool_choice", "parallel_tool_calls")
    row = chat_inference(input=json.dumps(given), tool_params=json.dumps(params))
    older = {key: value for key, value in row.items() if key not in columns}
    assert record(tensorzero, older)["request"] == {
        "messages": [{"role": "user", "content": "Rome?"}],
        "temperature": 0.5,
        "tools": [logs.WEATHER],
        "tool_choice": "required",
    }


def test_a_row_without_a_timestamp_has_the_time_of_its_id():
    row = {key: value for key, value in chat_inference().items() if key != "timestamp"}
    assert record(tensorzero, row)["timestamp"] == AT


def test_a_json_inference_answers_with_its_raw_output_and_keeps_its_schema():
    row: dict[str, Json] = {
        "id": INFERENCE_ID,
        "function_name": "extract",
        "variant_name": "v1",
        "episode_id": EPISODE_ID,
        "input": json.dumps(
            {"system": {"style": "short"}, "messages": [{"role": "user", "content": "I am Ann."}]}
        ),
        "output": json.dumps({"raw": '{"name": "Ann"}', "parsed": {"name": "Ann"}}),
        "output_schema": '{"type": "object"}',
        "inference_params": "{}",
        "timestamp": "2025-10-09 08:53:20",
        "tags": {},
        "auxiliary_content": "[]",
    }
    assert tensorzero.claims(row)
    found = record(tensorzero, row)
    schema: Json = {"name": "extract", "schema": {"type": "object"}}
    assert found["request"] == {
        "messages": [
            {"role": "system", "content": '{"style": "short"}'},
            {"role": "user", "content": "I am Ann."},
        ],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    assert found["response"] == {
        "id": INFERENCE_ID,
        "choices": [{"index": 0, "message": logs.say('{"name": "Ann"}'), "finish_reason": "stop"}],
    }


def test_a_metric_says_not_what_it_is_about():
    solved = feedback(target_id=EPISODE_ID, metric_name="task_solved", value=True)
    assert tensorzero.claims(solved)
    assert record(tensorzero, solved) == {
        "timestamp": "2025-10-09 08:55:00",
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "ann",
        "kind": "outcome",
        "value": {"name": "task_solved", "value": True},
        "target_id": EPISODE_ID,
        "metadata": {"author": "ann"},
    }


@pytest.mark.parametrize(
    ("row", "kind", "value", "target"),
    [
        pytest.param(
            feedback(target_id=INFERENCE_ID, metric_name="thumbs_up", value=False),
            "thumb",
            "down",
            ("target_id", INFERENCE_ID),
            id="thumb",
        ),
        pytest.param(
            feedback(target_id=INFERENCE_ID, metric_name="quality", value=0.75),
            "outcome",
            {"name": "quality", "value": 0.75},
            ("target_id", INFERENCE_ID),
            id="float",
        ),
        pytest.param(
            feedback(target_id=INFERENCE_ID, target_type="inference", value="Too long."),
            "comment",
            "Too long.",
            ("response_id", INFERENCE_ID),
            id="comment-on-an-inference",
        ),
        pytest.param(
            feedback(target_id=EPISODE_ID, target_type="episode", value="Slow."),
            "comment",
            "Slow.",
            ("conversation_id", EPISODE_ID),
            id="comment-on-an-episode",
        ),
        pytest.param(
            feedback(inference_id=INFERENCE_ID, value=json.dumps(OUTPUT)),
            "correction",
            ANSWER,
            ("response_id", INFERENCE_ID),
            id="demonstration",
        ),
        pytest.param(
            feedback(inference_id=INFERENCE_ID, value='{"parsed": {"name": "Bob"}}'),
            "correction",
            logs.say('{"name": "Bob"}'),
            ("response_id", INFERENCE_ID),
            id="demonstration-of-a-json-function",
        ),
    ],
)
def test_feedback_of_each_table_has_its_kind_and_target(
    row: dict[str, Json], kind: str, value: Json, target: tuple[str, str]
):
    assert tensorzero.claims(row)
    found = record(tensorzero, row)
    assert (found["kind"], found["value"], found[target[0]]) == (kind, value, target[1])
    (only,) = read(tensorzero, row)
    assert isinstance(only, Found)
    assert only.kind == "feedback"


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        pytest.param(
            chat_inference(input="{"),
            '`input` is the text "{", wants JSON as text or as it is',
            id="input",
        ),
        pytest.param(
            chat_inference(input=[]),
            "`input` is an array, wants an object, or its JSON as text",
            id="input-type",
        ),
        pytest.param(
            chat_inference(input={"messages": [{"role": "user", "content": 3}]}),
            "`input.messages[0].content` is a number, wants an array of content blocks",
            id="content",
        ),
        pytest.param(
            chat_inference(output={"text": "Hi"}),
            "`output` is an object, wants an array of content blocks, or an object with `raw`",
            id="output",
        ),
        pytest.param(
            chat_inference(output=[{"type": "tool_call", "name": None}]),
            "`output[0].name` is null, wants text",
            id="call",
        ),
        pytest.param(
            chat_inference(function_name=None), "`function_name` is null, wants text", id="function"
        ),
        pytest.param(
            chat_inference(id="x", timestamp=None),
            '`id` is "x", wants a UUIDv7, or a `timestamp` beside it',
            id="time",
        ),
        pytest.param(
            chat_inference(tags="none"),
            '`tags` is the text "none", wants JSON as text or as it is',
            id="tags",
        ),
        pytest.param(
            feedback(target_id=INFERENCE_ID, metric_name="m", value="high"),
            "`value` is text, wants a boolean or a number",
            id="metric",
        ),
        pytest.param(
            feedback(target_id=INFERENCE_ID, target_type="model", value="x"),
            '`target_type` is "model", wants inference or episode',
            id="target-type",
        ),
    ],
)
def test_a_row_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], wanted: str
):
    assert reason(tensorzero, row) == wanted


def test_rows_of_other_sources_are_not_claimed():
    assert not tensorzero.claims(logs.interaction())
    assert not tensorzero.claims(logs.feedback())
