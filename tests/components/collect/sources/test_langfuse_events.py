"""Langfuse's ingestion events, from which its server makes observations and scores."""

import pytest

from components.collect import files
from components.collect.source import ParsedRecord, RejectedRecord
from components.collect.sources import langfuse, langfuse_events
from components.schema import Json
from tests.support import langfuse_rows, logs
from tests.support.source_reading import read, record, records


def event(kind: str, second: int, **body: Json) -> dict[str, Json]:
    """Write an event as Langfuse's clients send it."""
    return {
        "id": f"{kind}-{second}",
        "type": kind,
        "timestamp": f"2025-10-09T08:53:{second:02}.000Z",
        "body": {**body},
    }


TRACE = event("trace-create", 20, id="trace-1", sessionId="s-1", userId="u-7", name="chat")
BEGUN = event(
    "generation-create",
    21,
    id="obs-1",
    traceId="trace-1",
    name="forecast",
    startTime="2025-10-09T08:53:20.250Z",
    environment="production",
    metadata={"tenant": "a"},
    input=langfuse_rows.MESSAGES,
    model="gpt-4o-mini",
    modelParameters={"temperature": 0.7},
)
ENDED = event(
    "generation-update",
    22,
    id="obs-1",
    endTime="2025-10-09T08:53:21.000Z",
    input=None,
    output={"role": "assistant", "content": "Sunny."},
    usage={"promptTokens": 20, "completionTokens": 3, "totalTokens": 23},
)


def batch(*events: Json) -> dict[str, Json]:
    return {"batch": [*events], "metadata": {"sdk_name": "python"}}


def test_the_events_of_a_generation_are_what_its_export_is_however_they_were_sent():
    exported = {
        **record(langfuse, langfuse_rows.observation()),
        "timestamp": "2025-10-09T08:53:20.250Z",
    }
    for values in (
        [batch(TRACE, BEGUN, ENDED)],
        [batch(TRACE, BEGUN), batch(ENDED)],
        [TRACE, BEGUN, ENDED],
        [ENDED, BEGUN, TRACE],
        [TRACE, BEGUN, BEGUN, ENDED, ENDED],
    ):
        assert all(files.detect_source([value]) is langfuse_events for value in values)
        assert record(langfuse_events, *values) == exported


def test_a_later_value_replaces_an_earlier_one_and_metadata_adds_up():
    retried = event("generation-update", 23, id="obs-1", output="Rain.", metadata={"try": 2})
    converted = record(langfuse_events, batch(BEGUN, retried, ENDED))
    match converted:
        case {"metadata": {"tenant": "a", "try": 2}, "response": {"choices": [chosen]}}:
            assert isinstance(chosen, dict)
            assert chosen["message"] == {"role": "assistant", "content": "Rain."}
        case other:
            pytest.fail(f"{other}")


def test_what_completes_a_call_counts_after_what_began_it_at_the_same_moment():
    about: dict[str, Json] = {"id": "obs-1", "traceId": "trace-1"}
    began = event("generation-create", 21, **about, input="Rome?", output="", model="gpt-4o")
    ended = event("generation-update", 21, id="obs-1", output="Sunny.")
    for events in ((began, ended), (ended, began)):
        match record(langfuse_events, batch(*events))["response"]:
            case {"choices": [{"message": {"content": content}}]}:
                assert content == "Sunny."
            case other:
                pytest.fail(f"{other}")


def test_an_answer_that_ended_in_an_error_or_as_chunks_is_marked():
    failed = event("generation-update", 22, id="obs-1", level="ERROR", output="Sun")
    assert record(langfuse_events, batch(BEGUN, failed))["finish"] == "upstream_cut"
    chunk: Json = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "Sun"}, "finish_reason": None}],
    }
    streamed = event("generation-update", 22, id="obs-1", output=[chunk])
    match record(langfuse_events, batch(BEGUN, streamed))["response"]:
        case {"choices": [{"message": {"content": "Sun"}, "finish_reason": "upstream_cut"}]}:
            pass
        case other:
            pytest.fail(f"{other}")


def test_scores_are_feedback_and_what_is_no_call_of_a_model_is_left_out():
    scored = event(
        "score-create", 24, id="s", traceId="t", observationId="obs-1", name="ok", value=1
    )
    told = event("score-create", 25, traceId="t", name="tone", value="kind")
    span = event("span-create", 20, id="span-1", traceId="trace-1")
    log = event("sdk-log", 26, log="x")
    _, first, second = records(langfuse_events, batch(span, BEGUN, ENDED, scored, log), told)
    assert (first["response_id"], first["actor_id"]) == ("obs-1", "API")
    assert first["value"] == {"name": "ok", "value": 1}
    assert second["value"] == {"name": "tone", "value": "kind"}
    assert second["timestamp"] == "2025-10-09T08:53:25.000Z"


def test_what_lacks_its_answer_or_has_no_call_is_refused_with_what_it_is():
    lines: list[dict[str, Json]] = [
        TRACE,
        event("span-create", 20, id="span-1"),
        event("generation-create", 21, traceId="trace-1", input="Rome?"),
        event("generation-create", 21, id="obs-2", traceId="trace-2", input="Oslo?"),
    ]
    refused = read(langfuse_events, *lines)
    reasons = {each.row.place: each.reason for each in refused if isinstance(each, RejectedRecord)}
    no_call = (
        "the row has no event of generation-create or generation-update, expected a model's call"
    )
    assert reasons == {
        1: no_call,
        2: no_call,
        3: "`body.id` is missing, expected text",
        4: "`output` is empty, expected messages or text",
    }


def test_what_is_kept_of_a_call_reads_as_the_call_alone():
    """So a line that was refused can be tried again, and a row names all that it was made of."""
    other = event(
        "generation-create", 30, id="obs-2", traceId="trace-1", input="Oslo?", output="-1"
    )
    first, second = read(langfuse_events, TRACE, BEGUN, other, ENDED)
    for each in (first, second):
        assert isinstance(each, ParsedRecord)
        assert record(langfuse_events, each.row.value) == each.record
    assert "Rome" not in second.row.text


def test_of_a_trace_that_was_sent_with_each_of_its_calls_each_call_keeps_one_event():
    """An application's only trace may have ten thousand calls, and as many events."""
    again = [event("trace-create", second, id="trace-1") for second in range(30, 33)]
    moved = event("trace-create", 40, id="trace-1", userId="u-8")
    parsed, *_ = read(langfuse_events, TRACE, BEGUN, ENDED, *again, moved)
    assert isinstance(parsed, ParsedRecord)
    match parsed.row.value:
        case {"batch": [{"type": "trace-create", "body": body}, *others]}:
            assert body == {"id": "trace-1", "sessionId": "s-1", "userId": "u-8"}
            assert others == [BEGUN, ENDED]
        case other:
            pytest.fail(f"{other}")
    assert (parsed.record["conversation_id"], parsed.record["user_id"]) == ("s-1", "u-8")


def test_a_bad_event_costs_no_other_of_its_request():
    bad = event("generation-create", 21, input="Rome?")
    refused, kept = read(langfuse_events, batch(bad, BEGUN, ENDED))
    assert isinstance(refused, RejectedRecord)
    assert (refused.row.value, refused.reason) == (bad, "`body.id` is missing, expected text")
    assert isinstance(kept, ParsedRecord)
    timeless = logs.without(BEGUN, "timestamp")
    refused, _ = read(langfuse_events, batch(timeless, ENDED))
    assert isinstance(refused, RejectedRecord)
    assert refused.reason == "`batch[0].timestamp` is missing, expected text"


def test_events_are_ordered_by_time_in_whatever_form_it_is():
    first = event("generation-update", 22, id="obs-1", output="Sun")
    first["timestamp"] = "2025-10-09T08:53:22Z"
    later = event("generation-update", 22, id="obs-1", output="Rain")
    later["timestamp"] = "2025-10-09T10:53:22.5+02:00"
    for order in ((BEGUN, first, later), (later, first, BEGUN)):
        match record(langfuse_events, batch(*order))["response"]:
            case {"choices": [{"message": {"content": "Rain"}}]}:
                pass
            case other:
                pytest.fail(f"{other}")
