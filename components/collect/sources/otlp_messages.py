"""Messages and evaluations of OpenTelemetry's GenAI conventions, in events or attributes."""

import json
from dataclasses import dataclass

from components.collect.source import Defaults
from components.collect.sources import canonical, feedback, fields
from components.collect.sources.canonical import Target
from components.collect.sources.fields import Obj
from components.schema import Json

QUESTIONS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
"""The older conventions' events of what was asked, with the role that each speaks in."""

CHOICE = "gen_ai.choice"
"""The older conventions' event of what was answered."""

EVALUATION = "gen_ai.evaluation."


@dataclass(frozen=True, slots=True)
class GenAiEvent:
    """What an event is called, its attributes, its body (``None`` on a span) and its time."""

    name: str
    attributes: Obj
    body: Json
    seconds: float

    @property
    def is_message(self) -> bool:
        """Tell whether it is one message of several."""
        return self.name in QUESTIONS or self.name == CHOICE

    @property
    def is_evaluation(self) -> bool:
        """Tell whether it is feedback."""
        return self.name.startswith(EVALUATION)

    def said(self) -> Obj:
        """Find what it says: in its body, in ``gen_ai.event.content`` or in its attributes."""
        if isinstance(self.body, dict):
            return self.body
        content = fields.unpacked(self.attributes, "gen_ai.event.content")
        if isinstance(content, dict):
            return content
        return self.attributes if self.body is None else {**self.attributes, "content": self.body}


USER_FEEDBACK = "gen_ai.evaluation.user_feedback"

FEELING: list[Json] = [-1, 1]
"""The scale of user feedback: -1 is bad, 0 neutral, 1 good."""


def evaluation_feedback(defaults: Defaults, event: GenAiEvent, span_id: str) -> Obj:
    """Write the feedback of an evaluation event.

    It is about the response it names, else about that of the span it was recorded on. User feedback
    is a rating; a result with a score or a label is an outcome, or a thumb if it is named so.
    """
    said: Obj = {**event.attributes, **event.said()}
    comment = fields.may_text(said, "gen_ai.evaluation.explanation")
    comment = comment or fields.may_text(said, "comment")
    score = said.get("gen_ai.evaluation.score.value", said.get("gen_ai.evaluation.score"))
    label = said.get("gen_ai.evaluation.score.label")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise fields.wrong("gen_ai.evaluation.score.value", score, "a number")
    scale: Json = None
    if event.name == USER_FEEDBACK and score is not None:
        kind, value, scale = "rating", score, FEELING
    elif score is not None or label is not None:
        name = fields.may_text(said, "gen_ai.evaluation.name")
        name = name or event.name.removeprefix(EVALUATION)
        kind, value = feedback.score_signal(name, score if score is not None else label)
    elif comment:
        kind, value, comment = "comment", comment, None
    else:
        raise fields.missing("gen_ai.evaluation.score.value", "a number, or a label or comment")
    return canonical.feedback(
        defaults,
        timestamp=event.seconds,
        actor_id=fields.may_text(said, "user.id")
        or fields.may_text(said, "enduser.id")
        or "unknown",
        kind=kind,
        value=value,
        target=_target(said, span_id),
        scale=scale,
        comment=comment,
    )


def _target(said: Obj, span_id: str) -> Target:
    response_id = fields.may_text(said, "gen_ai.response.id") or span_id
    if not response_id:
        raise fields.missing("gen_ai.response.id", "text, or the id of a span")
    return "response_id", response_id


FINISH = {"tool_call": "tool_calls"}
"""Reasons to finish that OpenAI names otherwise."""


def from_parts(messages: Json, at: str) -> list[Json]:
    """Write ``gen_ai.input.messages``; each result of a tool becomes a message of its own."""
    if not isinstance(messages, list):
        raise fields.wrong(at, messages, "an array")
    written: list[Json] = []
    for path, message in fields.objects(messages, at):
        role = fields.want_text(message, "role", path)
        parts = list(fields.objects(fields.want_array(message, "parts", path), f"{path}parts"))
        results = [(p, part) for p, part in parts if part.get("type") == "tool_call_response"]
        written += [_result(part) for _, part in results]
        others = [(p, part) for p, part in parts if part.get("type") != "tool_call_response"]
        if others or not results:
            written.append(_message(role, others, fields.may_text(message, "name", path)))
    return written


def choices_from_parts(messages: Json, at: str) -> list[Json]:
    """Write ``gen_ai.output.messages``: one choice for each message."""
    if not isinstance(messages, list):
        raise fields.wrong(at, messages, "an array")
    written: list[Json] = []
    for index, (path, message) in enumerate(fields.objects(messages, at)):
        parts = list(fields.objects(fields.want_array(message, "parts", path), f"{path}parts"))
        reason = finish_reason(message.get("finish_reason"))
        written.append(canonical.choice(_message("assistant", parts, None), reason, index))
    return written


def system(instructions: Json, at: str) -> list[Json]:
    """Write ``gen_ai.system_instructions``, which are parts, as the message they are."""
    if isinstance(instructions, str):
        return [canonical.text_message("system", instructions)]
    if not isinstance(instructions, list):
        raise fields.wrong(at, instructions, "an array of parts")
    parts = list(fields.objects(instructions, at))
    return [_message("system", parts, None)] if parts else []


def tools(definitions: Json, at: str) -> list[Json]:
    """Write ``gen_ai.tool.definitions``, which may be OpenAI's own."""
    if not isinstance(definitions, list):
        raise fields.wrong(at, definitions, "an array")
    return [_tool(tool, path) for path, tool in fields.objects(definitions, at)]


def from_event(name: str, body: Obj, at: str) -> Obj:
    """Write the message of an event of what was asked."""
    role = fields.may_text(body, "role", at) or QUESTIONS[name]
    message: Obj = {"role": role, "content": _content(body, at)}
    if calls := fields.unpacked(body, "tool_calls", at):
        message["tool_calls"] = calls
    if role == "tool":
        message["tool_call_id"] = body.get("id")
    canonical.messages([message], at.rstrip("."))
    return message


def choice_from_event(body: Obj, at: str) -> Obj:
    """Write the choice of a ``gen_ai.choice`` event; its calls may lie beside its message."""
    said = fields.unpacked(body, "message", at)
    if said is None:
        said = body
    if not isinstance(said, dict):
        said = {"content": said}
    calls = {"tool_calls": body["tool_calls"]} if body.get("tool_calls") else {}
    message = from_event("gen_ai.assistant.message", {**said, **calls}, at)
    index = body.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int):
        raise fields.wrong(f"{at}index", index, "a whole number")
    return canonical.choice(message, finish_reason(body.get("finish_reason")), index)


def finish_reason(reason: Json) -> Json:
    """Name a reason to finish as OpenAI does."""
    return FINISH.get(reason, reason) if isinstance(reason, str) else None


def _content(body: Obj, at: str) -> Json:
    content = body.get("content")
    if isinstance(content, dict):
        return [content]
    if not isinstance(content, str | list | None):
        raise fields.wrong(f"{at}content", content, "text, an array of parts or null")
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
    return canonical.message(role, shown, calls, thoughts, name)


def _part(part: Obj, at: str) -> Obj:
    """Write one part; what OpenAI has no form for stays as it is."""
    match part:
        case {"type": "text"}:
            return {"type": "text", "text": fields.want_text(part, "content", at)}
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
    return canonical.tool_call(
        fields.want_text(part, "name", at), part.get("arguments"), part.get("id")
    )


def _result(part: Obj) -> Obj:
    """Write a tool's result, which is called ``response`` or, before 1.38, ``result``."""
    result = part.get("response", part.get("result"))
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"role": "tool", "tool_call_id": part.get("id"), "content": text}


def _tool(tool: Obj, at: str) -> Obj:
    if tool.get("type", "function") != "function" or "function" in tool:
        return tool
    return canonical.tool(
        fields.want_text(tool, "name", at), tool.get("description"), tool.get("parameters")
    )


PROMPT = "gen_ai.prompt"
COMPLETION = "gen_ai.completion"
FUNCTIONS = "llm.request.functions"


def indexed_messages(attributes: Obj) -> list[Json]:
    """Write what was asked; empty if the span holds none in this form."""
    numbered = _numbered(attributes, PROMPT)
    return canonical.messages([_indexed_message(one, "user") for one in numbered], PROMPT)


def indexed_choices(attributes: Obj) -> list[Json]:
    """Write what was answered; empty if the span holds none in this form."""
    written: list[Json] = []
    for index, one in enumerate(_numbered(attributes, COMPLETION)):
        message = _indexed_message(one, "assistant")
        canonical.messages([message], f"{COMPLETION}.{index}")
        written.append(canonical.choice(message, one.get("finish_reason"), index))
    return written


def indexed_tools(attributes: Obj) -> list[Json]:
    """Write the functions that the request offered."""
    return [
        canonical.tool(
            fields.want_text(one, "name", f"{FUNCTIONS}.{index}."),
            one.get("description"),
            fields.unpacked(one, "parameters", f"{FUNCTIONS}.{index}."),
        )
        for index, one in enumerate(_numbered(attributes, FUNCTIONS))
    ]


def _numbered(attributes: Obj, prefix: str) -> list[Obj]:
    """Gather ``prefix.N.rest`` attributes by their number."""
    gathered: dict[int, Obj] = {}
    for key, value in attributes.items():
        if not key.startswith(f"{prefix}."):
            continue
        number, _, rest = key.removeprefix(f"{prefix}.").partition(".")
        if number.isdecimal() and len(number) < 5 and rest:
            gathered.setdefault(int(number), {})[rest] = value
    return [gathered[number] for number in sorted(gathered)]


def _indexed_message(one: Obj, role: str) -> Obj:
    message: Obj = {
        "role": one.get("role") or role,
        "content": _indexed_content(one.get("content")),
    }
    calls = [
        canonical.tool_call(str(call.get("name")), call.get("arguments"), call.get("id"))
        for call in _numbered(
            {f"calls.{key}": said for key, said in one.items()}, "calls.tool_calls"
        )
    ]
    if calls:
        message["tool_calls"] = [*calls]
    if one.get("tool_call_id") is not None:
        message["tool_call_id"] = one["tool_call_id"]
    return message


def _indexed_content(content: Json) -> Json:
    """Read parts, which are held as JSON text; other text is what was said."""
    if isinstance(content, str) and content.startswith("[{"):
        parts = fields.loads(content)
        return parts if isinstance(parts, list) else content
    return content
