"""Spans that MLflow (3.17) exports to a collector, whose attributes are JSON texts."""

import json

import pytest

from components.extensions.sources import otlp
from components.schema import Json
from tests.support import logs
from tests.support.otlp_requests import span, text
from tests.support.source_reading import read, reason, record


def exported(kind: str = "CHAT_MODEL", **more: Json) -> dict[str, Json]:
    """Write a span; ``more`` are its inputs and outputs and others of MLflow's attributes."""
    held: dict[str, Json] = {
        "mlflow.traceRequestId": "tr-1",
        "mlflow.spanType": kind,
        "model": "gpt-4o",
        **{f"mlflow.{name}": value for name, value in more.items()},
    }
    return span(attributes=[text(key, json.dumps(value)) for key, value in held.items()])


def test_a_call_of_a_chat_model_is_an_interaction():
    asked: Json = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Weather in Rome?"}],
        "tools": [logs.WEATHER],
    }
    choice: Json = {
        "index": 0,
        "message": logs.call("weather", '{"city": "Rome"}'),
        "finish_reason": "tool_calls",
    }
    answered: Json = {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [choice],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4},
    }
    interaction = record(otlp, exported(spanInputs=asked, spanOutputs=answered))
    assert interaction["request"] == asked
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [choice]
    names = ("id", "model", "usage")
    assert [response[name] for name in names] == [answered[name] for name in names]


def test_inputs_and_outputs_may_be_text_and_tools_beside_them():
    beside: dict[str, Json] = {
        "chat.tools": [logs.WEATHER],
        "chat.tokenUsage": {"input_tokens": 3},
    }
    plain = exported("LLM", spanInputs="Rain?", spanOutputs="Dry.", **beside)
    interaction = record(otlp, plain)
    assert interaction["request"] == {
        "messages": [{"role": "user", "content": "Rain?"}],
        "tools": [logs.WEATHER],
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["usage"] == {"prompt_tokens": 3}
    assert response["choices"] == [
        {"index": 0, "message": logs.say("Dry."), "finish_reason": "stop"}
    ]


def test_an_attribute_of_ones_own_is_not_read_with_the_quotes_of_its_json():
    written = json.dumps(exported(spanInputs="Rain?", spanOutputs="Dry."))
    named = json.loads(written.replace('"model"', '"flywheel.workload_id"'))
    assert record(otlp, named)["workload_id"] == "gpt-4o"
    plain = json.loads(json.dumps(named).replace('\\"gpt-4o\\"', "7"))
    assert record(otlp, plain)["workload_id"] == "7"


@pytest.mark.parametrize("kind", ["CHAIN", "AGENT", "TOOL", "RETRIEVER", "PARSER", "UNKNOWN"])
def test_other_spans_are_skipped(kind: str):
    assert read(otlp, exported(kind, spanInputs={"q": "Rain?"}, spanOutputs="Dry.")) == []


def test_a_call_without_an_answer_says_so():
    assert "expected both request and answer" in reason(otlp, exported(spanInputs="Rain?"))
