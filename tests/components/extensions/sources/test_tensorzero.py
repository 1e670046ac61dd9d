import json

import pytest

from components.collect.source import ParsedRecord
from components.extensions.sources import tensorzero
from components.schema import Json
from tests.support import logs
from tests.support.source_reading import read, reason, record
from tests.support.tensorzero_rows import (
    ANSWER,
    AT,
    EPISODE_ID,
    INFERENCE_ID,
    INPUT,
    MESSAGES,
    OUTPUT,
    TOOL,
    chat_inference,
    feedback,
)


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
        "duration_ms": 812,
    }


def test_older_rows_hold_their_tools_in_tool_params_and_their_text_in_value():
    params: Json = {"tools_available": [TOOL], "tool_choice": "required"}
    source_input: Json = {
        "messages": [{"role": "user", "content": [{"type": "text", "value": "Rome?"}]}]
    }
    columns = ("dynamic_tools", "tool_choice", "parallel_tool_calls")
    row = chat_inference(input=json.dumps(source_input), tool_params=json.dumps(params))
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
    converted = record(tensorzero, row)
    schema: Json = {"name": "extract", "schema": {"type": "object"}}
    assert converted["request"] == {
        "messages": [
            {"role": "system", "content": '{"style": "short"}'},
            {"role": "user", "content": "I am Ann."},
        ],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    assert converted["response"] == {
        "id": INFERENCE_ID,
        "choices": [{"index": 0, "message": logs.say('{"name": "Ann"}'), "finish_reason": "stop"}],
    }


def test_a_metric_has_an_open_target():
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
    converted = record(tensorzero, row)
    assert (converted["kind"], converted["value"], converted[target[0]]) == (kind, value, target[1])
    (only,) = read(tensorzero, row)
    assert isinstance(only, ParsedRecord)
    assert only.kind == "feedback"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            chat_inference(input="{"),
            '`input` is the text "{", expected JSON as text or as it is',
            id="input",
        ),
        pytest.param(
            chat_inference(input=[]),
            "`input` is an array, expected an object, or its JSON as text",
            id="input-type",
        ),
        pytest.param(
            chat_inference(input={"messages": [{"role": "user", "content": 3}]}),
            "`input.messages[0].content` is a number, expected an array of content blocks",
            id="content",
        ),
        pytest.param(
            chat_inference(output={"text": "Hi"}),
            "`output` is an object, expected an array of content blocks, or an object with `raw`",
            id="output",
        ),
        pytest.param(
            chat_inference(output=[{"type": "tool_call", "name": None}]),
            "`output[0].name` is null, expected text",
            id="call",
        ),
        pytest.param(
            chat_inference(function_name=None),
            "`function_name` is null, expected text",
            id="function",
        ),
        pytest.param(
            chat_inference(id="x", timestamp=None),
            '`id` is "x", expected a UUIDv7, or a `timestamp` beside it',
            id="time",
        ),
        pytest.param(
            chat_inference(tags="none"),
            '`tags` is the text "none", expected JSON as text or as it is',
            id="tags",
        ),
        pytest.param(
            feedback(target_id=INFERENCE_ID, metric_name="m", value="high"),
            "`value` is text, expected a boolean or a number",
            id="metric",
        ),
        pytest.param(
            feedback(target_id=INFERENCE_ID, target_type="model", value="x"),
            '`target_type` is "model", expected inference or episode',
            id="target-type",
        ),
    ],
)
def test_a_row_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], expected: str
):
    assert reason(tensorzero, row) == expected


def test_rows_of_other_sources_are_not_claimed():
    assert not tensorzero.claims(logs.interaction())
    assert not tensorzero.claims(logs.feedback())
