"""TensorZero's tables: ChatInference and JsonInference rows, and the four tables of feedback.

Columns that hold JSON as text may also be exported as the JSON itself. A row without ``timestamp``
has the time that its id, a UUIDv7, begins with: the tables have the column from there, too.
The feedback of a metric does not say whether its target is an inference or an episode.
"""

import uuid
from collections.abc import Iterable, Iterator

from components.collect.record import Defaults, Found, Refused, Row
from components.collect.sources import chat, shape, signals, tensorzero_blocks
from components.collect.sources.chat import Target
from components.collect.sources.shape import Obj
from components.schema import Json

NAME = "tensorzero"

INFERENCE = {"id", "function_name", "variant_name", "episode_id", "input", "output"}
METRIC = {"id", "target_id", "metric_name", "value"}
COMMENT = {"id", "target_id", "target_type", "value"}
DEMONSTRATION = {"id", "inference_id", "value"}

ACTORS = ("author", "user_id", "user")
"""Tags that may name who gave feedback."""

SAMPLING = ("temperature", "top_p", "seed", "max_tokens", "presence_penalty", "frequency_penalty")
"""Inference parameters of a chat completion that are OpenAI's, too."""


def claims(value: dict[str, Json]) -> bool:
    """Take rows of the tables of inferences and of feedback."""
    return any(value.keys() >= table for table in (INFERENCE, METRIC, COMMENT, DEMONSTRATION))


def read(rows: Iterable[Row], defaults: Defaults) -> Iterator[Found | Refused]:
    """Read rows of any of the tables; the function of an inference is its workload."""
    return shape.each(rows, lambda row: [_convert(row, defaults)])


def _convert(row: Row, defaults: Defaults) -> Found:
    value = row.value
    if "function_name" in value or "input" in value:
        return Found(row, "interactions", _inference(value, defaults))
    if "metric_name" in value:
        kind, said = _metric(value)
        return Found(row, "feedback", _feedback(value, defaults, kind, said, _unsaid(value)))
    if "target_type" in value:
        comment = shape.want_text(value, "value")
        return Found(row, "feedback", _feedback(value, defaults, "comment", comment, _said(value)))
    target: Target = ("response_id", shape.want_text(value, "inference_id"))
    shown = tensorzero_blocks.answer(shape.unpacked(value, "value"), "value")
    return Found(row, "feedback", _feedback(value, defaults, "correction", shown, target))


def _inference(value: Obj, defaults: Defaults) -> Obj:
    given = shape.unpacked(value, "input")
    if not isinstance(given, dict):
        raise shape.wrong("input", given, "an object, or its JSON as text")
    answer = tensorzero_blocks.answer(shape.unpacked(value, "output"), "output")
    reason = "tool_calls" if answer.get("tool_calls") else "stop"
    tags = _tags(value)
    return chat.interaction(
        defaults,
        timestamp=_time(value),
        request=chat.request(
            tensorzero_blocks.messages(given, "input."),
            {**_sampling(value), **_tools(value), **_format(value)},
        ),
        response=chat.response(
            [chat.choice(answer, reason)], response_id=shape.want_text(value, "id")
        ),
        workload_id=shape.want_text(value, "function_name"),
        conversation_id=shape.want_text(value, "episode_id"),
        user_id=next((tags[name] for name in ("user_id", "user") if tags.get(name)), None),
        metadata={**tags, "variant_name": value.get("variant_name")},
        duration_ms=value.get("processing_time_ms"),
    )


def _sampling(value: Obj) -> Obj:
    parameters = shape.unpacked(value, "inference_params")
    match parameters:
        case {"chat_completion": dict(said)}:
            return {key: said.get(key) for key in SAMPLING}
        case dict() | None | "":
            return {}
        case _:
            raise shape.wrong("inference_params", parameters, "an object, or its JSON as text")


def _tools(value: Obj) -> Obj:
    """Read what tools were offered: once in ``tool_params``, now in columns of their own."""
    old = shape.unpacked(value, "tool_params")
    if not isinstance(old, dict | str | None):
        raise shape.wrong("tool_params", old, "an object, or its JSON as text")
    said = old if isinstance(old, dict) else {}
    offered = [*shape.may_array(said, "tools_available", "tool_params.")]
    for index, tool in enumerate(shape.may_array(value, "dynamic_tools")):
        at = f"dynamic_tools[{index}]"
        offered.append(shape.parsed(tool, at) if isinstance(tool, str) else tool)
    tools = [_tool(tool, path) for path, tool in shape.objects(offered, "tools")]
    choice = shape.loads(chosen) if isinstance(chosen := value.get("tool_choice"), str) else chosen
    return {
        "tools": [*tools] or None,
        "tool_choice": choice or chosen or said.get("tool_choice"),
        "parallel_tool_calls": value.get("parallel_tool_calls", said.get("parallel_tool_calls")),
    }


def _tool(tool: Obj, at: str) -> Obj:
    name = shape.want_text(tool, "name", at)
    return chat.tool(
        name, tool.get("description"), tool.get("parameters"), strict=tool.get("strict")
    )


def _format(value: Obj) -> Obj:
    """Write the schema that the output of a JSON function must have."""
    schema = shape.unpacked(value, "output_schema")
    if not schema:
        return {}
    named: Json = {"name": value.get("function_name"), "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _metric(value: Obj) -> tuple[str, Json]:
    name, said = shape.want_text(value, "metric_name"), value.get("value")
    if not isinstance(said, bool | int | float):
        raise shape.wrong("value", said, "a boolean or a number")
    return signals.signal(name, said)


def _feedback(value: Obj, defaults: Defaults, kind: str, said: Json, target: Target) -> Obj:
    tags = _tags(value)
    actor = next((tags[name] for name in ACTORS if tags.get(name)), "unknown")
    return chat.feedback(
        defaults,
        timestamp=_time(value),
        actor_id=str(actor),
        kind=kind,
        value=said,
        target=target,
        metadata=tags,
    )


def _unsaid(value: Obj) -> Target:
    return "target_id", shape.want_text(value, "target_id")


def _said(value: Obj) -> Target:
    target = shape.want_text(value, "target_id")
    match shape.want_text(value, "target_type"):
        case "inference":
            return "response_id", target
        case "episode":
            return "conversation_id", target
        case other:
            raise shape.unknown("target_type", other, "inference or episode")


def _tags(value: Obj) -> Obj:
    tags = shape.unpacked(value, "tags")
    if not isinstance(tags, dict | None):
        raise shape.wrong("tags", tags, "an object")
    return tags or {}


def _time(value: Obj) -> Json:
    """Read the time of a row; a UUIDv7 begins with it, in milliseconds (RFC 9562, 5.7)."""
    if value.get("timestamp") is not None:
        return value["timestamp"]
    text = shape.want_text(value, "id")
    try:
        known = uuid.UUID(text)
    except ValueError:
        known = None
    if known is None or known.version != 7:
        raise shape.unknown("id", text, "a UUIDv7, or a `timestamp` beside it")
    return (known.int >> 80) / 1000
