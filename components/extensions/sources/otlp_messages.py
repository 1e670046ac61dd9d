"""Messages and evaluations of OpenTelemetry's GenAI conventions, in events or attributes."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.collect.source import Defaults
from components.collect.sources import anthropic_messages, canonical, feedback, fields
from components.collect.sources.fields import Obj
from components.schema import Json

MESSAGE_ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
"""The older conventions' events of request messages, with their roles."""

CHOICE = "gen_ai.choice"  # the older conventions' event of an answer

EVALUATION = "gen_ai.evaluation."
USER_FEEDBACK = "gen_ai.evaluation.user_feedback"
FEEDBACK_SCALE: list[Json] = [-1, 1]  # the scale of user feedback: -1 is bad, 0 neutral, 1 good

FINISH = {"tool_call": "tool_calls"}  # finish reasons with another name at OpenAI

ELIDED = "<elided>"  # what stands for a text whose capture is turned off

PROMPT = "gen_ai.prompt"
COMPLETION = "gen_ai.completion"
FUNCTIONS = "llm.request.functions"

LITELLM_CALL = frozenset({"function_call.name", "function_call.arguments"})

PART_KEYS = {
    "text": "text",
    "refusal": "refusal",
    "image_url": "image_url",
    "input_audio": "input_audio",
    "file": "file",
    "image": "source",
    "document": "source",
    "tool_use": "name",
    "tool_result": "tool_use_id",
    "thinking": "thinking",
    "redacted_thinking": "data",
}
"""The types of OpenAI's and Anthropic's content parts, each with the key that all of them have."""


@dataclass(frozen=True, slots=True)
class GenAiEvent:
    """An event's name, attributes, body (``None`` on a span) and time (unix seconds)."""

    name: str
    attributes: Obj
    body: Json
    seconds: float

    @property
    def is_message(self) -> bool:
        """Return whether it is one message of a call."""
        return self.name in MESSAGE_ROLES or self.name == CHOICE

    @property
    def is_evaluation(self) -> bool:
        """Return whether it is feedback."""
        return self.name.startswith(EVALUATION)

    def content(self) -> Obj:
        """Return the body, else ``gen_ai.event.content``, else the attributes."""
        if isinstance(self.body, dict):
            return self.body
        content = fields.unpacked(self.attributes, "gen_ai.event.content")
        if isinstance(content, dict):
            return content
        return self.attributes if self.body is None else {**self.attributes, "content": self.body}


def evaluation_feedback(defaults: Defaults, event: GenAiEvent, span_id: str) -> Obj:
    """Return an evaluation event as feedback on the response it names, else on that of its span.

    User feedback is a rating; a score or a label is an outcome, or a thumb if named like one.
    """
    values: Obj = {**event.attributes, **event.content()}
    comment = fields.optional_text(values, "gen_ai.evaluation.explanation")
    comment = comment or fields.optional_text(values, "comment")
    score = values.get("gen_ai.evaluation.score.value", values.get("gen_ai.evaluation.score"))
    label = values.get("gen_ai.evaluation.score.label")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise fields.wrong_type("gen_ai.evaluation.score.value", score, "a number")
    scale: Json = None
    if event.name == USER_FEEDBACK and score is not None:
        kind, value, scale = "rating", score, FEEDBACK_SCALE
    elif score is not None or label is not None:
        name = fields.optional_text(values, "gen_ai.evaluation.name")
        name = name or event.name.removeprefix(EVALUATION)
        kind, value = feedback.score_signal(name, score if score is not None else label)
    elif comment:
        kind, value, comment = "comment", comment, None
    else:
        raise fields.missing("gen_ai.evaluation.score.value", "a number, or a label or comment")
    response_id = fields.optional_text(values, "gen_ai.response.id") or span_id
    if not response_id:
        raise fields.missing("gen_ai.response.id", "text, or the id of a span")
    return canonical.feedback(
        defaults,
        timestamp=event.seconds,
        actor_id=fields.optional_text(values, "user.id")
        or fields.optional_text(values, "enduser.id")
        or "unknown",
        kind=kind,
        value=value,
        target=("response_id", response_id),
        scale=scale,
        comment=comment,
    )


def from_parts(attributes: Obj) -> list[Json]:
    """Return the request messages in the newest form; each tool result becomes a message."""
    messages = fields.unpacked_array(attributes, "gen_ai.input.messages") or []
    written: list[Json] = []
    for path, message in fields.objects(messages, "gen_ai.input.messages"):
        role = fields.require_text(message, "role", path)
        parts = list(fields.objects(fields.require_array(message, "parts", path), f"{path}parts"))
        results = [(p, part) for p, part in parts if part.get("type") == "tool_call_response"]
        written += [_result(part) for _, part in results]
        others = [(p, part) for p, part in parts if part.get("type") != "tool_call_response"]
        if others or not results:
            name = fields.optional_text(message, "name", path)
            written.append(_beside_parts(message, path) | _message(role, others, name))
    return written


def choices_from_parts(attributes: Obj) -> list[Json]:
    """Return the choices in the newest form, one per message."""
    messages = fields.unpacked_array(attributes, "gen_ai.output.messages") or []
    written: list[Json] = []
    for index, (path, message) in enumerate(fields.objects(messages, "gen_ai.output.messages")):
        parts = list(fields.objects(fields.require_array(message, "parts", path), f"{path}parts"))
        reason = finish_reason(message.get("finish_reason"))
        answer = _beside_parts(message, path) | _message("assistant", parts, None)
        written.append(canonical.choice(answer, reason, index))
    return written


def _beside_parts(message: Obj, at: str) -> Obj:
    """Return what LiteLLM leaves where OpenAI has it: the calls, or whose result a message is."""
    kept = {key: message[key] for key in ("tool_calls", "tool_call_id") if message.get(key)}
    canonical.messages([{"role": "assistant", **kept}], at.rstrip("."))
    return kept


def system(attributes: Obj) -> list[Json]:
    """Return the system instructions as a list of at most one message."""
    instructions = fields.unpacked(attributes, at := "gen_ai.system_instructions")
    if isinstance(instructions, str):
        return [canonical.text_message("system", instructions)]
    if not isinstance(instructions, list | None):
        raise fields.wrong_type(at, instructions, "an array of parts")
    parts = list(fields.objects(instructions or [], at))
    return [_message("system", parts, None)] if parts else []


def tools(attributes: Obj) -> list[Json] | None:
    """Return the tools, which may be in OpenAI's form or in numbered attributes."""
    definitions = fields.unpacked_array(attributes, at := "gen_ai.tool.definitions")
    if definitions is None:
        return _indexed_tools(attributes) or None
    return [_tool(tool, path) for path, tool in fields.objects(definitions, at)]


def from_event(name: str, body: Obj, at: str) -> list[Json]:
    """Return the messages of a request event: one, or several if it has results of calls."""
    message = _event_message(MESSAGE_ROLES[name], body, at)
    return anthropic_messages.to_messages([message], at.rstrip("."))


def _event_message(role: str, body: Obj, at: str) -> Obj:
    role = fields.optional_text(body, "role", at) or role
    content = body.get("content")
    if content == ELIDED or (content is None and role == "user"):
        found = "missing" if content is None else ELIDED
        raise fields.WrongShapeError(
            f"`{at}content` is {found}, expected its text: is the capture of content turned on?"
        )
    if not isinstance(content, str | list | dict | None):
        raise fields.wrong_type(f"{at}content", content, "text, an array of parts or null")
    message: Obj = {"role": role, "content": content}
    if isinstance(content, dict):
        message = _gemini_message(role, content, at)
    if calls := fields.unpacked(body, "tool_calls", at):
        message["tool_calls"] = calls
    if role == "tool":
        message["tool_call_id"] = body.get("id")
    canonical.messages([message], at.rstrip("."))
    return message


def _gemini_message(role: str, content: Obj, at: str) -> Obj:
    if not isinstance(content.get("parts"), list):
        return {"role": role, "content": [content]}
    texts, calls, thoughts = list[Obj](), list[Obj](), list[Json]()
    for _, part in fields.objects(fields.require_array(content, "parts", at), f"{at}parts"):
        match part:
            case {"text": str(text), "thought": True}:
                thoughts.append(text)
            case {"text": str(text)}:
                texts.append({"type": "text", "text": text})
            case {"function_call": {"name": str(name), **call}}:
                calls.append(canonical.tool_call(name, call.get("args"), call.get("id")))
            case _:
                texts.append(part)
    return canonical.message(role, texts, calls, thoughts)


def choice_from_event(body: Obj, at: str) -> Obj:
    """Return the choice of a ``gen_ai.choice`` event; calls may be in or next to its message."""
    inner = fields.unpacked(body, "message", at)
    if inner is None:
        inner = body
    if not isinstance(inner, dict):
        inner = {"content": inner}
    calls = {"tool_calls": body["tool_calls"]} if body.get("tool_calls") else {}
    message = anthropic_messages.answer(_event_message("assistant", {**inner, **calls}, at), at)
    index = fields.require_whole_number(body, "index", at, 0)
    return canonical.choice(message, finish_reason(body.get("finish_reason")), index)


def finish_reason(reason: Json) -> Json:
    """Return OpenAI's name of a finish reason."""
    return FINISH.get(reason, reason) if isinstance(reason, str) else None


def _message(role: str, parts: list[tuple[str, Obj]], name: str | None) -> Obj:
    calls = [_call(part, path) for path, part in parts if part.get("type") == "tool_call"]
    thoughts = [part.get("content") for _, part in parts if part.get("type") == "reasoning"]
    others = [(p, part) for p, part in parts if part.get("type") not in ("tool_call", "reasoning")]
    contents = [_part(part, path) for path, part in others]
    return canonical.message(role, contents, calls, thoughts, name)


def _part(part: Obj, at: str) -> Obj:
    match part:
        case {"type": "text", "text": str()} if "content" not in part:  # LiteLLM's
            return part
        case {"type": "text"}:
            return {"type": "text", "text": fields.require_text(part, "content", at)}
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
        fields.require_text(part, "name", at), part.get("arguments"), part.get("id")
    )


def _result(part: Obj) -> Obj:
    # ``response`` is called ``result`` before 1.38.
    return canonical.tool_result(part.get("id"), part.get("response", part.get("result")))


def _tool(tool: Obj, at: str) -> Obj:
    if tool.get("type", "function") != "function" or "function" in tool:
        return tool
    return canonical.flat_tool(tool, at)


def indexed_messages(attributes: Obj) -> list[Json]:
    """Return the request messages; empty if the span has none in this form."""
    numbered = _numbered(attributes, PROMPT)
    messages: list[Json] = [_indexed_message(entry, "user") for entry in numbered]
    return canonical.messages(anthropic_messages.to_messages(messages, PROMPT), PROMPT)


def indexed_choices(attributes: Obj) -> list[Json]:
    """Return the choices; empty if the span has none in this form."""
    choices: list[Json] = []
    entries = _numbered(attributes, COMPLETION)
    calls = [call for entry in entries for call in _litellm_calls(entry)]
    for index, entry in enumerate(entry for entry in entries if entry.keys() - LITELLM_CALL):
        at = f"{COMPLETION}.{index}."
        message = anthropic_messages.answer(_indexed_message(entry, "assistant"), at)
        if calls and index == 0:
            message["tool_calls"] = calls
        canonical.messages([message], f"{COMPLETION}.{index}")
        choices.append(canonical.choice(message, entry.get("finish_reason"), index))
    return choices


def _litellm_calls(entry: Obj) -> Iterator[Json]:
    """Yield the call that LiteLLM numbers as if it were an answer."""
    if isinstance(name := entry.get("function_call.name"), str):
        yield canonical.tool_call(name, entry.get("function_call.arguments"))


def is_numbered(attributes: Obj) -> bool:
    """Return whether attributes have messages in this form."""
    return any(key.startswith((f"{PROMPT}.", f"{COMPLETION}.")) for key in attributes)


def _indexed_tools(attributes: Obj) -> list[Json]:
    return [
        canonical.tool(
            fields.require_text(entry, "name", f"{FUNCTIONS}.{index}."),
            entry.get("description"),
            fields.unpacked(entry, "parameters", f"{FUNCTIONS}.{index}."),
        )
        for index, entry in enumerate(_numbered(attributes, FUNCTIONS))
    ]


def _numbered(attributes: Obj, prefix: str) -> list[Obj]:
    gathered: dict[int, Obj] = {}
    for key, value in attributes.items():
        if not key.startswith(f"{prefix}."):
            continue
        number, _, rest = key.removeprefix(f"{prefix}.").partition(".")
        if number.isdecimal() and len(number) < 5 and rest:
            gathered.setdefault(int(number), {})[rest] = value
    return [gathered[number] for number in sorted(gathered)]


def _indexed_message(entry: Obj, role: str) -> Obj:
    content = entry.get("content")
    if isinstance(content, str) and content.startswith("[{"):
        parts = fields.loads(content)  # or the text itself is a JSON array
        content = parts if isinstance(parts, list) and all(map(_is_part, parts)) else content
    message: Obj = {"role": entry.get("role") or role, "content": content}
    calls = [
        canonical.tool_call(str(call.get("name")), call.get("arguments"), call.get("id"))
        for call in _numbered(entry, "tool_calls")
    ]
    if calls:
        message["tool_calls"] = [*calls]
    if entry.get("tool_call_id") is not None:
        message["tool_call_id"] = entry["tool_call_id"]
    return message


def _is_part(value: Json) -> bool:
    match value:
        case {"type": str(kind)}:
            return PART_KEYS.get(kind) in value
        case _:
            return False


def listed_events(attributes: Obj, seconds: float) -> Iterator[GenAiEvent]:
    """Yield the events that a span has as JSON in an attribute."""
    listed = fields.unpacked_array(attributes, "events") or []
    for path, event in fields.objects(listed, "events"):
        yield GenAiEvent(fields.require_text(event, "event.name", path), {}, event, seconds)
