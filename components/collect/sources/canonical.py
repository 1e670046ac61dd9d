"""Build canonical records: interactions in OpenAI's chat form, and feedback about them."""

from typing import Literal, TypeAlias

from components.collect.source import Defaults
from components.collect.sources import fields
from components.collect.sources.fields import Obj
from components.schema import Json

Target: TypeAlias = tuple[Literal["response_id", "conversation_id", "target_id"], str]
"""What feedback is about; ``target_id`` where the source does not say which of the others it is."""

NO_TIME = 0
"""The timestamp of rows that have none: fixed, so that the same row always has the same id."""


def interaction(
    defaults: Defaults, *, timestamp: Json, request: Obj, response: Obj, **more: Json
) -> Obj:
    """Write an interaction; of ``more`` the keys without a value are left out.

    ``more`` may say ``workload_id`` (else that of ``defaults`` stands), ``conversation_id``,
    ``user_id``, ``trace_id``, ``metadata`` and ``duration_ms``, how long the answer took.
    """
    said = fields.without_nulls({**more, "metadata": more.get("metadata") or None})
    five: Obj = {
        "timestamp": timestamp,
        "workload_id": said.pop("workload_id", defaults.workload_id),
        "client_id": defaults.client_id,
        "request": request,
        "response": response,
    }
    return five | said


def request(messages: list[Json], parameters: Obj) -> Obj:
    """Write a request; parameters without a value are left out."""
    return {"messages": messages, **fields.without_nulls(parameters)}


def response(choices: list[Json], *, response_id: Json, model: Json = None, **more: Json) -> Obj:
    """Write a response; keys without a value are left out."""
    return fields.without_nulls({"id": response_id, "model": model, "choices": choices, **more})


def choice(message: Obj, finish_reason: Json = None, index: int = 0) -> Obj:
    """Write one choice of a response."""
    return {"index": index, "message": message, "finish_reason": finish_reason}


def usage(prompt: Json, completion: Json) -> Obj | None:
    """Write how many tokens were read and written; ``None`` if neither is known."""
    known = fields.without_nulls({"prompt_tokens": prompt, "completion_tokens": completion})
    return known or None


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
    """Write one signal; ``more`` may say ``comment``, ``scale`` and ``metadata``."""
    said: Obj = {
        "timestamp": timestamp,
        "workload_id": defaults.workload_id,
        "client_id": defaults.client_id,
        "actor_id": actor_id,
        "kind": kind,
        "value": value,
        target[0]: target[1],
    }
    return said | fields.without_nulls({**more, "metadata": more.get("metadata") or None})


def messages(values: list[Json], at: str) -> list[Json]:
    """Check that each message has a role and readable content, and give them unchanged."""
    for path, message in fields.objects(values, at):
        fields.want_text(message, "role", path)
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise fields.wrong(f"{path}content", content, "text, an array of parts or null")
        for call_path, call in fields.objects(
            fields.may_array(message, "tool_calls", path), f"{path}tool_calls"
        ):
            _check_call(call, call_path)
    return values


def text_message(role: str, content: Json) -> Obj:
    """Write a message that is only text."""
    return {"role": role, "content": content}


def message(
    role: str, shown: list[Obj], calls: list[Obj], thoughts: list[Json], name: str | None = None
) -> Obj:
    """Write a message of parts: a lone text as plain text, calls and reasoning beside it."""
    content: Json = [*shown] or None
    if len(shown) == 1 and shown[0].get("type") == "text":
        content = shown[0]["text"]
    written: Obj = {"role": role, "content": content}
    if calls:
        written["tool_calls"] = [*calls]
    if said := [text for text in thoughts if isinstance(text, str)]:
        written["reasoning_content"] = "\n".join(said)
    return written if name is None else written | {"name": name}


def tool_call(name: str, arguments: Json, call_id: Json = None) -> Obj:
    """Write one call of an assistant, its arguments as the source had them."""
    function: Obj = {"name": name, "arguments": arguments}
    return fields.without_nulls({"id": call_id, "type": "function", "function": function})


def tool(name: str, description: Json, parameters: Json, **more: Json) -> Obj:
    """Write one tool that a request offers."""
    function: Obj = {"name": name, "description": description, "parameters": parameters, **more}
    return {"type": "function", "function": fields.without_nulls(function)}


def _check_call(call: Obj, at: str) -> None:
    if call.get("type", "function") == "function":
        function = fields.want_object(call, "function", at)
        fields.want_text(function, "name", f"{at}function.")
