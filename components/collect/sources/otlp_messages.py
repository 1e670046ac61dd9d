"""Write the messages of OpenTelemetry's GenAI conventions in OpenAI's chat form.

The newer conventions (1.37 and later) hold messages of ``parts``; in the older ones each message is
an event of its own, and its body is nearly OpenAI's message.
"""

import json

from components.collect.sources import chat, shape
from components.collect.sources.otlp_events import QUESTIONS
from components.collect.sources.shape import Obj
from components.schema import Json

FINISH = {"tool_call": "tool_calls"}
"""Reasons to finish that OpenAI names otherwise."""


def from_parts(messages: Json, at: str) -> list[Json]:
    """Write ``gen_ai.input.messages``; each result of a tool becomes a message of its own."""
    if not isinstance(messages, list):
        raise shape.wrong(at, messages, "an array")
    written: list[Json] = []
    for path, message in shape.objects(messages, at):
        role = shape.want_text(message, "role", path)
        parts = list(shape.objects(shape.want_array(message, "parts", path), f"{path}parts"))
        results = [(p, part) for p, part in parts if part.get("type") == "tool_call_response"]
        written += [_result(part) for _, part in results]
        others = [(p, part) for p, part in parts if part.get("type") != "tool_call_response"]
        if others or not results:
            written.append(_message(role, others, shape.may_text(message, "name", path)))
    return written


def choices_from_parts(messages: Json, at: str) -> list[Json]:
    """Write ``gen_ai.output.messages``: one choice for each message."""
    if not isinstance(messages, list):
        raise shape.wrong(at, messages, "an array")
    written: list[Json] = []
    for index, (path, message) in enumerate(shape.objects(messages, at)):
        parts = list(shape.objects(shape.want_array(message, "parts", path), f"{path}parts"))
        reason = finish_reason(message.get("finish_reason"))
        written.append(chat.choice(_message("assistant", parts, None), reason, index))
    return written


def system(instructions: Json, at: str) -> list[Json]:
    """Write ``gen_ai.system_instructions``, which are parts, as the message they are."""
    if isinstance(instructions, str):
        return [chat.text_message("system", instructions)]
    if not isinstance(instructions, list):
        raise shape.wrong(at, instructions, "an array of parts")
    parts = list(shape.objects(instructions, at))
    return [_message("system", parts, None)] if parts else []


def tools(definitions: Json, at: str) -> list[Json]:
    """Write ``gen_ai.tool.definitions``, which may be OpenAI's own."""
    if not isinstance(definitions, list):
        raise shape.wrong(at, definitions, "an array")
    return [_tool(tool, path) for path, tool in shape.objects(definitions, at)]


def from_event(name: str, body: Obj, at: str) -> Obj:
    """Write the message of an event of what was asked."""
    role = shape.may_text(body, "role", at) or QUESTIONS[name]
    message: Obj = {"role": role, "content": _content(body, at)}
    if calls := shape.unpacked(body, "tool_calls", at):
        message["tool_calls"] = calls
    if role == "tool":
        message["tool_call_id"] = body.get("id")
    chat.messages([message], at.rstrip("."))
    return message


def choice_from_event(body: Obj, at: str) -> Obj:
    """Write the choice of a ``gen_ai.choice`` event; its calls may lie beside its message."""
    said = shape.unpacked(body, "message", at)
    if said is None:
        said = body
    if not isinstance(said, dict):
        said = {"content": said}
    calls = {"tool_calls": body["tool_calls"]} if body.get("tool_calls") else {}
    message = from_event("gen_ai.assistant.message", {**said, **calls}, at)
    index = body.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int):
        raise shape.wrong(f"{at}index", index, "a whole number")
    return chat.choice(message, finish_reason(body.get("finish_reason")), index)


def finish_reason(reason: Json) -> Json:
    """Name a reason to finish as OpenAI does."""
    return FINISH.get(reason, reason) if isinstance(reason, str) else None


def _content(body: Obj, at: str) -> Json:
    content = body.get("content")
    if isinstance(content, dict):
        return [content]
    if not isinstance(content, str | list | None):
        raise shape.wrong(f"{at}content", content, "text, an array of parts or null")
    return content


def _message(role: str, parts: list[tuple[str, Obj]], name: str | None) -> Obj:
    """Make one message of parts: calls and reasoning apart."""
    calls = [_call(part, path) for path, part in parts if part.get("type") == "tool_call"]
    thoughts = [part.get("content") for _, part in parts if part.get("type") == "reasoning"]
    shown = [
        _part(part, path)
        for path, part in parts
        if part.get("type") not in ("tool_call", "reasoning")
    ]
    return chat.message(role, shown, calls, thoughts, name)


def _part(part: Obj, at: str) -> Obj:
    """Write one part; what OpenAI has no form for stays as it is."""
    match part:
        case {"type": "text"}:
            return {"type": "text", "text": shape.want_text(part, "content", at)}
        case {"type": "uri", "modality": "image", "uri": str(uri)}:
            return {"type": "image_url", "image_url": {"url": uri}}
        case {"type": "blob", "modality": "image", "content": str(content)}:
            url = f"data:{part.get('mime_type') or 'image/png'};base64,{content}"
            return {"type": "image_url", "image_url": {"url": url}}
        case {"type": "blob", "modality": "audio", "content": str(content)}:
            form = str(part.get("mime_type") or "audio/wav").rpartition("/")[2]
            return {"type": "input_audio", "input_audio": {"data": content, "format": form}}
        case {"type": "file", "file_id": str(file_id)}:
            return {"type": "file", "file": {"file_id": file_id}}
        case _:
            return part


def _call(part: Obj, at: str) -> Obj:
    return chat.tool_call(shape.want_text(part, "name", at), part.get("arguments"), part.get("id"))


def _result(part: Obj) -> Obj:
    """Write a tool's result, which is called ``response`` or, before 1.38, ``result``."""
    result = part.get("response", part.get("result"))
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"role": "tool", "tool_call_id": part.get("id"), "content": text}


def _tool(tool: Obj, at: str) -> Obj:
    if tool.get("type", "function") != "function" or "function" in tool:
        return tool
    return chat.tool(
        shape.want_text(tool, "name", at), tool.get("description"), tool.get("parameters")
    )
