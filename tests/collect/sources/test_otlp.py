import json
from collections.abc import Iterator
from typing import cast

import pytest

from components.collect.record import Found, Refused, Row
from components.collect.sources import otlp
from components.schema import Json
from tests import logs
from tests.collect.sources import telemetry
from tests.collect.sources.reading import DEFAULTS, read, reason, record, records

SPAN_ID = "00f067aa0ba902b7"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def attribute(key: str, value: dict[str, Json]) -> Json:
    return {"key": key, "value": value}


def text(key: str, value: str) -> Json:
    return attribute(key, {"stringValue": value})


def typed(value: Json) -> dict[str, Json]:
    """Write a value in OTLP's typed form."""
    match value:
        case str():
            return {"stringValue": value}
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [typed(one) for one in value]}}
        case dict():
            return {
                "kvlistValue": {"values": [{"key": k, "value": typed(v)} for k, v in value.items()]}
            }
        case None:
            return {}


def span(*attributes: Json, **changes: Json) -> dict[str, Json]:
    """Write a request with one span of a chat."""
    body: dict[str, Json] = {
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "name": "chat gpt-4o-mini",
        "kind": 3,
        "startTimeUnixNano": "1760000000250000000",
        "endTimeUnixNano": "1760000001000000000",
        "attributes": [
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.provider.name", "openai"),
            *attributes,
        ],
        "status": {},
        **changes,
    }
    resource: Json = {"attributes": [text("service.name", "shop-bot")]}
    scopes: Json = [{"scope": {"name": "instrumentation"}, "spans": [body]}]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}


def log(name: str, body: Json, *attributes: Json, **changes: Json) -> dict[str, Json]:
    """Write a request with one log record."""
    record: dict[str, Json] = {
        "timeUnixNano": "1760000000500000000",
        "eventName": name,
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "body": typed(body),
        "attributes": [*attributes],
        **changes,
    }
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}


def answer(words: str) -> Json:
    return [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": words}],
            "finish_reason": "stop",
        }
    ]


def question(words: str) -> Json:
    return [{"role": "user", "parts": [{"type": "text", "content": words}]}]


ASKED: Json = [
    {
        "role": "user",
        "parts": [
            {"type": "text", "content": "Weather here?"},
            {"type": "uri", "modality": "image", "uri": "https://x.test/a.png"},
            {"type": "blob", "modality": "image", "mime_type": "image/gif", "content": "R0lG"},
            {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "UklG"},
            {"type": "file", "file_id": "file-1"},
            {"type": "hologram", "depth": 3},
        ],
    },
    {
        "role": "assistant",
        "parts": [
            {"type": "reasoning", "content": "Look it up."},
            {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Rome"}},
        ],
    },
    {
        "role": "tool",
        "parts": [
            {"type": "tool_call_response", "id": "call_1", "response": {"sky": "clear"}},
            {"type": "tool_call_response", "id": "call_2", "result": "rain"},
        ],
    },
]
ANSWERED: Json = [
    {
        "role": "assistant",
        "parts": [
            {"type": "text", "content": "Asking again."},
            {
                "type": "tool_call",
                "id": "call_3",
                "name": "weather",
                "arguments": '{"city": "Oslo"}',
            },
        ],
        "finish_reason": "tool_call",
    }
]
CHAT_FORM: Json = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Weather here?"},
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lG"}},
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
            {"type": "file", "file": {"file_id": "file-1"}},
            {"type": "hologram", "depth": 3},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Rome"}},
            }
        ],
        "reasoning_content": "Look it up.",
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "clear"}'},
    {"role": "tool", "tool_call_id": "call_2", "content": "rain"},
]
CHAT_ANSWER: Json = {
    "role": "assistant",
    "content": "Asking again.",
    "tool_calls": [
        {
            "id": "call_3",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
        }
    ],
}


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
    found = record(otlp, telemetry.json_form(content))
    assert found["workload_id"] == "greeting"
    assert found["request"] == {
        "messages": [{"role": "user", "content": "Hello?"}],
        "model": "gpt-4o-mini",
        "top_p": 0.9,
    }
    assert found["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Hi."), "finish_reason": "stop"}],
    }
    assert found["metadata"] == {"service.name": "shop-bot", "gen_ai.provider.name": "openai"}
    assert len(str(found["trace_id"])) == 32


CALL: Json = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
OLDER: list[telemetry.Event] = [
    ("gen_ai.system.message", {"content": "Be brief."}),
    ("gen_ai.user.message", {"content": "Weather in Rome?"}),
    ("gen_ai.assistant.message", {"tool_calls": [CALL]}),
    ("gen_ai.tool.message", {"id": "call_1", "content": "clear"}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"content": "Clear."}}),
]
OLDER_CHAT: Json = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "clear", "tool_call_id": "call_1"},
]


def test_the_older_events_on_a_span_are_an_interaction():
    content = telemetry.call(
        *OLDER,
        gen_ai__operation__name="chat",
        gen_ai__system="openai",
        gen_ai__request__model="gpt-4o-mini",
        gen_ai__response__id="chatcmpl-1",
        gen_ai__usage__prompt_tokens=5,
    )
    found = record(otlp, telemetry.json_form(content))
    assert found["request"] == {"messages": OLDER_CHAT, "model": "gpt-4o-mini"}
    assert found["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Clear."), "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5},
    }
    assert found["metadata"] == {"service.name": "shop-bot", "gen_ai.system": "openai"}


@pytest.mark.parametrize("comes_first", ["span", "logs"])
def test_the_older_events_as_log_records_are_joined_with_their_span(comes_first: str):
    spans, records_of_it = telemetry.logs_of_a_span(*OLDER)
    span_row, log_row = telemetry.json_form(spans), telemetry.json_form(records_of_it)
    both = [span_row, log_row] if comes_first == "span" else [log_row, span_row]
    (found,) = read(otlp, *both)
    assert isinstance(found, Found)
    assert found.record["request"] == {"messages": OLDER_CHAT, "model": "gpt-4o-mini"}
    assert found.record["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Clear."), "finish_reason": "stop"}],
    }
    again = record(otlp, json.loads(found.row.text))
    assert again == found.record


def test_log_records_without_their_span_are_an_interaction_of_their_own():
    _, records_of_it = telemetry.logs_of_a_span(*OLDER)
    found = record(otlp, telemetry.json_form(records_of_it))
    assert found["timestamp"] == 1_760_000_000
    assert found["request"] == {"messages": OLDER_CHAT}
    response = found["response"]
    assert isinstance(response, dict)
    assert len(str(response["id"])) == 16


def test_calls_beside_the_message_of_a_choice_are_its_calls():
    choice: Json = {"index": 0, "finish_reason": "tool_calls", "message": {}, "tool_calls": [CALL]}
    (found,) = records(
        otlp, log("gen_ai.user.message", {"content": "Rome?"}), log("gen_ai.choice", choice)
    )
    assert found["response"] == {
        "id": SPAN_ID,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
                "finish_reason": "tool_calls",
            }
        ],
    }


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
    (found,) = read(otlp, *([bare, details] if comes_first == "span" else [details, bare]))
    assert isinstance(found, Found)
    assert json.loads(found.row.text) == bare | details
    assert found.record["request"] == {"messages": [{"role": "user", "content": "Hello?"}]}
    assert found.record["response"] == {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": logs.say("Hi."), "finish_reason": "stop"}],
    }


def test_messages_that_come_after_a_span_that_held_them_are_not_read_twice():
    held = span(
        text("gen_ai.input.messages", json.dumps(question("Hello?"))),
        text("gen_ai.output.messages", json.dumps(answer("Hi."))),
    )
    found, refused = read(otlp, held, log("gen_ai.choice", {"message": {"content": "Hi."}}))
    assert isinstance(found, Found)
    assert isinstance(refused, Refused)
    assert refused.reason == (
        "its span was read before it came, and held the whole call; wants one or the other"
    )


def test_prompts_as_json_text_and_the_azure_form_of_events_are_read():
    said = span(
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
    for row in (said, telemetry.json_form(azure)):
        found = record(otlp, row)
        assert found["request"] == {"messages": [{"role": "user", "content": "Hello?"}]}
        response = found["response"]
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
    found = record(otlp, telemetry.json_form(content))
    assert found["request"] == {
        "messages": [{"role": "user", "content": "Weather in Rome?"}],
        "tools": [logs.WEATHER],
    }
    response = found["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        }
    ]


def test_a_trace_is_cut_into_its_calls_and_other_spans_are_passed_over():
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
    found = read(otlp, {"resourceSpans": groups})
    assert [type(each) for each in found] == [Found, Found]
    assert [json.loads(each.row.text) for each in found] == [one, two]
    assert [each.row.place for each in found] == [1, 1]


def test_a_lone_span_keeps_its_row_verbatim():
    row = span(
        text("gen_ai.input.messages", json.dumps(question("a"))),
        text("gen_ai.output.messages", json.dumps(answer("b"))),
    )
    (found,) = read(otlp, row)
    assert found.row.text == json.dumps(row)


def test_user_feedback_is_a_rating_and_an_evaluation_an_outcome():
    stars = log(
        "gen_ai.evaluation.user_feedback",
        {"comment": "Fine."},
        text("gen_ai.response.id", "chatcmpl-1"),
        attribute("gen_ai.evaluation.score", {"doubleValue": 0.5}),
        text("enduser.id", "u-7"),
    )
    judged = log(
        "gen_ai.evaluation.result",
        None,
        text("gen_ai.evaluation.name", "relevance"),
        text("gen_ai.evaluation.score.label", "relevant"),
        text("gen_ai.evaluation.explanation", "On topic."),
    )
    rating, outcome = read(otlp, stars, judged)
    assert isinstance(rating, Found)
    assert isinstance(outcome, Found)
    assert rating.kind == outcome.kind == "feedback"
    assert rating.record == {
        "timestamp": 1_760_000_000.5,
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "u-7",
        "kind": "rating",
        "value": 0.5,
        "response_id": "chatcmpl-1",
        "scale": [-1, 1],
        "comment": "Fine.",
    }
    assert outcome.record == {
        "timestamp": 1_760_000_000.5,
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "unknown",
        "kind": "outcome",
        "value": {"name": "relevance", "value": "relevant"},
        "response_id": SPAN_ID,
        "comment": "On topic.",
    }


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        pytest.param(
            {"resourceSpans": [{"scopeSpans": "x"}]},
            "`resourceSpans[0].scopeSpans` is text, wants an array",
            id="scopes",
        ),
        pytest.param(
            {"resourceSpans": [], "resourceLogs": []},
            "found neither a span of a model's call nor an event of one, wants `gen_ai.` "
            "attributes in `resourceSpans` or `resourceLogs`",
            id="nothing",
        ),
        pytest.param(
            span(),
            f"the call of span {SPAN_ID} has no `gen_ai.input.messages` and no events with the "
            "messages, wants both request and answer: is the capture of content turned on?",
            id="no-content",
        ),
        pytest.param(
            span(text("gen_ai.input.messages", json.dumps(question("a")))),
            f"the call of span {SPAN_ID} has no `gen_ai.output.messages` and no events with the "
            "messages, wants both request and answer: is the capture of content turned on?",
            id="no-answer",
        ),
        pytest.param(
            span(text("gen_ai.input.messages", "[{")),
            '`gen_ai.input.messages` is the text "[{", wants JSON as text or as it is',
            id="damaged",
        ),
        pytest.param(
            span(text("gen_ai.input.messages", '[{"role": "user", "parts": [3]}]')),
            "`gen_ai.input.messages[0].parts[0]` is a number, wants an object",
            id="part",
        ),
        pytest.param(
            span(attribute("gen_ai.request.seed", {"intValue": "x"})),
            "`resourceSpans[0].scopeSpans[0].spans[0].attributes[gen_ai.request.seed]` is an "
            "object, wants an object with one of OTLP's typed values",
            id="value",
        ),
        pytest.param(
            span(startTimeUnixNano="soon"),
            "`resourceSpans[0].scopeSpans[0].spans[0].startTimeUnixNano` is text, wants "
            "nanoseconds as digits",
            id="time",
        ),
        pytest.param(
            log("gen_ai.user.message", {"content": 3}),
            "`gen_ai.user.message.content` is a number, wants text, an array of parts or null",
            id="event",
        ),
        pytest.param(
            log("gen_ai.evaluation.result", None),
            "`gen_ai.evaluation.score.value` is missing, wants a number, or a label or comment",
            id="evaluation",
        ),
    ],
)
def test_what_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], wanted: str
):
    assert reason(otlp, row) == wanted


def test_a_call_with_one_bad_message_is_refused_whole():
    rows = [
        log("gen_ai.system.message", {"content": 3}),
        log("gen_ai.user.message", {"content": "Hello?"}),
        log("gen_ai.choice", {"message": {"content": "Hi."}}),
    ]
    (refused,) = read(otlp, *rows)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith("`gen_ai.system.message.content` is a number")
    kept = json.loads(refused.row.text)["resourceLogs"]
    assert kept == [cast("list[Json]", row["resourceLogs"])[0] for row in rows]


def test_calls_that_never_come_together_do_not_pile_up():
    taken = 0

    def endless() -> Iterator[Row]:
        nonlocal taken
        while True:
            taken += 1
            value = log("gen_ai.user.message", {"content": "Hello?"}, spanId=f"{taken:016x}")
            yield Row(taken, json.dumps(value), value)

    first = next(otlp.read(endless(), DEFAULTS))
    assert isinstance(first, Refused)
    assert (first.row.place, taken) == (1, otlp.MOST_WAITING + 1)
