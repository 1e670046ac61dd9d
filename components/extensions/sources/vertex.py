"""Vertex AI: its request-response logs, exported from their table in BigQuery as JSON or Parquet.

A row has the bodies of a call in ``full_request`` and ``full_response``, as JSON or its text: of
Gemini's ``generateContent``, streamed or not, or of Anthropic's ``rawPredict``. What an application
sends as ``labels`` may name the workload, the user and the conversation.
"""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields, openai_logs
from components.collect.sources.fields import Obj
from components.extensions.sources import gemini_api
from components.schema import Json

NAME = "vertex"

ROW = {"full_request", "full_response", "logging_time"}

CONVERSATIONS = ("conversation_id", "session_id")
"""Labels, which an application chooses."""


def claims(value: dict[str, Json]) -> bool:
    """Claim rows of the table."""
    return value.keys() >= ROW


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interaction of a row."""
    yield ParsedRecord(row, "interactions", _interaction(row.value, defaults))


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    asked, answered = (fields.unpacked(value, key) for key in ("full_request", "full_response"))
    if not answered:
        raise fields.missing("full_response", "a response: the call has no answer")
    asked = fields.require_object({"full_request": asked}, "full_request")
    labels = fields.optional_object(asked, "labels", "full_request.")
    request, response, beside = openai_logs.exchange(asked, "full_request.", answered)
    path = fields.optional_text(value, "model")
    model = gemini_api.model_name(path) if path else None
    logged_id = None if value.get("request_id") is None else fields.as_text(value["request_id"])
    if not (response_id := response.get("id") or logged_id):
        raise fields.missing("request_id", "text, or a number")
    known = fields.without_nulls({key: value.get(key) for key in ("api_method", "endpoint")})
    return canonical.interaction(
        defaults,
        timestamp=value.get("logging_time"),
        request=fields.without_nulls({"model": model}) | request,
        response={
            **response,
            **fields.without_nulls({"model": response.get("model") or model}),
            "id": response_id,
        },
        workload_id=fields.optional_text(labels, "workload_id", "full_request.labels."),
        conversation_id=next((labels[key] for key in CONVERSATIONS if labels.get(key)), None),
        user_id=fields.optional_text(labels, "user_id", "full_request.labels."),
        trace_id=logged_id,
        duration_ms=_latency_ms(fields.unpacked(value, "metadata")),
        metadata=labels | known,
        **beside,
    )


def _latency_ms(metadata: Json) -> Json:
    match metadata:
        case {"request_latency": int() | float() as latency}:
            return latency
        case _:
            return None
