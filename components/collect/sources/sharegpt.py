"""ShareGPT rows in LLaMA-Factory's form: conversations and feedback on them.

A row has ``conversations`` of ``from`` and ``value``; its last turn is the answer (SFT), unless
``chosen`` and ``rejected`` are two answers to it (DPO). A ``label`` is whether the answer is good
(KTO; its ``messages`` may be OpenAI's). Time, ids and actor are those of ``openai_finetuning``.
"""

from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import canonical, fields, openai_finetuning
from components.collect.sources.fields import Obj
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


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Yield the records of rows of any kind."""
    return fields.each(rows, lambda row: _convert(row, defaults))


def _convert(row: SourceRow, defaults: Defaults) -> Iterable[ParsedRecord | RejectedRecord]:
    value = row.value
    response_id = f"ft-{fields.digest(value)}"
    messages: list[Json] = [*_messages(value)]
    tools: Obj = {"tools": [*_tools(value)] or None}
    if "chosen" in value:
        request, answer = canonical.request(messages, tools), _answer(value, "chosen")
        choice: Json = {"chosen": answer, "rejected": _answer(value, "rejected")}
        signals = [("choice", choice)]
    else:
        request, answer = openai_finetuning.learned({"messages": messages, **tools})
        label = value.get("label")
        signals = [("thumb", "up" if label else "down")] if isinstance(label, bool) else []
    record = openai_finetuning.answered(defaults, request, answer, response_id)
    feedback = [
        canonical.feedback(
            defaults,
            timestamp=canonical.NO_TIME,
            actor_id=openai_finetuning.ACTOR,
            kind=kind,
            value=signal,
            target=("response_id", response_id),
        )
        for kind, signal in signals
    ]
    return [
        ParsedRecord(row, "interactions", record),
        *(ParsedRecord(row, "feedback", signal) for signal in feedback),
    ]


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
    """Return one turn as a message; its calls are a JSON object or an array of them."""
    name, text = fields.require_text(turn, "from", at), fields.require_text(turn, "value", at)
    if name not in ROLES:
        raise fields.unknown_value(f"{at}from", name, ", ".join(ROLES))
    if name != "function_call":
        return canonical.text_message(ROLES[name], text)
    parsed = fields.parsed(text, f"{at}value")
    calls: list[Json] = parsed if isinstance(parsed, list) else [parsed]
    return canonical.message(
        "assistant",
        [],
        [
            canonical.tool_call(fields.require_text(call, "name", path), call.get("arguments"))
            for path, call in fields.objects(calls, f"{at}value")
        ],
        [],
    )


def _answer(value: Obj, key: str) -> Obj:
    return _message(fields.require_object(value, key), f"{key}.")


def _tools(value: Obj) -> Iterator[Obj]:
    tools = fields.unpacked(value, "tools")
    if not tools:
        return
    if not isinstance(tools, list):
        raise fields.wrong_type("tools", tools, "an array of tools")
    for at, tool in fields.objects(tools, "tools"):
        function = fields.optional_object(tool, "function", at) or tool
        name = fields.require_text(function, "name", at)
        yield canonical.tool(name, function.get("description"), function.get("parameters"))
