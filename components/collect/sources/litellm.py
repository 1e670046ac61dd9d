"""LiteLLM: the payloads that its callbacks for S3, GCS, Azure and any HTTP endpoint write.

They are ``StandardLoggingPayload`` objects, one a file, one a line or in an array.
"""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields, openai_logs
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "litellm"

PAYLOAD = {"call_type", "model_parameters", "startTime", "messages", "response"}
REDACTED = "redacted-by-litellm"  # stands for a text where logging of messages is turned off
NO_SECONDS_FROM = 10**11  # larger numbers are no times: this many seconds are the year 5138
KEPT = ("custom_llm_provider", "model_group", "call_type", "cache_hit", "request_tags")
"""Keys of a payload to keep as metadata."""


def claims(value: dict[str, Json]) -> bool:
    """Claim payloads."""
    return value.keys() >= PAYLOAD


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interaction of a payload; one of a failed call has an answer only in part."""
    yield ParsedRecord(row, "interactions", _interaction(row.value, defaults))


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    response = value.get("response")
    has_failed = value.get("status") == "failure"
    if has_failed and not response:
        raise fields.unknown_value("status", "failure", "a response: the call has no answer")
    request, response, beside = openai_logs.exchange(request_of(value, response), "", response)
    if REDACTED in [*_texts(request, "messages"), *_texts(response, "choices")]:
        raise fields.WrongShapeError(
            f'the text is "{REDACTED}", expected the text: is the logging of messages turned off?'
        )
    if has_failed or _is_abandoned(value):
        beside["finish"] = canonical.CUT
    metadata = fields.optional_object(value, "metadata")
    sent = fields.optional_object(metadata, "requester_metadata", "metadata.")
    key_name = fields.optional_text(metadata, "user_api_key_alias", "metadata.")
    return canonical.interaction(
        defaults,
        timestamp=value.get("startTime"),
        request=request,
        response={**response, "id": response.get("id") or fields.require_text(value, "id")},
        workload_id=fields.optional_text(sent, "workload_id", "metadata.requester_metadata."),
        client_id=None if defaults.client_id else key_name,
        conversation_id=fields.optional_text(value, "session_id"),
        user_id=fields.optional_text(value, "end_user"),
        trace_id=fields.optional_text(value, "trace_id"),
        duration_ms=_duration_ms(value),
        metadata=sent | {key: value[key] for key in KEPT if value.get(key)},
        **beside,
    )


def request_of(value: Obj, response: Json) -> Obj:
    """Return a payload's request in the form of the API that it was sent to."""
    messages = value.get("messages")
    is_of_responses_api = isinstance(response, dict) and "output" in response
    key = "input" if is_of_responses_api or isinstance(messages, str) else "messages"
    parameters = fields.unpacked_object(value, "model_parameters")
    return fields.without_nulls({"model": value.get("model"), **parameters}) | {key: messages}


def _texts(holder: Obj, key: str) -> Iterator[Json]:
    for _, entry in fields.objects(fields.optional_array(holder, key), key):
        message = entry.get("message") if key == "choices" else entry
        yield message.get("content") if isinstance(message, dict) else None


def _is_abandoned(value: Obj) -> bool:
    """Return whether the proxy's client left: LiteLLM bills what came until then as a success."""
    error = fields.optional_object(value, "error_information")
    return error.get("error_class") == "ClientDisconnected"


def _duration_ms(value: Obj) -> float | None:
    match value:
        case {"startTime": int() | float() as began, "endTime": int() | float() as ended}:
            return (ended - began) * 1000 if 0 <= began <= ended < NO_SECONDS_FROM else None
        case _:
            return None
