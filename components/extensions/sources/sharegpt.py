"""ShareGPT rows in LLaMA-Factory's form: conversations and feedback on them.

A row has ``conversations`` of ``from`` and ``value``; its last turn is the answer (SFT), unless
``chosen`` and ``rejected`` are two answers to it (DPO). A ``label`` is whether the answer is good
(KTO; its ``messages`` may be OpenAI's). Time, ids and actor are those of ``openai_finetuning``.
"""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.extensions.sources import openai_finetuning
from components.schema import Json

NAME = "sharegpt"

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def claims(value: dict[str, Json]) -> bool:
    """Claim rows of conversations, and labelled rows of messages."""
    has_messages = isinstance(value.get("messages"), list)
    is_labelled = has_messages and isinstance(value.get("label"), bool)
    return isinstance(value.get("conversations"), list) or is_labelled


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the records of a row of any kind."""
    value = row.value
    response_id = f"ft-{fields.digest(value)}"
    messages: list[Json] = [*_messages(value)]
    tools: Obj = {"tools": [*_tools(value)] or None}
    signal: tuple[str, Json] | None = None
    if "chosen" in value:
        request, answer = canonical.request(messages, tools), _answer(value, "chosen")
        signal = "choice", {"chosen": answer, "rejected": _answer(value, "rejected")}
    else:
        request, answer = openai_finetuning.learned({"messages": messages, **tools})
        if isinstance(label := value.get("label"), bool):
            signal = "thumb", "up" if label else "down"
    record = openai_finetuning.answered(defaults, request, answer, response_id)
    yield ParsedRecord(row, "interactions", record)
    if signal is not None:
        feedback = openai_finetuning.annotation(defaults, *signal, response_id)
        yield ParsedRecord(row, "feedback", feedback)


def _messages(value: Obj) -> Iterator[Obj]:
    if system := fields.optional_text(value, "system"):
        yield canonical.text_message("system", system)
    if "conversations" in value:
        turns = fields.require_array(value, "conversations")
        for at, turn in fields.objects(turns, "conversations"):
            yield _message(turn, at)
    else:
        messages = fields.require_array(value, "messages")
        yield from (message for _, message in fields.objects(messages, "messages"))


def _message(turn: Obj, at: str) -> Obj:
    name, text = fields.require_text(turn, "from", at), fields.require_text(turn, "value", at)
    if name not in ROLES:
        raise fields.unknown_value(f"{at}from", name, ", ".join(ROLES))
    if name != "function_call":
        return canonical.text_message(ROLES[name], text)
    parsed = fields.parsed(text, f"{at}value")
    calls: list[Json] = parsed if isinstance(parsed, list) else [parsed]
    written = [
        canonical.tool_call(fields.require_text(call, "name", path), call.get("arguments"))
        for path, call in fields.objects(calls, f"{at}value")
    ]
    return canonical.message("assistant", [], written, [])


def _answer(value: Obj, key: str) -> Obj:
    return _message(fields.require_object(value, key), f"{key}.")


def _tools(value: Obj) -> Iterator[Obj]:
    tools = fields.unpacked(value, "tools")
    if not tools:
        return
    if not isinstance(tools, list):
        raise fields.wrong_type("tools", tools, "an array of tools")
    for at, tool in fields.objects(tools, "tools"):
        yield canonical.flat_tool(fields.optional_object(tool, "function", at) or tool, at)
