"""Translate the attributes of a span of Vercel's AI SDK to GenAI's."""

from collections.abc import Iterator

from components.collect.sources import fields
from components.collect.sources.fields import Obj
from components.schema import Json

MESSAGES = "ai.prompt.messages"

NAMES = {
    "ai.telemetry.metadata.userId": "user.id",
    "ai.telemetry.metadata.sessionId": "session.id",
}

FINISH = {"tool-calls": "tool_calls", "content-filter": "content_filter"}
"""OpenAI's names of the SDK's finish reasons."""


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: The messages are not those of the SDK.
    """
    if MESSAGES not in attributes or "gen_ai.operation.name" in attributes:
        return attributes
    asked = fields.unpacked_array(attributes, MESSAGES) or []
    translated: Obj = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": [_message(*each) for each in fields.objects(asked, MESSAGES)],
    }
    if answer := list(_answer(attributes)):
        reason = attributes.get("ai.response.finishReason")
        finish = FINISH.get(reason, reason) if isinstance(reason, str) else None
        message: Obj = {"role": "assistant", "parts": [*answer], "finish_reason": finish}
        translated["gen_ai.output.messages"] = [message]
    tools = fields.optional_array(attributes, "ai.prompt.tools")
    if tools:
        translated["gen_ai.tool.definitions"] = [_tool(tool) for tool in tools]
    translated |= {new: attributes[old] for old, new in NAMES.items() if old in attributes}
    return translated | attributes


def _message(at: str, message: Obj) -> Json:
    content = message.get("content")
    parts: list[Json] = [{"type": "text", "content": content}]
    if isinstance(content, list):
        parts = [_part(part) for _, part in fields.objects(content, f"{at}content")]
    return {"role": message.get("role"), "parts": parts}


def _part(part: Obj) -> Json:
    match part:
        case {"type": "text" | "reasoning" as kind, "text": str(text)}:
            return {"type": kind, "content": text}
        case {"type": "tool-call"}:
            return _call(part)
        case {"type": "tool-result", "toolCallId": call_id}:
            output = part.get("output", part.get("result"))
            value = output.get("value", output) if isinstance(output, dict) else output
            return {"type": "tool_call_response", "id": call_id, "response": value}
        case _:
            return part


def _call(call: Obj) -> Json:
    # Before the SDK's version 5 the input is called `args`.
    return {
        "type": "tool_call",
        "id": call.get("toolCallId"),
        "name": call.get("toolName"),
        "arguments": call.get("input", call.get("args")),
    }


def _answer(attributes: Obj) -> Iterator[Json]:
    for key in ("ai.response.text", "ai.response.object"):
        if text := fields.optional_text(attributes, key):
            yield {"type": "text", "content": text}
    calls = fields.unpacked_array(attributes, "ai.response.toolCalls") or []
    for _, call in fields.objects(calls, "ai.response.toolCalls"):
        yield _call(call)


def _tool(tool: Json) -> Json:
    value = fields.loads(tool) if isinstance(tool, str) else tool
    match value:
        case {"type": "function", "inputSchema": parameters, **others}:
            return {"type": "function", **others, "parameters": parameters}
        case _:
            return value
