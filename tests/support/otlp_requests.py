"""Write OTLP requests by hand, of the newer conventions and of the older ones."""

from components.schema import Json
from tests.support import telemetry

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
