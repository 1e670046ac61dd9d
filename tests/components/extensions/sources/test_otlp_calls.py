"""Calls whose span and log records arrive separately, and traces of several calls."""

import json
from collections.abc import Iterator
from typing import cast

import pytest

from components.collect.source import ParsedRecord, RejectedRecord, SourceRow
from components.extensions.sources import otlp
from components.schema import Json
from tests.support import logs, telemetry
from tests.support.otlp_requests import (
    OLDER,
    OLDER_CHAT,
    TRACE_ID,
    answer,
    attribute,
    log,
    question,
    span,
    text,
    typed,
)
from tests.support.source_reading import DEFAULTS, read, record, records


@pytest.mark.parametrize("comes_first", ["span", "logs"])
def test_the_older_events_as_log_records_are_joined_with_their_span(comes_first: str):
    spans, records_of_it = telemetry.logs_of_a_span(*OLDER)
    span_row, log_row = telemetry.json_form(spans), telemetry.json_form(records_of_it)
    both = [span_row, log_row] if comes_first == "span" else [log_row, span_row]
    (converted,) = read(otlp, *both)
    assert isinstance(converted, ParsedRecord)
    assert converted.record["request"] == {"messages": OLDER_CHAT, "model": "gpt-4o-mini"}
    assert converted.record["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Clear."), "finish_reason": "stop"}],
    }
    again = record(otlp, json.loads(converted.row.text))
    assert again == converted.record


def details(answer_id: str, words: str) -> dict[str, Json]:
    """Write the log record of a stream as OpenLIT 1.45 does: it names neither trace nor span."""
    return log(
        "gen_ai.client.inference.operation.details",
        "",
        attribute("gen_ai.input.messages", typed(question("Hello?"))),
        attribute("gen_ai.output.messages", typed(answer(words))),
        text("gen_ai.response.id", answer_id),
        traceId="",
        spanId="",
    )


def streamed(answer_id: str, words: str) -> dict[str, Json]:
    return span(
        text("gen_ai.input.messages", json.dumps(question("Hello?"))),
        text("gen_ai.output.messages", json.dumps(answer(words))),
        text("gen_ai.response.id", answer_id),
    )


@pytest.mark.parametrize("comes_first", ["span", "details"])
def test_a_log_record_without_a_span_repeats_the_one_with_its_answer(comes_first: str):
    both = [streamed("chatcmpl-1", "Hi."), details("chatcmpl-1", "Hi.")]
    converted = record(otlp, *(both if comes_first == "span" else both[::-1]))
    assert converted["trace_id"] == TRACE_ID


def test_a_log_record_without_a_span_is_a_call_of_its_own_if_its_answer_is():
    span_of_other = streamed("chatcmpl-1", "Hi.")
    alone = [details("chatcmpl-1", "Bye."), details("chatcmpl-2", "Hi.")]
    assert len(records(otlp, span_of_other, *alone, alone[0])) == 4


def test_log_records_without_their_span_are_an_interaction_of_their_own():
    _, records_of_it = telemetry.logs_of_a_span(*OLDER)
    converted = record(otlp, telemetry.json_form(records_of_it))
    assert converted["timestamp"] == 1_760_000_000
    assert converted["request"] == {"messages": OLDER_CHAT}
    response = converted["response"]
    assert isinstance(response, dict)
    assert len(str(response["id"])) == 16


@pytest.mark.parametrize("comes_first", ["span", "details"])
def test_the_details_event_is_an_interaction_together_with_its_bare_span(comes_first: str):
    details = log(
        "gen_ai.client.inference.operation.details",
        None,
        text("gen_ai.operation.name", "chat"),
        attribute("gen_ai.input.messages", typed(question("Hello?"))),
        attribute("gen_ai.output.messages", typed(answer("Hi."))),
    )
    bare = span(text("gen_ai.response.id", "chatcmpl-1"))
    (converted,) = read(otlp, *([bare, details] if comes_first == "span" else [details, bare]))
    assert isinstance(converted, ParsedRecord)
    assert json.loads(converted.row.text) == bare | details
    assert converted.record["request"] == {"messages": [{"role": "user", "content": "Hello?"}]}
    assert converted.record["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Hi."), "finish_reason": "stop"}],
    }


def test_messages_that_come_after_a_span_that_held_them_are_not_read_twice():
    held = span(
        text("gen_ai.input.messages", json.dumps(question("Hello?"))),
        text("gen_ai.output.messages", json.dumps(answer("Hi."))),
    )
    converted, refused = read(otlp, held, log("gen_ai.choice", {"message": {"content": "Hi."}}))
    assert isinstance(converted, ParsedRecord)
    assert isinstance(refused, RejectedRecord)
    assert refused.reason == (
        "its span was read before it came, and held the whole call; expected one or the other"
    )


def test_a_trace_is_split_into_its_calls_and_other_spans_are_skipped():
    def messages(words: str) -> list[Json]:
        return [
            text("gen_ai.input.messages", json.dumps(question(words))),
            text("gen_ai.output.messages", json.dumps(answer(words.upper()))),
        ]

    one, two = span(*messages("a")), span(*messages("b"), spanId="b7ad6b7169203331")
    http: dict[str, Json] = {
        "resourceSpans": [
            {"scopeSpans": [{"spans": [{"traceId": TRACE_ID, "spanId": "1", "name": "GET /"}]}]}
        ]
    }
    tool = span(text("gen_ai.operation.name", "execute_tool"))
    groups = [cast("list[Json]", row["resourceSpans"])[0] for row in (one, http, two, tool)]
    converted = read(otlp, {"resourceSpans": groups})
    assert [type(each) for each in converted] == [ParsedRecord, ParsedRecord]
    assert [json.loads(each.row.text) for each in converted] == [one, two]
    assert [each.row.place for each in converted] == [1, 1]


def test_a_lone_span_keeps_its_row_verbatim():
    row = span(
        text("gen_ai.input.messages", json.dumps(question("a"))),
        text("gen_ai.output.messages", json.dumps(answer("b"))),
    )
    (converted,) = read(otlp, row)
    assert converted.row.text == json.dumps(row)


def test_calls_that_stay_incomplete_do_not_accumulate():
    taken = 0

    def endless() -> Iterator[SourceRow]:
        nonlocal taken
        while True:
            taken += 1
            value = log("gen_ai.user.message", {"content": "Hello?"}, spanId=f"{taken:016x}")
            yield SourceRow(taken, json.dumps(value), value)

    first = next(otlp.read(endless(), DEFAULTS))
    assert isinstance(first, RejectedRecord)
    assert (first.row.place, taken) == (1, otlp.MAX_WAITING + 1)
