"""Render requests as prompt text, and parse a model's text as an answer."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from components.schema import Answer, Call, Json, Message
from components.store import manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


PROMPT_FORMAT = 1
"""The version of what ``prompt``, ``native`` and ``rendering`` write and read: raise it when
``tests/golden/prompts.json`` changes. Snapshots and adapters of another version are refused."""

FORMAT = manifest.version(PROMPT_FORMAT, first="ea6607d4e60d458b")
"""The same as keys and manifests write it."""

CALL_START = '{"name"'
"""How every call begins, as ``render_answer`` writes it: its first token says that a tool fits."""

ARGUMENTS = ("arguments",)
"""Under which key a call has its arguments, as ``render_answer`` writes it."""

INSTRUCTION = "Answer with a JSON call of the right tool, or say that no tool fits."


def render_prompt(
    messages: Sequence[Mapping[str, Json]], tools: Sequence[Mapping[str, Json]]
) -> list[Message]:
    """Write a request as plain chat messages, its tools one a line in the system message.

    Args:
        messages: OpenAI chat messages; text parts are joined, other parts are not supported.
        tools: OpenAI tools, ``{"type": "function", "function": {...}}``; may be empty.
    """
    system = [text_of(message) for message in messages if is_system(message)]
    if tools:
        system += ["\n".join(["Tools:", *(_tool(tool) for tool in tools), INSTRUCTION])]
    head: list[Message] = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    return head + [_turn(message) for message in messages if not is_system(message)]


def render_answer(answer: Answer) -> str:
    """Write an answer as its text, followed by its calls, one JSON object a line."""
    calls = [
        json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
        for call in answer.calls
    ]
    return "\n".join([answer.text.strip(), *calls] if answer.text.strip() else calls)


def parse_answer(text: str, keys: Sequence[str] = ARGUMENTS) -> Answer:
    """Read a model's text: each JSON object in the form of a call is one, the rest is text.

    Args:
        text: What the model wrote.
        keys: Under which key a call may have its arguments.
    """
    calls: list[Call] = []
    rest: list[str] = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        found = _call_at(text, start, keys)
        if found is None:
            rest.append(text[position : start + 1])
            position = start + 1
        else:
            rest.append(text[position:start])
            call, position = found
            calls.append(call)
    rest.append(text[position:])
    return Answer("".join(rest).strip(), tuple(calls))


def answer_problem(text: str, keys: Sequence[str] = ARGUMENTS) -> str | None:
    """Say why ``text`` is a failed attempt at a call; ``None`` for good calls and for plain text.

    A model that breaks off in the middle of a call has not abstained from calling.
    """
    if "{" not in parse_answer(text, keys).text:
        return None
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
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
        tools: Those that the template itself writes.
        answered: The last message is the answer: the text ends where it does.
    """
    turns: list[Any] = [dict(message) for message in messages]
    offered: list[Any] | None = [dict(tool) for tool in tools] or None
    template = tokenizer.get_chat_template(None, offered)
    written = tokenizer.apply_chat_template(
        turns,
        tools=offered,
        chat_template=_ANY_DAY + template if "strftime_now" in template else template,
        tokenize=False,
        add_generation_prompt=not answered,
    )
    return cast("str", written)


_ANY_DAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
"""Some templates say what day it is: then no prompt would be the one that was trained on. This is
the day that Llama 3's says where it can't know."""


def read_message(message: Mapping[str, Json]) -> Answer:
    """Read an OpenAI assistant message, whose call arguments may be an object or its JSON text.

    Raises:
        ValueError: The arguments of a call are not a JSON object.
    """
    calls = message.get("tool_calls")
    read = [_openai_call(call) for call in calls] if isinstance(calls, list) else []
    return Answer(text_of(message), tuple(read))


def is_system(message: Mapping[str, Json]) -> bool:
    """Tell whether a message is the application's own word, not a person's."""
    return message.get("role") in ("system", "developer")


def _turn(message: Mapping[str, Json]) -> Message:
    """Write one message; a tool's result reads as said by the user, as every template allows."""
    if message.get("role") == "assistant":
        return {"role": "assistant", "content": render_answer(read_message(message))}
    if message.get("role") == "tool":
        return {"role": "user", "content": f"Result: {text_of(message)}"}
    return {"role": "user", "content": text_of(message)}


def _openai_call(raw: Json) -> Call:
    match raw:
        case {"function": {"name": str(name), "arguments": dict(arguments)}}:
            return Call(name, arguments)
        case {"function": {"name": str(name), "arguments": str(text)}}:
            return _openai_call({"function": {"name": name, "arguments": json.loads(text or "{}")}})
        case _:
            raise ValueError(f"a tool call wants `function` with name and arguments, found {raw!r}")


def text_of(message: Mapping[str, Json]) -> str:
    """Give a message's text, its parts joined; empty where it has none."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _tool(tool: Mapping[str, Json]) -> str:
    """Write one tool as ``name(argument: type, optional?: type) - description``."""
    match tool:
        case {"function": {"name": str(name), **function}}:
            head = f"{name}({', '.join(_arguments(function.get('parameters')))})"
        case _:
            raise ValueError(f"a tool wants a `function` object with a name, found {tool!r}")
    description = " ".join(str(function.get("description") or "").split())
    return f"{head} - {description}" if description else head


def _arguments(parameters: Json) -> list[str]:
    match parameters:
        case {"properties": dict(properties), **others}:
            required = others.get("required")
        case _:
            return []
    must = required if isinstance(required, list) else []
    return [f"{n}{'' if n in must else '?'}: {_type(schema)}" for n, schema in properties.items()]


def _type(schema: Json) -> str:
    """Write a JSON Schema type in a word; the items of an array in brackets, choices as is."""
    if not isinstance(schema, dict):
        return "any"
    if isinstance(choices := schema.get("enum"), list):
        return "|".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    kind = schema.get("type")
    if kind == "array":
        return f"[{_type(schema.get('items'))}]"
    if isinstance(kind, list):
        return "|".join(str(one) for one in kind)
    return kind if isinstance(kind, str) else "any"


def _call_at(text: str, start: int, keys: Sequence[str]) -> tuple[Call, int] | None:
    """Read the call that begins at ``start``, and where it ends; ``None`` if none does."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError):
        return None
    match cast("Json", value):
        case {"name": str(name), **others}:
            found = [given for key in keys if isinstance(given := others.get(key), dict)]
            return (Call(name, found[0]), end) if found else None
        case _:
            return None


def render_prompt_with_tools(messages: Sequence[Mapping[str, Json]], tools: str) -> list[Message]:
    """Write a request as plain chat messages, exactly as ``prompt.render_prompt`` does.

    Args:
        messages: OpenAI chat messages.
        tools: OpenAI tools, as JSON text.
    """
    return render_prompt([*messages, *_tool_messages(tools)], [])


@lru_cache(maxsize=512)
def _tool_messages(tools: str) -> list[Mapping[str, Json]]:
    """Write tools as the last of the system messages, which is where a prompt has them."""
    return [{**message} for message in render_prompt([], json.loads(tools))]
