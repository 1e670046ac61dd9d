"""LiteLLM: what its callbacks for S3, GCS, Azure and any HTTP endpoint write, and its spend logs.

The callbacks write ``StandardLoggingPayload`` objects, one a file, one a line or in an array. The
rows of the proxy's table ``LiteLLM_SpendLogs``, exported as JSON or from ``/spend/logs``, have the
texts if ``store_prompts_in_spend_logs`` is on: the client's body in ``proxy_server_request`` (of
older versions the ``messages``), and the ``response``.
"""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields, openai_api, openai_logs
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "litellm"

PAYLOAD = {"call_type", "model_parameters", "startTime", "messages", "response"}
SPEND = {"request_id", "call_type", "spend", "startTime", "endTime", "response"}
RESPONSES = ("responses", "aresponses")
"""Types of calls of the Responses API, whatever API the model behind the proxy has."""

REDACTED = "redacted-by-litellm"  # stands for a text where logging of messages is turned off
SHORTENED = "(litellm_truncated skipped "  # stands in the middle of a text that was too long
KEPT = ("custom_llm_provider", "model_group", "call_type", "cache_hit", "request_tags")
"""Keys of a payload or a spend log to keep as metadata."""

NOT_KEPT = (None, "", "[]", "None", "False", [])  # what a spend log has for nothing


def claims(value: dict[str, Json]) -> bool:
    """Claim payloads and spend logs."""
    return value.keys() >= PAYLOAD or value.keys() >= SPEND


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interaction of a row; one of a failed call has an answer only in part."""
    if "model_parameters" in row.value:
        yield ParsedRecord(row, "interactions", _interaction(row.value, defaults))
        return
    if SHORTENED in row.text:
        raise fields.WrongShapeError(
            f'a text has "{SHORTENED}", expected all of it: set MAX_STRING_LENGTH_PROMPT_IN_DB, '
            "or collect what a callback writes"
        )
    yield ParsedRecord(row, "interactions", _spend(row.value, defaults))


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    answered = value.get("response")
    request, response, beside = _exchange(value, request_of(value, answered), "", answered)
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
        duration_ms=canonical.milliseconds(value.get("startTime"), value.get("endTime")),
        metadata=sent | {key: value[key] for key in KEPT if value.get(key)},
        **beside,
    )


def _spend(value: Obj, defaults: Defaults) -> Obj:
    metadata = fields.unpacked_object(value, "metadata")
    answered = fields.unpacked(value, "response")
    body, at = fields.unpacked_object(value, "proxy_server_request"), "proxy_server_request."
    if not body:
        messages, at = fields.unpacked(value, "messages"), ""
        body = {"model": value.get("model") or None, "messages": messages} if messages else {}
    if not body or (not answered and value.get("status") != "failure"):
        raise fields.missing(
            "response" if body else "proxy_server_request",
            "the texts of the call: is store_prompts_in_spend_logs turned on?",
        )
    request, response, beside = _exchange({**value, "metadata": metadata}, body, at, answered)
    sent = fields.optional_object(body, "metadata", at)
    known = fields.optional_object(metadata, "spend_logs_metadata", "metadata.")
    key_name = fields.optional_text(metadata, "user_api_key_alias", "metadata.")
    kept = {key: value[key] for key in KEPT if value.get(key) not in NOT_KEPT}
    return canonical.interaction(
        defaults,
        timestamp=value.get("startTime"),
        request=request,
        response={**response, "id": response.get("id") or fields.require_text(value, "request_id")},
        workload_id=fields.optional_text(known | sent, "workload_id", "metadata."),
        client_id=None if defaults.client_id else key_name,
        conversation_id=fields.optional_text(value, "session_id"),
        user_id=fields.optional_text(value, "end_user"),
        duration_ms=canonical.duration_ms(value, "startTime", "endTime"),
        metadata=known | sent | kept,
        **beside,
    )


def _exchange(value: Obj, body: Obj, at: str, answered: Json) -> tuple[Obj, Obj, Obj]:
    has_failed = value.get("status") == "failure"
    if has_failed and not answered:
        raise fields.unknown_value("status", "failure", "a response: the call has no answer")
    request, response, beside = openai_logs.exchange(body, at, answered)
    if REDACTED in [*_texts(request, "messages"), *_texts(response, "choices")]:
        raise fields.WrongShapeError(
            f'the text is "{REDACTED}", expected the text: is the logging of messages turned off?'
        )
    if has_failed or _is_abandoned(value):
        beside["finish"] = canonical.CUT
    return request, response, beside


def request_of(value: Obj, response: Json) -> Obj:
    """Return a payload's request in the form of the API that it was sent to."""
    messages = value.get("messages")
    answers_so = isinstance(response, dict) and "output" in response
    is_input = (
        isinstance(messages, str) or answers_so or _are_items(value.get("call_type"), messages)
    )
    parameters = fields.unpacked_object(value, "model_parameters")
    if isinstance(tools := parameters.get("tools"), list):
        # A model behind another API than the client's was offered them in its own form.
        parameters = {**parameters, "tools": [_tool(tool, n) for n, tool in enumerate(tools)]}
    request = fields.without_nulls({"model": value.get("model"), **parameters})
    return request | {"input" if is_input else "messages": messages}


def _are_items(call_type: Json, messages: Json) -> bool:
    return (
        call_type in RESPONSES
        and isinstance(messages, list)
        and not any(isinstance(each, dict) and "tool_calls" in each for each in messages)
    )


def _tool(tool: Json, index: int) -> Json:
    match tool:
        case {"type": "function", "name": str()}:
            return openai_api.to_tool(tool, f"model_parameters.tools[{index}].")
        case _:
            return tool


def _texts(holder: Obj, key: str) -> Iterator[Json]:
    for _, entry in fields.objects(fields.optional_array(holder, key), key):
        message = entry.get("message") if key == "choices" else entry
        yield message.get("content") if isinstance(message, dict) else None


def _is_abandoned(value: Obj) -> bool:
    """Return whether the proxy's client left: LiteLLM bills what came until then as a success."""
    holder = value if "error_information" in value else fields.optional_object(value, "metadata")
    error = fields.optional_object(holder, "error_information")
    return error.get("error_class") == "ClientDisconnected"
