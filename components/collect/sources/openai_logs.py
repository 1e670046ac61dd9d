"""OpenAI's own form: logged requests with their responses, and exports of stored completions.

A log row has ``request`` and ``response``, each in the API's form or under ``body`` (as in HTTP
logs); the response may be a list of chunks or the text of a stream. Both may also be of the
Responses API, of text completions, of Anthropic's Messages API or of Gemini, whose batches on
Vertex AI give such rows with their ``processed_time``. An export row is a ``chat.completion`` with
its ``messages``, or a page (``object: list``) of them.
"""

from collections.abc import Iterator

from components.collect import importers
from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import anthropic_messages, canonical, fields, openai_api
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "openai_logs"

PARAMETERS = (
    "model",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
)
"""Keys of the request that a stored completion repeats, besides the messages."""

COMPLETION = ("id", "object", "created", "model", "choices", "usage", "service_tier")
"""Keys of the response in a stored completion."""


def claims(value: dict[str, Json]) -> bool:
    """Claim stored completions, and requests with responses without both workload and client."""
    if value.get("object") == "list" and isinstance(page := value.get("data"), list):
        return bool(page) and all(isinstance(row, dict) and _is_stored(row) for row in page)
    if _is_stored(value):
        return True
    request = value.get("request")
    return (
        isinstance(request, dict)
        and "response" in value
        and not {"workload_id", "client_id"} <= value.keys()
        and bool({"messages", "input", "prompt", "contents", "body"} & request.keys())
    )


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the record of a logged or exported row; a page yields one per completion."""
    if row.value.get("object") == "list":
        page = fields.require_array(row.value, "data")
        if not page:
            raise fields.missing("data[0]", "a chat.completion")
        parts = [fields.part(row, stored) for _, stored in fields.objects(page, "data")]
        yield from read(parts, defaults)
    else:
        convert = logged if "request" in row.value else _stored
        yield ParsedRecord(row, "interactions", convert(row.value, defaults))


def _is_stored(value: Obj) -> bool:
    return value.get("object") == "chat.completion" and "choices" in value


def exchange(request: Obj, at: str, response: Json) -> tuple[Obj, Obj, Obj]:
    """Return a request and its response in chat form, and what an interaction has beside them.

    That is ``finish`` if the answer broke off, and the ``usage`` that the response can't have.

    Each may be of chat completions, text completions, the Responses API, Anthropic's Messages API
    or Gemini's ``generateContent``, whatever the other is of: gateways translate. The response may
    also be a list of chunks or the text of a stream. Raise ``WrongShapeError`` if it has no choice.
    """
    answered = openai_api.text_to_response(_streamed(response))
    is_cut = openai_api.is_cut(answered) or any(api.is_cut(answered) for api in importers.apis())
    asked = _asked(request, at, answered)
    converted, used = _answered(answered, request)
    canonical.messages(fields.require_array(asked, "messages", at), f"{at}messages")
    _check(converted, "response.")
    return asked, converted, {"finish": canonical.CUT if is_cut else None, "usage": used}


def _asked(request: Obj, at: str, answered: Obj) -> Obj:
    if openai_api.is_request(request):
        return openai_api.to_request(request, at)
    if openai_api.is_text_request(request) and "choices" in answered:
        return openai_api.text_to_request(request, at)
    for api in importers.apis():
        if api.is_request(request):
            return api.to_request(request, at)
    return anthropic_messages.to_request(request, at)


def _answered(answered: Obj, request: Obj) -> tuple[Obj, Obj | None]:
    """Return a response in chat form and the usage that it can't have.

    One of an unknown form is said to lack what the API of its request answers with.
    """
    at = "response."
    if "choices" in answered:
        return answered, None
    if anthropic_messages.is_response(answered):
        used = anthropic_messages.cached_usage(answered, at)
        return anthropic_messages.to_response(answered, at), used
    if openai_api.is_response(answered) or openai_api.is_request(request):
        return openai_api.to_response(answered, at), openai_api.usage_beside(answered, at)
    for api in importers.apis():
        if api.is_response(answered) or api.is_request(request):
            return api.to_response(answered, at), api.cached_usage(answered, at)
    return answered, None


def logged(value: Obj, defaults: Defaults) -> Obj:
    """Return the interaction of a logged row, or raise ``WrongShapeError``."""
    request, at = _body(value, "request")
    request, response, beside = exchange(request, at, _response(value))
    known = (value.get(key) for key in ("timestamp", "created_at", "processed_time"))
    times = (*known, response.get("created"))
    return canonical.interaction(
        defaults,
        timestamp=next((time for time in times if time is not None), None),
        request=request,
        response=response,
        workload_id=fields.optional_text(value, "workload_id"),
        client_id=None if defaults.client_id else fields.optional_text(value, "client_id"),
        conversation_id=fields.optional_text(value, "conversation_id"),
        user_id=fields.optional_text(value, "user_id") or fields.optional_text(request, "user", at),
        metadata=value.get("metadata") or request.get("metadata"),
        **beside,
    )


def _stored(value: Obj, defaults: Defaults) -> Obj:
    _check(value, "")
    messages = value.get("messages")
    if isinstance(messages, dict):  # a page of /chat/completions/{id}/messages
        messages, at = fields.require_array(messages, "data", "messages."), "messages.data"
    else:
        messages, at = fields.require_array(value, "messages"), "messages"
    sent = canonical.messages([_sent(message) for message in messages], at)
    parameters: Obj = {key: value.get(key) for key in PARAMETERS}
    response: Obj = {key: value.get(key) for key in COMPLETION}
    return canonical.interaction(
        defaults,
        timestamp=value.get("created"),
        request={**fields.without_nulls(parameters), "messages": sent},
        response=fields.without_nulls(response),
        user_id=fields.optional_text(value, "input_user"),
        metadata=value.get("metadata"),
    )


def _sent(message: Json) -> Json:
    if not isinstance(message, dict):
        return message
    parts = message.get("content_parts")
    sent = {key: value for key, value in message.items() if key not in ("id", "content_parts")}
    return fields.without_nulls({**sent, "content": parts} if parts else sent)


def _body(value: Obj, key: str) -> tuple[Obj, str]:
    holder = fields.require_object(value, key)
    if isinstance(holder.get("body"), dict):
        return fields.require_object(holder, "body", f"{key}."), f"{key}.body."
    return holder, f"{key}."


def _response(value: Obj) -> Json:
    response = value.get("response")
    if isinstance(response, dict) and isinstance(response.get("body"), list | str):
        return response["body"]
    return response if isinstance(response, str | list) else _body(value, "response")[0]


def _streamed(response: Json) -> Obj:
    if isinstance(response, str):
        response = openai_api.events(response, "response")
    if isinstance(response, list):
        if anthropic_messages.is_stream(response):
            return anthropic_messages.assemble(response, "response")
        for api in importers.apis():
            if api.is_stream(response):
                return api.assemble(response, "response")
        return openai_api.whole(response, "response")
    return fields.require_object({"response": response}, "response")


def _check(response: Obj, at: str) -> None:
    if response.get("error") is not None:
        raise fields.wrong_type(f"{at}error", response["error"], "a response with `choices`")
    canonical.choices(response, at)
