"""Build canonical records: interactions in OpenAI's chat form, and feedback about them."""

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from components.collect.source import Defaults
from components.collect.sources import fields
from components.collect.sources.fields import Obj
from components.schema import Json

TargetKey: TypeAlias = Literal["response_id", "conversation_id", "target_id"]
"""What feedback is about; ``target_id`` if the source does not say which of the others it is."""

Target: TypeAlias = tuple[TargetKey, str]

CUT = "upstream_cut"  # the ``finish`` of an answer that broke off, as our gateway records it
NO_SECONDS_FROM = 10**11  # larger numbers are no seconds: so many are the year 5138
NO_TIME = 0  # the timestamp of rows without one: fixed, so that the same row always has the same id


def interaction(
    defaults: Defaults, *, timestamp: Json, request: Obj, response: Obj, **more: Json
) -> Obj:
    """Return an interaction without the nulls in ``more``.

    It may contain ``workload_id`` and ``client_id`` (default: those of ``defaults``),
    ``conversation_id``, ``user_id``, ``trace_id``, ``metadata``, ``duration_ms`` of the answer,
    ``finish``: ``CUT`` for an answer that is not whole, and ``usage``: ``cached_usage``. These two
    are beside the response, so that a log that is loaded again marks the rows it has, instead of
    adding others.
    """
    optional = fields.without_nulls({**more, "metadata": more.get("metadata") or None})
    five: Obj = {
        "timestamp": timestamp,
        "workload_id": optional.pop("workload_id", defaults.workload_id),
        "client_id": optional.pop("client_id", defaults.client_id),
        "request": request,
        "response": response,
    }
    return five | optional


def request(messages: list[Json], parameters: Obj) -> Obj:
    """Return a request without null parameters."""
    return {"messages": messages, **fields.without_nulls(parameters)}


def response(choices: list[Json], *, response_id: Json, model: Json = None, **more: Json) -> Obj:
    """Return a response without null values."""
    return fields.without_nulls({"id": response_id, "model": model, "choices": choices, **more})


def choice(message: Obj, finish_reason: Json = None, index: int = 0) -> Obj:
    """Return one choice of a response."""
    return {"index": index, "message": message, "finish_reason": finish_reason}


def answer(message: Obj) -> Obj:
    """Return the only choice of a response, with the finish reason that its message implies."""
    return choice(message, "tool_calls" if message.get("tool_calls") else "stop")


def usage(prompt: Json, completion: Json) -> Obj | None:
    """Return the token counts of prompt and completion; ``None`` if neither is known."""
    known = fields.without_nulls({"prompt_tokens": prompt, "completion_tokens": completion})
    return known or None


def cached_usage(prompt: Json, completion: Json, read: Json, written: Json) -> Obj | None:
    """Return the token counts of a prompt that the provider had cached or has cached, in part.

    Args:
        prompt: All tokens of the prompt.
        completion: Those of the answer.
        read: Those of the prompt that were read from the provider's cache.
        written: Those of the prompt that were written to it.

    Returns:
        OpenAI's ``usage``, with LiteLLM's name for the written ones; ``None`` if there are neither.
    """
    details: Obj = {"cached_tokens": read or None, "cache_creation_tokens": written or None}
    if not (known := fields.without_nulls(details)):
        return None
    return {**(usage(prompt, completion) or {}), "prompt_tokens_details": known}


def total(*counts: Json) -> Json:
    """Return the sum of token counts, of which some may be missing; ``None`` of others."""
    known = [count for count in counts if count is not None]
    numbers = [count for count in known if isinstance(count, int | float)]
    return sum(numbers) if len(numbers) == len(known) else None


def duration_ms(holder: Obj, began: str, ended: str) -> float | None:
    """Return the milliseconds between two ISO times; ``None`` unless both are in the same form."""
    try:
        first, last = (datetime.fromisoformat(str(holder.get(key))) for key in (began, ended))
        return max(0.0, (last - first) / timedelta(milliseconds=1))
    except (ValueError, TypeError):
        return None


def milliseconds(began: Json, ended: Json) -> float | None:
    """Return the milliseconds between two times in seconds; ``None`` unless both are such times."""
    match began, ended:
        case int() | float(), int() | float() if 0 <= began <= ended < NO_SECONDS_FROM:
            return (ended - began) * 1000
        case _:
            return None


def feedback(
    defaults: Defaults,
    *,
    timestamp: Json,
    actor_id: str,
    kind: str,
    value: Json,
    target: Target,
    **more: Json,
) -> Obj:
    """Return a feedback record; ``more`` may contain ``comment``, ``scale`` and ``metadata``."""
    record: Obj = {
        "timestamp": timestamp,
        "workload_id": defaults.workload_id,
        "client_id": defaults.client_id,
        "actor_id": actor_id,
        "kind": kind,
        "value": value,
        target[0]: target[1],
    }
    return record | fields.without_nulls({**more, "metadata": more.get("metadata") or None})


def messages(values: list[Json], at: str) -> list[Json]:
    """Return the messages unchanged; raise ``WrongShapeError`` if role or content is invalid."""
    for path, message in fields.objects(values, at):
        fields.require_text(message, "role", path)
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise fields.wrong_type(f"{path}content", content, "text, an array of parts or null")
        calls = fields.optional_array(message, "tool_calls", path)
        for call_path, call in fields.objects(calls, f"{path}tool_calls"):
            if call.get("type", "function") == "function":
                function = fields.require_object(call, "function", call_path)
                fields.require_text(function, "name", f"{call_path}function.")
    return values


def choices(holder: Obj, at: str) -> list[Json]:
    """Return a response's choices unchanged; raise ``WrongShapeError`` if a message is invalid."""
    listed = fields.require_array(holder, "choices", at)
    for path, listed_choice in fields.objects(listed, f"{at}choices"):
        messages([fields.require_object(listed_choice, "message", path)], f"{path}message")
    return listed


def text_message(role: str, content: Json) -> Obj:
    """Return a text-only message."""
    return {"role": role, "content": content}


def message(
    role: str, parts: list[Obj], calls: list[Obj], thoughts: list[Json], name: str | None = None
) -> Obj:
    """Return a message of content parts (a single text as plain text), calls and reasoning."""
    content: Json = [*parts] or None
    if len(parts) == 1 and parts[0].get("type") == "text":
        content = parts[0]["text"]
    message: Obj = {"role": role, "content": content}
    if calls:
        message["tool_calls"] = [*calls]
    if texts := [text for text in thoughts if isinstance(text, str)]:
        message["reasoning_content"] = "\n".join(texts)
    return message if name is None else message | {"name": name}


def tool_call(name: str, arguments: Json, call_id: Json = None) -> Obj:
    """Return one call of an assistant, with the arguments in the source's form."""
    function: Obj = {"name": name, "arguments": arguments}
    return fields.without_nulls({"id": call_id, "type": "function", "function": function})


def tool_result(call_id: Json, result: Json) -> Obj:
    """Return the message with the result of a call; a result that is not text becomes JSON."""
    return {"role": "tool", "tool_call_id": call_id, "content": fields.as_text(result)}


def tool(name: str, description: Json, parameters: Json, **more: Json) -> Obj:
    """Return one tool of a request."""
    function: Obj = {"name": name, "description": description, "parameters": parameters, **more}
    return {"type": "function", "function": fields.without_nulls(function)}


def flat_tool(holder: Obj, at: str, **more: Json) -> Obj:
    """Return a tool whose name, description and parameters are not under ``function``."""
    name = fields.require_text(holder, "name", at)
    return tool(name, holder.get("description"), holder.get("parameters"), **more)
