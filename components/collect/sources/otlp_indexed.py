"""Read messages that a span holds as numbered attributes, as OpenLLMetry wrote them before 2026.

For example ``gen_ai.prompt.0.role``, ``gen_ai.completion.0.tool_calls.1.arguments`` and
``llm.request.functions.0.name``.
"""

from components.collect.sources import chat, shape
from components.collect.sources.shape import Obj
from components.schema import Json

PROMPT = "gen_ai.prompt"
COMPLETION = "gen_ai.completion"
FUNCTIONS = "llm.request.functions"


def messages(attributes: Obj) -> list[Json]:
    """Write what was asked; empty if the span holds none in this form."""
    numbered = _numbered(attributes, PROMPT)
    return chat.messages([_message(one, "user") for one in numbered], PROMPT)


def choices(attributes: Obj) -> list[Json]:
    """Write what was answered; empty if the span holds none in this form."""
    written: list[Json] = []
    for index, one in enumerate(_numbered(attributes, COMPLETION)):
        message = _message(one, "assistant")
        chat.messages([message], f"{COMPLETION}.{index}")
        written.append(chat.choice(message, one.get("finish_reason"), index))
    return written


def tools(attributes: Obj) -> list[Json]:
    """Write the functions that the request offered."""
    return [
        chat.tool(
            shape.want_text(one, "name", f"{FUNCTIONS}.{index}."),
            one.get("description"),
            shape.unpacked(one, "parameters", f"{FUNCTIONS}.{index}."),
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


def _message(one: Obj, role: str) -> Obj:
    message: Obj = {"role": one.get("role") or role, "content": _content(one.get("content"))}
    calls = [
        chat.tool_call(str(call.get("name")), call.get("arguments"), call.get("id"))
        for call in _numbered(
            {f"calls.{key}": said for key, said in one.items()}, "calls.tool_calls"
        )
    ]
    if calls:
        message["tool_calls"] = [*calls]
    if one.get("tool_call_id") is not None:
        message["tool_call_id"] = one["tool_call_id"]
    return message


def _content(content: Json) -> Json:
    """Read parts, which are held as JSON text; other text is what was said."""
    if isinstance(content, str) and content.startswith("[{"):
        parts = shape.loads(content)
        return parts if isinstance(parts, list) else content
    return content
