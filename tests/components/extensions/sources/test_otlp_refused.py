"""OTLP that can't be read, and why."""

import json
from typing import cast

import pytest

from components.collect.source import RejectedRecord
from components.extensions.sources import otlp
from components.schema import Json
from tests.support.otlp_requests import attribute, log, question, span, text
from tests.support.source_reading import read, reason


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"resourceSpans": [{"scopeSpans": "x"}]},
            "`resourceSpans[0].scopeSpans` is text, expected an array",
            id="scopes",
        ),
        pytest.param(
            {"resourceSpans": [], "resourceLogs": []},
            "found neither a span of a model's call nor an event of one, expected `gen_ai.` "
            "attributes in `resourceSpans` or `resourceLogs`",
            id="nothing",
        ),
        pytest.param(
            span(),
            "a call has no `gen_ai.input.messages` and no events with the messages, expected both "
            "request and answer: is the capture of content turned on?",
            id="no-content",
        ),
        pytest.param(
            span(text("gen_ai.input.messages", json.dumps(question("a")))),
            "a call has no `gen_ai.output.messages` and no events with the messages, expected both "
            "request and answer: is the capture of content turned on?",
            id="no-answer",
        ),
        pytest.param(
            span(
                text("gen_ai.input.messages", json.dumps(question("a"))),
                text("error.type", "timeout"),
            ),
            "a call has failed, and there is no answer to it",
            id="failed",
        ),
        pytest.param(
            span(status={"code": "STATUS_CODE_ERROR"}),
            "a call has failed, and there is no answer to it",
            id="failed-without-content",
        ),
        pytest.param(
            span(text("gen_ai.input.messages", "[{")),
            '`gen_ai.input.messages` is the text "[{", expected JSON as text or as it is',
            id="damaged",
        ),
        pytest.param(
            span(text("gen_ai.input.messages", '[{"role": "user", "parts": [3]}]')),
            "`gen_ai.input.messages[0].parts[0]` is a number, expected an object",
            id="part",
        ),
        pytest.param(
            span(attribute("gen_ai.request.seed", {"intValue": "x"})),
            "`resourceSpans[0].scopeSpans[0].spans[0].attributes[gen_ai.request.seed]` is an "
            "object, expected an object with one of OTLP's typed values",
            id="value",
        ),
        pytest.param(
            span(startTimeUnixNano="soon"),
            "`resourceSpans[0].scopeSpans[0].spans[0].startTimeUnixNano` is text, expected "
            "nanoseconds as digits",
            id="time",
        ),
        pytest.param(
            log("gen_ai.user.message", {"content": 3}),
            "`gen_ai.user.message.content` is a number, expected text, an array of parts or null",
            id="event",
        ),
        pytest.param(
            log("gen_ai.evaluation.result", None),
            "`gen_ai.evaluation.score.value` is missing, expected a number, or a label or comment",
            id="evaluation",
        ),
    ],
)
def test_a_request_of_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], expected: str
):
    assert reason(otlp, row) == expected


def test_a_call_with_one_bad_message_is_refused_whole():
    rows = [
        log("gen_ai.system.message", {"content": 3}),
        log("gen_ai.user.message", {"content": "Hello?"}),
        log("gen_ai.choice", {"message": {"content": "Hi."}}),
    ]
    (refused,) = read(otlp, *rows)
    assert isinstance(refused, RejectedRecord)
    assert refused.reason.startswith("`gen_ai.system.message.content` is a number")
    kept = json.loads(refused.row.text)["resourceLogs"]
    assert kept == [cast("list[Json]", row["resourceLogs"])[0] for row in rows]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"startTimeUnixNano": 10**400}, id="a time beyond all floats"),
        pytest.param({"endTimeUnixNano": 10**400}, id="an end beyond all floats"),
        pytest.param(
            {"attributes": [{"key": "gen_ai.system", "value": {"intValue": "--5"}}]},
            id="an integer of two signs",
        ),
        pytest.param({"spanId": "\ud800"}, id="an id of half a surrogate pair"),
    ],
)
def test_an_odd_value_is_a_reason_that_can_be_stored(values: dict[str, Json]):
    assert reason(otlp, span(**values)).encode()
