import json

import pytest

from components.collect.source import ParsedRecord, RejectedRecord
from components.extensions.sources import langfuse
from components.schema import Json
from tests.support import logs
from tests.support.langfuse_rows import MESSAGES, observation, score
from tests.support.source_reading import read, reason, record


def test_a_generation_is_an_interaction_field_by_field():
    assert langfuse.claims(observation())
    assert record(langfuse, observation()) == {
        "timestamp": "2025-10-09 08:53:20.250000",
        "workload_id": "support",
        "client_id": "shop",
        "request": {"model": "gpt-4o-mini", "temperature": 0.7, "messages": MESSAGES},
        "response": {
            "id": "obs-1",
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3},
        },
        "conversation_id": "s-1",
        "user_id": "u-7",
        "trace_id": "trace-1",
        "metadata": {"tenant": "a", "name": "forecast", "environment": "production"},
        "duration_ms": 750.0,
    }


def test_an_observation_of_the_api_reads_the_same():
    row: dict[str, Json] = {
        "id": "obs-1",
        "traceId": "trace-1",
        "type": "GENERATION",
        "startTime": "2025-10-09T08:53:20.250Z",
        "endTime": "2025-10-09T08:53:21Z",
        "name": "forecast",
        "input": {"messages": MESSAGES, "tools": [logs.WEATHER]},
        "output": logs.call("weather", '{"city": "Rome"}'),
        "model": "gpt-4o-mini",
        "modelParameters": {"temperature": 0.7},
        "usage": {"input": 20, "output": 3, "unit": "TOKENS"},
        "metadata": {"workload_id": "weather"},
    }
    assert langfuse.claims(row)
    converted = record(langfuse, row)
    assert (converted["timestamp"], converted["workload_id"]) == (
        "2025-10-09T08:53:20.250Z",
        "weather",
    )
    assert converted["duration_ms"] == 750.0
    for ended in (None, "soon", "2025-10-09 08:53:21"):  # without a zone it can't be told
        assert "duration_ms" not in record(langfuse, row | {"endTime": ended})
    assert converted["request"] == {
        "model": "gpt-4o-mini",
        "temperature": 0.7,
        "messages": MESSAGES,
        "tools": [logs.WEATHER],
    }
    assert converted["response"] == {
        "id": "obs-1",
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": logs.call("weather", '{"city": "Rome"}'),
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3},
    }


def test_tools_and_calls_in_columns_of_their_own_are_put_where_they_belong():
    function = logs.WEATHER["function"]
    assert isinstance(function, dict)
    definition = {key: function[key] for key in ("description", "parameters")}
    row = observation(
        tool_definitions={"weather": json.dumps(definition)},
        tool_calls=['{"id": "call_1", "name": "weather", "arguments": "{}", "type": "function"}'],
        output="One moment.",
    )
    converted = record(langfuse, row)
    request, response = converted["request"], converted["response"]
    assert isinstance(request, dict)
    assert isinstance(response, dict)
    assert request["tools"] == [logs.WEATHER]
    assert response["choices"] == [
        {
            "index": 0,
            "message": {**logs.call("weather", "{}"), "content": "One moment."},
            "finish_reason": "stop",
        }
    ]


@pytest.mark.parametrize(
    ("held", "messages"),
    [
        pytest.param("Rome?", [{"role": "user", "content": "Rome?"}], id="text"),
        pytest.param("{oops", [{"role": "user", "content": "{oops"}], id="text-like-json"),
        pytest.param(
            '{"city": "Rome"}', [{"role": "user", "content": '{"city": "Rome"}'}], id="object"
        ),
        pytest.param(
            '[{"type": "human", "content": "Rome?"}]',
            [{"role": "user", "content": "Rome?"}],
            id="langchain",
        ),
    ],
)
def test_any_logged_input_becomes_the_request_messages(held: str, messages: list[Json]):
    request = record(langfuse, observation(input=held))["request"]
    assert isinstance(request, dict)
    assert request["messages"] == messages


def test_a_score_is_an_outcome_about_its_observation():
    assert langfuse.claims(score())
    assert record(langfuse, score()) == {
        "timestamp": "2025-10-09 09:00:00.000000",
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "ann",
        "kind": "outcome",
        "value": {"name": "helpfulness", "value": 0.9},
        "response_id": "obs-1",
        "comment": "Clear.",
    }


@pytest.mark.parametrize(
    ("row", "kind", "value", "target"),
    [
        pytest.param(
            score(name="user-feedback", data_type="BOOLEAN", value=1, observation_id=None),
            "thumb",
            "up",
            ("target_id", "trace-1"),
            id="thumb-on-a-trace",
        ),
        pytest.param(
            score(data_type="CATEGORICAL", string_value="partly", value=2),
            "outcome",
            {"name": "helpfulness", "value": "partly"},
            ("response_id", "obs-1"),
            id="category",
        ),
        pytest.param(
            score(
                data_type="BOOLEAN", name="solved", value=0,
                trace_id=None, observation_id=None, session_id="s-1",
            ),
            "outcome",
            {"name": "solved", "value": False},
            ("conversation_id", "s-1"),
            id="session",
        ),
        pytest.param(
            score(data_type="TEXT", string_value="Too long.", value=0),
            "comment",
            "Too long.",
            ("response_id", "obs-1"),
            id="text",
        ),
        pytest.param(
            score(name="output", data_type="CORRECTION", value="Rainy."),
            "correction",
            logs.say("Rainy."),
            ("response_id", "obs-1"),
            id="correction",
        ),
        pytest.param(
            {
                "id": "score-2", "name": "output", "dataType": "CORRECTION", "source": "ANNOTATION",
                "value": json.dumps(logs.call("weather", "{}")), "authorUserId": "ann",
                "timestamp": "2026-08-14T00:03:00Z",
                "subject": {"kind": "observation", "id": "obs-1", "traceId": "trace-1"},
            },
            "correction",
            logs.call("weather", "{}"),
            ("response_id", "obs-1"),
            id="correction-of-the-api",
        ),
    ],
)  # fmt: skip
def test_scores_of_each_type_have_their_kind_and_target(
    row: dict[str, Json], kind: str, value: Json, target: tuple[str, str]
):
    assert langfuse.claims(row)
    converted = record(langfuse, row)
    assert (converted["kind"], converted["value"], converted[target[0]]) == (kind, value, target[1])
    assert converted["actor_id"] == "ann"


def test_a_trace_of_the_api_gives_its_generations_and_its_scores():
    trace: dict[str, Json] = {
        "id": "trace-1",
        "timestamp": "2025-10-09T08:53:20Z",
        "sessionId": "s-1",
        "userId": "u-7",
        "observations": [
            {"id": "obs-0", "type": "SPAN", "traceId": "trace-1", "startTime": "2025-10-09"},
            {
                "id": "obs-1", "type": "GENERATION", "traceId": "trace-1", "input": "Rome?",
                "output": "Sunny.", "startTime": "2025-10-09T08:53:20Z",
            },
            {"id": "obs-2", "type": "GENERATION", "traceId": "trace-1", "input": "Oslo?"},
        ],
        "scores": [
            {
                "id": "score-1", "name": "thumbs_up", "dataType": "BOOLEAN", "value": 1,
                "source": "API", "timestamp": "2025-10-09T09:00:00Z", "traceId": "trace-1",
            },
        ],
    }  # fmt: skip
    assert langfuse.claims(trace)
    good, bad, thumb = read(langfuse, trace)
    assert isinstance(good, ParsedRecord)
    assert isinstance(thumb, ParsedRecord)
    assert isinstance(bad, RejectedRecord)
    assert (good.record["conversation_id"], good.record["user_id"]) == ("s-1", "u-7")
    assert bad.reason == "`output` is empty, expected messages or text"
    assert (thumb.kind, thumb.record["value"], thumb.record["target_id"]) == (
        "feedback",
        "up",
        "trace-1",
    )
    again = read(langfuse, json.loads(good.row.text))
    assert [outcome.record for outcome in again if isinstance(outcome, ParsedRecord)] == [
        good.record
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            observation(type="SPAN"),
            '`type` is "SPAN", expected GENERATION: only calls of a model are interactions',
            id="span",
        ),
        pytest.param(
            observation(input=""), "`input` is empty, expected messages or text", id="no-input"
        ),
        pytest.param(
            observation(output=3), "`output` is a number, expected messages or text", id="output"
        ),
        pytest.param(
            observation(input='[{"role": "user", "content": 3}]'),
            "`input[0].content` is a number, expected text, an array of parts or null",
            id="content",
        ),
        pytest.param(
            observation(tool_calls=["{"]),
            '`tool_calls[0]` is the text "{", expected JSON as text or as it is',
            id="calls",
        ),
        pytest.param(
            observation(session_id=7), "`session_id` is a number, expected text", id="session"
        ),
        pytest.param(score(value="high"), "`value` is text, expected a number", id="number"),
        pytest.param(
            score(data_type="BOOLEAN", value=0.5),
            "`value` is a number, expected 0 or 1, or a boolean",
            id="boolean",
        ),
        pytest.param(
            score(data_type="STARS"),
            '`data_type` is "STARS", expected NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION',
            id="type",
        ),
        pytest.param(
            score(trace_id=None, observation_id=None, dataset_run_id="run"),
            "`trace_id` is missing, expected text, or an observation_id or session_id",
            id="no-target",
        ),
    ],
)
def test_a_row_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], expected: str
):
    assert reason(langfuse, row) == expected
