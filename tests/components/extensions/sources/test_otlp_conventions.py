"""Each form of a model call in OpenTelemetry's conventions."""

import json
from typing import cast

import pytest

from components.extensions.sources import otlp
from components.schema import Json
from tests.support import logs, telemetry
from tests.support.otlp_requests import (
    ANSWERED,
    ASKED,
    CALL,
    CHAT_ANSWER,
    CHAT_FORM,
    OLDER,
    OLDER_CHAT,
    SPAN_ID,
    TRACE_ID,
    answer,
    attribute,
    log,
    question,
    span,
    text,
    typed,
)
from tests.support.source_reading import read, reason, record, records


@pytest.mark.parametrize("is_text", [True, False], ids=["as-json-text", "structured"])
def test_a_span_of_the_newer_conventions_is_an_interaction_field_by_field(is_text: bool):
    function = cast("dict[str, Json]", logs.WEATHER["function"])
    held: dict[str, Json] = {
        "gen_ai.input.messages": ASKED,
        "gen_ai.output.messages": ANSWERED,
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.tool.definitions": [{"type": "function", **function}],
    }
    row = span(
        *(
            text(key, json.dumps(value)) if is_text else attribute(key, typed(value))
            for key, value in held.items()
        ),
        text("gen_ai.request.model", "gpt-4o-mini"),
        attribute("gen_ai.request.temperature", {"doubleValue": 0.2}),
        attribute("gen_ai.request.max_tokens", {"intValue": "200"}),
        attribute("gen_ai.request.stop_sequences", typed(["END"])),
        text("gen_ai.response.id", "chatcmpl-1"),
        text("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
        attribute("gen_ai.usage.input_tokens", {"intValue": "52"}),
        attribute("gen_ai.usage.output_tokens", {"intValue": 47}),
        text("gen_ai.conversation.id", "conv-1"),
        text("user.id", "u-7"),
    )
    assert otlp.claims(row)
    assert record(otlp, row) == {
        "timestamp": 1_760_000_000.25,
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "messages": CHAT_FORM,
            "model": "gpt-4o-mini",
            "temperature": 0.2,
            "max_tokens": 200,
            "stop": ["END"],
            "tools": [logs.WEATHER],
        },
        "response": {
            "id": "chatcmpl-1",
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "message": CHAT_ANSWER, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 52, "completion_tokens": 47},
        },
        "conversation_id": "conv-1",
        "user_id": "u-7",
        "trace_id": TRACE_ID,
        "metadata": {"service.name": "shop-bot", "gen_ai.provider.name": "openai"},
        "duration_ms": 750.0,
    }


def test_a_span_recorded_with_the_sdk_reads_the_same():
    content = telemetry.call(
        gen_ai__operation__name="chat",
        gen_ai__provider__name="openai",
        gen_ai__request__model="gpt-4o-mini",
        gen_ai__request__top_p=0.9,
        gen_ai__response__id="chatcmpl-1",
        gen_ai__response__finish_reasons=["stop"],
        gen_ai__input__messages=question("Hello?"),
        gen_ai__output__messages=answer("Hi."),
        flywheel__workload_id="greeting",
    )
    interaction = record(otlp, telemetry.json_form(content))
    assert interaction["workload_id"] == "greeting"
    assert interaction["request"] == {
        "messages": [{"role": "user", "content": "Hello?"}],
        "model": "gpt-4o-mini",
        "top_p": 0.9,
    }
    assert interaction["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Hi."), "finish_reason": "stop"}],
    }
    assert interaction["metadata"] == {"service.name": "shop-bot", "gen_ai.provider.name": "openai"}
    assert len(str(interaction["trace_id"])) == 32


def test_the_older_events_on_a_span_are_an_interaction():
    content = telemetry.call(
        *OLDER,
        gen_ai__operation__name="chat",
        gen_ai__system="openai",
        gen_ai__request__model="gpt-4o-mini",
        gen_ai__response__id="chatcmpl-1",
        gen_ai__usage__prompt_tokens=5,
    )
    interaction = record(otlp, telemetry.json_form(content))
    assert interaction["request"] == {"messages": OLDER_CHAT, "model": "gpt-4o-mini"}
    assert interaction["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Clear."), "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5},
    }
    assert interaction["metadata"] == {"service.name": "shop-bot", "gen_ai.system": "openai"}


def test_calls_next_to_the_message_of_a_choice_are_its_calls():
    choice: Json = {"index": 0, "finish_reason": "tool_calls", "message": {}, "tool_calls": [CALL]}
    (interaction,) = records(
        otlp, log("gen_ai.user.message", {"content": "Rome?"}), log("gen_ai.choice", choice)
    )
    assert interaction["response"] == {
        "id": SPAN_ID,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
                "finish_reason": "tool_calls",
            }
        ],
    }


def test_prompts_as_json_text_and_the_azure_form_of_events_are_read():
    older = span(
        text("gen_ai.prompt", json.dumps([{"role": "user", "content": "Hello?"}])),
        text("gen_ai.completion", json.dumps([{"role": "assistant", "content": "Hi."}])),
        attribute("gen_ai.response.finish_reasons", typed(["length"])),
    )
    azure = telemetry.call(
        ("gen_ai.user.message", {"gen_ai.event.content": {"content": "Hello?"}}),
        ("gen_ai.choice", {"gen_ai.event.content": {"index": 0, "message": {"content": "Hi."}}}),
        gen_ai__system="az.ai.inference",
        gen_ai__response__finish_reasons=["length"],
    )
    for row in (older, telemetry.json_form(azure)):
        interaction = record(otlp, row)
        assert interaction["request"] == {"messages": [{"role": "user", "content": "Hello?"}]}
        response = interaction["response"]
        assert isinstance(response, dict)
        assert response["choices"] == [
            {"index": 0, "message": logs.say("Hi."), "finish_reason": "length"}
        ]


def test_numbered_attributes_of_openllmetry_are_read():
    function = cast("dict[str, Json]", logs.WEATHER["function"])
    content = telemetry.call(
        gen_ai__system="openai",
        gen_ai__prompt__0__role="user",
        gen_ai__prompt__0__content="Weather in Rome?",
        gen_ai__completion__0__role="assistant",
        gen_ai__completion__0__finish_reason="tool_calls",
        gen_ai__completion__0__tool_calls__0__id="call_1",
        gen_ai__completion__0__tool_calls__0__name="weather",
        gen_ai__completion__0__tool_calls__0__arguments='{"city": "Rome"}',
        llm__request__functions__0__name="weather",
        llm__request__functions__0__description="Tell the weather",
        llm__request__functions__0__parameters=function["parameters"],
    )
    interaction = record(otlp, telemetry.json_form(content))
    assert interaction["request"] == {
        "messages": [{"role": "user", "content": "Weather in Rome?"}],
        "tools": [logs.WEATHER],
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        }
    ]


@pytest.mark.parametrize(
    ("is_streaming", "finish"), [(True, "upstream_cut"), (False, None)], ids=["stream", "whole"]
)
def test_a_stream_that_ended_for_no_reason_is_cut(is_streaming: bool, finish: str | None):
    """OpenLLMetry has it when the application stops to read; some servers name no reason."""
    said: Json = [{"role": "assistant", "parts": [], "finish_reason": ""}]
    interaction = record(
        otlp,
        span(
            attribute("gen_ai.is_streaming", {"boolValue": is_streaming}),
            text("gen_ai.input.messages", json.dumps(question("Hello?"))),
            text("gen_ai.output.messages", json.dumps(said)),
        ),
    )
    assert interaction.get("finish") == finish


def numbered(questions: list[str], reply: str = "Hi.") -> dict[str, Json]:
    """Write a span with numbered attributes, as the SDK exports it."""
    attributes = {"gen_ai.system": "openai", "llm.request.type": "chat"}
    for number, words in enumerate(questions):
        attributes[f"gen_ai.prompt.{number}.role"] = "user"
        attributes[f"gen_ai.prompt.{number}.content"] = words
    attributes["gen_ai.completion.0.role"] = "assistant"
    attributes["gen_ai.completion.0.content"] = reply
    return telemetry.json_form(telemetry.call(**attributes))


def test_a_json_array_is_a_text_unless_it_is_one_of_content_parts():
    asked, reply = '[{"type": "city", "name": "Rome"}]', '[{"type": "text", "value": "Rome"}]'
    interaction = record(otlp, numbered([asked, '[{"type": "text", "text": "Hello?"}]'], reply))
    assert interaction["request"] == {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "user", "content": [{"type": "text", "text": "Hello?"}]},
        ]
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [{"index": 0, "message": logs.say(reply), "finish_reason": None}]


def test_a_call_that_lost_messages_to_the_sdks_limit_is_refused():
    assert reason(otlp, numbered(["Hello?"] * 70)) == (
        "`droppedAttributesCount` of the span is 16, so messages may be missing; expected 0: raise "
        "the application's OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"
    )
    said: list[telemetry.Event] = [("gen_ai.user.message", {"content": "Hello?"})] * 140
    said.append(("gen_ai.choice", {"index": 0, "message": {"content": "Hi."}}))
    row = telemetry.json_form(telemetry.call(*said, gen_ai__system="openai"))
    assert reason(otlp, row) == (
        "`droppedEventsCount` of the span is 13, so messages may be missing; expected 0: raise "
        "the application's OTEL_SPAN_EVENT_COUNT_LIMIT"
    )


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({"gen_ai.operation.name": "execute_tool"}, id="tool"),
        pytest.param({"gen_ai.system": "x", "llm.request.type": "embedding"}, id="embedding"),
    ],
)
def test_what_is_no_models_call_is_skipped_also_alone(attributes: dict[str, str]):
    row = telemetry.json_form(telemetry.call(**attributes, gen_ai__prompt__0__content="Oslo"))
    assert read(otlp, row) == []


def test_litellms_spans_have_their_calls_beside_the_parts():
    said: Json = {"role": "user", "parts": [{"type": "text", "text": "Weather in Rome?"}]}
    called: dict[str, Json] = {"role": "assistant", "parts": [], "tool_calls": [CALL]}
    result: Json = {
        "role": "tool",
        "parts": [{"type": "text", "content": "dry"}],
        "tool_call_id": "call_1",
    }
    row = span(
        attributes=[
            text("gen_ai.operation.name", "acompletion"),
            text("gen_ai.input.messages", json.dumps([said, called, result])),
            text("gen_ai.output.messages", json.dumps([called | {"finish_reason": "tool_calls"}])),
            text("gen_ai.completion.0.function_call.name", "weather"),
        ]
    )
    interaction = record(otlp, row)
    calling: dict[str, Json] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert interaction["request"] == {
        "messages": [
            {"role": "user", "content": "Weather in Rome?"},
            calling,
            {"role": "tool", "content": "dry", "tool_call_id": "call_1"},
        ]
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [{"index": 0, "message": calling, "finish_reason": "tool_calls"}]


def test_calls_that_older_litellm_numbers_as_answers_are_the_answers_calls():
    calls = {
        f"gen_ai.completion.{number}.function_call.{key}": value
        for number, city in enumerate(("Rome", "Oslo"))
        for key, value in (("name", "weather"), ("arguments", json.dumps({"city": city})))
    }
    attributes = {
        "llm.request.type": "acompletion",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "Weather in Rome and Oslo?",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.finish_reason": "tool_calls",
    }
    row = telemetry.json_form(telemetry.call(**attributes, **calls))
    response = record(otlp, row)["response"]
    assert isinstance(response, dict)
    (choice,) = cast("list[dict[str, Json]]", response["choices"])
    message = cast("dict[str, Json]", choice["message"])
    assert message["tool_calls"] == [
        {
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": city})},
        }
        for city in ("Rome", "Oslo")
    ]


def test_an_operation_that_nobody_knows_is_not_skipped_in_silence():
    row = telemetry.json_form(telemetry.call(gen_ai__operation__name="aresponses"))
    assert reason(otlp, row).startswith("found neither a span of a model's call")


def test_geminis_content_is_read_as_text_and_calls():
    args: Json = {"city": "Rome"}
    parts: Json = [{"text": "Let me see."}, {"function_call": {"name": "weather", "args": args}}]
    choice: Json = {
        "index": 0,
        "content": {"role": "model", "parts": parts},
        "finish_reason": "STOP",
    }
    asked = log("gen_ai.user.message", {"content": {"role": "user", "parts": [{"text": "Rain?"}]}})
    (interaction,) = records(otlp, span(), asked, log("gen_ai.choice", choice))
    assert interaction["request"] == {"messages": [{"role": "user", "content": "Rain?"}]}
    response = interaction["response"]
    assert isinstance(response, dict)
    (answered,) = cast("list[dict[str, Json]]", response["choices"])
    function: Json = {"name": "weather", "arguments": args}
    assert answered["message"] == {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"type": "function", "function": function}],
    }


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"content": "<elided>"}, "`gen_ai.choice.content` is <elided>"),
        ({}, "`gen_ai.user.message.content` is missing"),
    ],
    ids=["elided", "left-out"],
)
def test_what_stands_for_a_text_that_is_not_captured_is_no_text(
    content: dict[str, Json], place: str
):
    rows = [
        span(),
        log("gen_ai.user.message", content),
        log("gen_ai.choice", {"index": 0, "message": {"role": "assistant", **content}}),
    ]
    expected = f"{place}, expected its text: is the capture of content turned on?"
    assert reason(otlp, *rows) == expected


def test_instructions_that_are_also_a_message_are_read_once():
    """As OpenLIT records them."""
    parts = [{"type": "text", "content": "Be brief."}]
    hello = [{"type": "text", "content": "Hello?"}]
    asked = [{"role": "system", "parts": parts}, {"role": "user", "parts": hello}]
    converted = record(
        otlp,
        span(
            text("gen_ai.system_instructions", json.dumps(parts)),
            text("gen_ai.input.messages", json.dumps(asked)),
            text("gen_ai.output.messages", json.dumps(answer("Hi."))),
        ),
    )
    assert converted["request"] == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello?"},
        ]
    }


@pytest.mark.parametrize("version", [1, 2])
def test_pydantic_ais_spans_are_read_with_their_tools(version: int):
    function = cast("dict[str, Json]", logs.WEATHER["function"])
    schema = {"parameters_json_schema": function["parameters"]}
    tool = {key: function[key] for key in ("name", "description")} | schema
    events: Json = [
        {"event.name": "gen_ai.user.message", "role": "user", "content": "Hello?"},
        {
            "event.name": "gen_ai.choice",
            "index": 0,
            "message": {"role": "assistant", "content": "Hi."},
        },
    ]
    held: dict[str, Json] = {"events": events}
    if version == 2:
        held = {
            "gen_ai.input.messages": question("Hello?"),
            "gen_ai.output.messages": answer("Hi."),
        }
    held["model_request_parameters"] = {"function_tools": [tool], "output_tools": []}
    interaction = record(otlp, span(*(text(key, json.dumps(held[key])) for key in held)))
    assert interaction["request"] == {
        "messages": [{"role": "user", "content": "Hello?"}],
        "tools": [logs.WEATHER],
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    (answered,) = cast("list[dict[str, Json]]", response["choices"])
    assert answered["message"] == logs.say("Hi.")
