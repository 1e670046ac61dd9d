"""Spans of Langfuse's SDK, which are OpenTelemetry's."""

import json

import pytest

from components.extensions.sources import otlp
from components.schema import Json
from tests.support import logs
from tests.support.otlp_requests import span, text
from tests.support.source_reading import read, reason, record


def generation(asked: str, answered: str, **more: str) -> dict[str, Json]:
    """Write a span of a generation; ``more`` are attributes with ``__`` for each dot."""
    held = {
        "langfuse.observation.type": "generation",
        "langfuse.observation.input": asked,
        "langfuse.observation.output": answered,
        "langfuse.observation.model.name": "gpt-4o-mini",
        "langfuse.observation.model.parameters": '{"temperature": 0.2}',
        "user.id": "u-7",
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    return span(attributes=[text(key, value) for key, value in held.items()])


def test_a_generation_is_an_interaction():
    asked: Json = {
        "messages": [{"role": "user", "content": "Weather in Rome?"}],
        "tools": [logs.WEATHER],
    }
    answered = logs.call("weather", '{"city": "Rome"}')
    interaction = record(otlp, generation(json.dumps(asked), json.dumps(answered)))
    assert interaction["request"] == {"model": "gpt-4o-mini", "temperature": 0.2, **asked}
    assert interaction["user_id"] == "u-7"
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [{"index": 0, "message": answered, "finish_reason": "tool_calls"}]


@pytest.mark.parametrize("answered", ["Dry.", '"Dry."'])
def test_input_and_output_may_be_text(answered: str):
    interaction = record(otlp, generation("Rain?", answered, langfuse__observation__level="ERROR"))
    assert interaction["request"] == {
        "model": "gpt-4o-mini",
        "temperature": 0.2,
        "messages": [{"role": "user", "content": "Rain?"}],
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [
        {"index": 0, "message": logs.say("Dry."), "finish_reason": "stop"}
    ]
    assert interaction["finish"] == "upstream_cut"


def test_other_observations_are_skipped_and_a_generation_without_content_is_not():
    assert read(otlp, generation("Rain?", "Dry.", langfuse__observation__type="span")) == []
    bare = span(attributes=[text("langfuse.observation.type", "generation")])
    assert "is the capture of content turned on?" in reason(otlp, bare)
