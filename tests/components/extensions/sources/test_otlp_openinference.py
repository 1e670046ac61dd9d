"""OpenInference's spans, as Phoenix's instrumentations record them."""

import json

import pytest

from components.extensions.sources import otlp
from components.schema import Json
from tests.support import logs, telemetry
from tests.support.source_reading import read, reason, record

SYSTEM = "llm.input_messages.0.message"
CALLED = "llm.input_messages.1.message"
RESULT = "llm.input_messages.2.message"
ASKED = "llm.input_messages.3.message"
ANSWER = "llm.output_messages.0.message"


def span(**changes: str) -> dict[str, Json]:
    """Write a span as the SDK exports it; ``changes`` replace attributes."""
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4o-mini",
        "llm.system": "openai",
        "llm.invocation_parameters": '{"model": "gpt-4o-mini", "temperature": 0.2, "seed": null}',
        "llm.tools.0.tool.json_schema": json.dumps(logs.WEATHER),
        "session.id": "conv-1",
        "user.id": "u-7",
        f"{SYSTEM}.role": "system",
        f"{SYSTEM}.content": "Be brief.",
        f"{CALLED}.role": "assistant",
        f"{CALLED}.tool_calls.0.tool_call.id": "call_1",
        f"{CALLED}.tool_calls.0.tool_call.function.name": "weather",
        f"{CALLED}.tool_calls.0.tool_call.function.arguments": '{"city": "Rome"}',
        f"{RESULT}.role": "tool",
        f"{RESULT}.tool_call_id": "call_1",
        f"{RESULT}.content": "dry",
        f"{ASKED}.role": "user",
        f"{ASKED}.contents.0.message_content.type": "text",
        f"{ASKED}.contents.0.message_content.text": "And here?",
        f"{ASKED}.contents.1.message_content.type": "image",
        f"{ASKED}.contents.1.message_content.image.image.url": "https://x.test/a.png",
        f"{ANSWER}.role": "assistant",
        f"{ANSWER}.content": "Dry.",
    }
    return telemetry.json_form(telemetry.call(**(attributes | changes)))


def test_a_span_of_openinference_is_an_interaction():
    interaction = record(otlp, span())
    assert interaction["request"] == {
        "model": "gpt-4o-mini",
        "temperature": 0.2,
        "tools": [logs.WEATHER],
        "messages": [
            {"role": "system", "content": "Be brief."},
            logs.call("weather", '{"city": "Rome"}'),
            {"role": "tool", "content": "dry", "tool_call_id": "call_1"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And here?"},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                ],
            },
        ],
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [{"index": 0, "message": logs.say("Dry."), "finish_reason": None}]
    assert (interaction["conversation_id"], interaction["user_id"]) == ("conv-1", "u-7")


@pytest.mark.parametrize("finish", ["stop", "length", None], ids=["whole", "too-long", "cut"])
def test_openais_own_answer_says_its_id_and_why_it_ended(finish: str | None):
    choice: dict[str, Json] = {"index": 0, "message": {"role": "assistant", "content": "Dry."}}
    if finish is not None:
        choice["finish_reason"] = finish
    answer = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "choices": [choice]}
    interaction = record(otlp, span(**{"output.value": json.dumps(answer)}))
    response = interaction["response"]
    assert isinstance(response, dict)
    message = logs.say("Dry.")
    assert response["choices"] == [{"index": 0, "message": message, "finish_reason": finish}]
    assert response["id"] == "chatcmpl-7"
    assert interaction.get("finish") == ("upstream_cut" if finish is None else None)


def test_newer_spans_of_openinference_say_why_an_answer_ended():
    response = record(otlp, span(**{"llm.finish_reason": "length"}))["response"]
    assert isinstance(response, dict)
    message = logs.say("Dry.")
    assert response["choices"] == [{"index": 0, "message": message, "finish_reason": "length"}]


def test_other_spans_of_openinference_are_skipped():
    assert read(otlp, span(**{"openinference.span.kind": "CHAIN"})) == []


@pytest.mark.parametrize("place", [f"{ANSWER}.content", f"{ASKED}.contents.0.message_content.text"])
def test_a_text_that_was_masked_is_no_text_to_learn(place: str):
    assert reason(otlp, span(**{place: "__REDACTED__"})) == (
        f"`{place}` is __REDACTED__, expected its text: turn off the application's "
        "OPENINFERENCE_HIDE_ settings"
    )
