"""Render requests as prompt text, and parse a model's text as an answer."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from components.schema import Answer, Call, Json, Message
from components.store import manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


PROMPT_FORMAT = 1
"""The version of what ``prompt``, ``dialects`` and ``chat_templates`` render and parse: raise it
when ``tests/golden/prompts.json`` changes. Snapshots and adapters of another version are refused.
"""

FORMAT = manifest.version(PROMPT_FORMAT, first="ea6607d4e60d458b")
"""``PROMPT_FORMAT`` as it is written in keys and manifests."""

CALL_START = '{"name"'
"""The text that ``render_answer`` begins every call with; its first token decides for a call."""

ARGUMENTS = ("arguments",)
"""The keys that may hold a call's arguments; ``render_answer`` writes the first."""

INSTRUCTION = "Answer with a JSON call of the right tool, or say that no tool fits."


def render_prompt(
    messages: Sequence[Mapping[str, Json]], tools: Sequence[Mapping[str, Json]]
) -> list[Message]:
    """Render a request as plain chat messages, with one tool per line in the system message.

    Args:
        messages: OpenAI chat messages; text parts are joined, other parts are not supported.
        tools: OpenAI tools, ``{"type": "function", "function": {...}}``; may be empty.
    """
    return _render(messages, _tools_text(tools))


def _render(messages: Sequence[Mapping[str, Json]], tools: str) -> list[Message]:
    system: list[str] = []
    turns: list[Message] = []
    for message in messages:
        if is_system(message):
            system.append(text_of(message))
        else:
            turns.append(_turn(message))
    if tools:
        system.append(tools)
    return [{"role": "system", "content": "\n\n".join(system)}, *turns] if system else turns


def _tools_text(tools: Sequence[Mapping[str, Json]]) -> str:
    return "\n".join(["Tools:", *map(_tool, tools), INSTRUCTION]) if tools else ""


def render_answer(answer: Answer) -> str:
    """Render an answer as its text, followed by its calls, one JSON object per line."""
    calls = [
        json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
        for call in answer.calls
    ]
    return "\n".join([answer.text.strip(), *calls] if answer.text.strip() else calls)


UNREADABLE = (ValueError, RecursionError)
"""What reading JSON raises, also for thousands of digits or brackets, where a model loops."""


def parse_answer(text: str, keys: Sequence[str] = ARGUMENTS) -> Answer:
    """Parse a model's text: JSON objects in the form of a call are calls, the rest is text.

    Args:
        text: The model's output.
        keys: The keys that may hold a call's arguments.
    """
    calls: list[Call] = []
    rest: list[str] = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        parsed = _call_at(text, start, keys)
        if parsed is None:
            rest.append(text[position : start + 1])
            position = start + 1
        else:
            rest.append(text[position:start])
            call, position = parsed
            calls.append(call)
    rest.append(text[position:])
    return Answer("".join(rest).strip(), tuple(calls))


_BEGUN_CALL = re.compile(r'\{\s*"name"')


def answer_problem(
    text: str, keys: Sequence[str] = ARGUMENTS, *, may_have_braces: bool = False
) -> str | None:
    """Return why ``text`` is a failed call attempt; ``None`` for valid calls and plain text.

    A call that breaks off in the middle is not an abstention. ``may_have_braces``: plain text may,
    as code does.
    """
    rest = parse_answer(text, keys).text
    if "{" not in rest or (may_have_braces and _BEGUN_CALL.search(rest) is None):
        return None
    try:
        json.loads(text)
    except UNREADABLE as error:
        return f"a call was begun but is not JSON: {error}"
    return f'the JSON has not the form {{"name": ..., "{keys[0]}": {{...}}}}'


def to_text(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Json]] | Sequence[Message],
    tools: Sequence[Mapping[str, Json]] = (),
    *,
    answered: bool = False,
) -> str:
    """Apply the chat template, up to where the model's answer begins.

    Args:
        tokenizer: The base's.
        messages: Chat messages as rendered.
        tools: The tools that the template renders.
        answered: Whether the last message is the answer, so that the text ends with it.
    """
    turns: list[Any] = [dict(message) for message in messages]
    template_tools: list[Any] | None = [dict(tool) for tool in tools] or None
    template = tokenizer.get_chat_template(None, template_tools)
    text = tokenizer.apply_chat_template(
        turns,
        tools=template_tools,
        chat_template=_ANY_DAY + template if "strftime_now" in template else template,
        tokenize=False,
        add_generation_prompt=not answered,
    )
    return cast("str", text)


_ANY_DAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
"""Some templates render today's date, so no prompt would equal the one in training. This date is
Llama 3's default."""


def read_message(message: Mapping[str, Json]) -> Answer:
    """Parse an OpenAI assistant message; call arguments may be an object or its JSON text.

    Raises:
        ValueError: The arguments of a call are not a JSON object.
    """
    calls = message.get("tool_calls")
    parsed = [_openai_call(call) for call in calls] if isinstance(calls, list) else []
    return Answer(text_of(message), tuple(parsed))


def is_system(message: Mapping[str, Json]) -> bool:
    """Return whether a message is from the application, not a person."""
    return message.get("role") in ("system", "developer")


def _turn(message: Mapping[str, Json]) -> Message:
    if message.get("role") == "assistant":
        return {"role": "assistant", "content": render_answer(read_message(message))}
    if message.get("role") == "tool":  # role user, which every template accepts
        return {"role": "user", "content": f"Result: {text_of(message)}"}
    return {"role": "user", "content": text_of(message)}


def _openai_call(raw: Json) -> Call:
    match raw:
        case {"function": {"name": str(name), "arguments": dict(arguments)}}:
            return Call(name, arguments)
        case {"function": {"name": str(name), "arguments": str(text)}}:
            return _openai_call({"function": {"name": name, "arguments": json.loads(text or "{}")}})
        case _:
            raise ValueError(
                f"expected a tool call with a `function` with name and arguments, found {raw!r}"
            )


def text_of(message: Mapping[str, Json]) -> str:
    """Return a message's text with its parts joined, refusals too; empty if it has no text."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        texts = [part.get("text", part.get("refusal")) for part in parts]
        return "\n".join(text for text in texts if isinstance(text, str))
    refusal = message.get("refusal")  # OpenAI's, beside a content that is empty or null
    texts = [text for text in (content, refusal) if isinstance(text, str) and text]
    return "\n".join(texts)


def _tool(tool: Mapping[str, Json]) -> str:
    """Render one tool as ``name(argument: type, optional?: type) - description``."""
    match tool:
        case {"function": {"name": str(name), **function}}:
            head = f"{name}({', '.join(_arguments(function.get('parameters')))})"
        case _:
            raise ValueError(f"expected a tool with a `function` with a name, found {tool!r}")
    description = " ".join(str(function.get("description") or "").split())
    return f"{head} - {description}" if description else head


def _arguments(parameters: Json) -> list[str]:
    match parameters:
        case {"properties": dict(properties), **others}:
            listed = others.get("required")
        case _:
            return []
    required = listed if isinstance(listed, list) else []
    return [
        f"{name}{'' if name in required else '?'}: {_type(schema)}"
        for name, schema in properties.items()
    ]


def _type(schema: Json) -> str:
    """Render a JSON Schema type as a word, an array as ``[items]``, an enum as its values."""
    if not isinstance(schema, dict):
        return "any"
    if isinstance(choices := schema.get("enum"), list):
        return "|".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    kind = schema.get("type")
    if kind == "array":
        return f"[{_type(schema.get('items'))}]"
    if isinstance(kind, list):
        return "|".join(str(name) for name in kind)
    return kind if isinstance(kind, str) else "any"


def _call_at(text: str, start: int, keys: Sequence[str]) -> tuple[Call, int] | None:
    """Parse the call that begins at ``start``; return it and its end, or ``None``."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except UNREADABLE:
        return None
    match cast("Json", value):
        case {"name": str(name), **others}:
            arguments = (others.get(key) for key in keys)
            first = next((value for value in arguments if isinstance(value, dict)), None)
            return None if first is None else (Call(name, first), end)
        case _:
            return None


def render_prompt_with_tools(messages: Sequence[Mapping[str, Json]], tools: str) -> list[Message]:
    """Render a request exactly like ``render_prompt``, with the tools' text cached.

    Args:
        messages: OpenAI chat messages.
        tools: OpenAI tools, as JSON text.
    """
    return _render(messages, _cached_tools_text(tools))


@lru_cache(maxsize=512)
def _cached_tools_text(tools: str) -> str:
    return _tools_text(json.loads(tools))
