from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import mlflow
import pytest
from mlflow.entities import AssessmentSource, SpanType

from components.collect.source import Defaults, ParsedRecord, SourceRow
from components.extensions.sources import mlflow_traces
from components.register import tracking
from components.schema import Json
from tests.support import logs

QUESTION: Json = {"role": "user", "content": "What is the weather in Rome?"}
BEFORE = datetime.now(UTC) - timedelta(days=1)


def answer(response_id: str, message: Json) -> Json:
    choice: Json = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": response_id, "model": "gpt-4o-mini-2024-07-18", "choices": [choice]}


def chat(response_id: str, message: Json, messages: list[Json]) -> str:
    """Record a call of a model, and give the id of its span."""
    with mlflow.start_span("chat", span_type=SpanType.CHAT_MODEL) as span:
        span.set_inputs({"model": "gpt-4o-mini", "messages": messages, "temperature": 0.1})
        span.set_attribute("mlflow.chat.tools", [logs.WEATHER])
        usage: Json = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        span.set_attribute("mlflow.chat.tokenUsage", usage)
        span.set_outputs(answer(response_id, message))
        return span.span_id


@pytest.fixture(scope="module")
def spans() -> Iterator[dict[str, str]]:
    """Trace one turn of an agent, as an application does, and assess it."""
    with pytest.MonkeyPatch.context() as patch:
        # An experiment that is set stays so for all tests of the process, whatever their store.
        patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        mlflow.set_experiment("agent")
        yield traced()


def traced() -> dict[str, str]:
    called: dict[str, str] = {}

    @mlflow.trace(name="turn")
    def turn() -> str:
        asked: list[Json] = [QUESTION]
        called["first"] = chat("r1", logs.call("weather", '{"city": "Rome"}'), asked)
        result: Json = {"role": "tool", "tool_call_id": "call_1", "content": "clear"}
        asked = [*asked, logs.call("weather", '{"city": "Rome"}'), result]
        called["last"] = chat("r2", logs.say("Sunny."), asked)
        about = {"mlflow.trace.session": "s-1", "mlflow.trace.user": "u-7"}
        mlflow.update_current_trace(metadata=about, tags={"release": "7"})
        return "Sunny."

    turn()
    trace_id = str(mlflow.get_last_active_trace_id())
    ann = AssessmentSource(source_type="HUMAN", source_id="ann")
    mlflow.log_feedback(
        trace_id=trace_id, name="thumbs_up", value=True, source=ann, rationale="Right."
    )
    mlflow.log_feedback(
        trace_id=trace_id, name="tool_choice", value=0.5, source=ann, span_id=called["first"]
    )
    mlflow.log_expectation(
        trace_id=trace_id, name="expected_response", value="It is sunny.", source=ann
    )
    return called


def read(value: dict[str, Json]) -> list[ParsedRecord]:
    records = list(mlflow_traces.read([SourceRow(1, "{}", value)], Defaults("support", "shop")))
    assert all(isinstance(record, ParsedRecord) for record in records), records
    return [record for record in records if isinstance(record, ParsedRecord)]


def test_a_traced_turn_comes_through_the_client_as_its_calls(spans: dict[str, str]):
    (trace,) = tracking.pull_traces("agent", since=BEFORE)
    assert mlflow_traces.claims(trace)
    first, last, *signals = read(trace)
    assert [record.kind for record in (first, last, *signals)] == ["interactions"] * 2 + [
        "feedback"
    ] * 3
    began, ended = first.record["timestamp"], last.record.pop("timestamp")
    assert isinstance(began, float)
    assert isinstance(ended, float)
    assert BEFORE.timestamp() < began <= ended
    took = last.record.pop("duration_ms")
    assert isinstance(took, float)
    assert 0 < took < 60_000
    assert str(last.record.pop("trace_id")).startswith("tr-")
    assert last.record == {
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "gpt-4o-mini",
            "messages": [
                QUESTION,
                logs.call("weather", '{"city": "Rome"}'),
                {"role": "tool", "tool_call_id": "call_1", "content": "clear"},
            ],
            "temperature": 0.1,
            "tools": [logs.WEATHER],
        },
        "response": {
            "id": "r2",
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        },
        "conversation_id": "s-1",
        "user_id": "u-7",
        "metadata": {"release": "7"},
    }


def test_assessments_of_a_traced_turn_become_feedback(spans: dict[str, str]):
    (trace,) = tracking.pull_traces("agent", since=BEFORE)
    signals = read(trace)[2:]
    by_kind = {
        str(signal.record["kind"]): signal.record
        for signal in signals
        if signal.record.pop("timestamp")
    }
    shared: dict[str, Json] = {"workload_id": "support", "client_id": "shop", "actor_id": "ann"}
    assert by_kind == {
        "thumb": {
            **shared,
            "kind": "thumb",
            "value": "up",
            "comment": "Right.",
            "response_id": "r2",
        },
        "outcome": {
            **shared,
            "kind": "outcome",
            "value": {"name": "tool_choice", "value": 0.5},
            "response_id": "r1",
        },
        "correction": {
            **shared,
            "kind": "correction",
            "value": logs.say("It is sunny."),
            "response_id": "r2",
        },
    }


def test_only_traces_since_a_time_are_pulled(spans: dict[str, str]):
    assert list(tracking.pull_traces("agent", since=datetime.now(UTC) + timedelta(hours=1))) == []


def test_an_unknown_experiment_is_named():
    with pytest.raises(tracking.TracesError, match="there is no experiment 'nobody'"):
        next(tracking.pull_traces("nobody", since=BEFORE))
