"""TensorZero: rows of ChatInference and JsonInference, and its four tables of feedback."""

import json
import uuid
from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import canonical, feedback, fields
from components.collect.sources.canonical import Target
from components.collect.sources.fields import Obj
from components.schema import Json


def messages(given: Obj, at: str) -> list[Json]:
    """Write the ``input`` of an inference; each result of a tool becomes a message of its own."""
    written: list[Json] = []
    if given.get("system") is not None:
        written.append(canonical.text_message("system", _template(given["system"])))
    for path, message in fields.objects(fields.want_array(given, "messages", at), f"{at}messages"):
        role = fields.want_text(message, "role", path)
        blocks = _blocks(message.get("content"), f"{path}content")
        results = [(p, block) for p, block in blocks if block.get("type") == "tool_result"]
        written += [_result(block, block_path) for block_path, block in results]
        others = [(p, block) for p, block in blocks if block.get("type") != "tool_result"]
        if others or not results:
            written.append(_message(role, others))
    return written


def answer_message(output: Json, at: str) -> Obj:
    """Write an output: the blocks of a chat function, or ``raw`` and ``parsed`` of a JSON one."""
    match output:
        case {"raw": str(raw)}:
            return canonical.text_message("assistant", raw)
        case {"parsed": parsed} if parsed is not None:
            return canonical.text_message("assistant", json.dumps(parsed, ensure_ascii=False))
        case list():
            return _message("assistant", _blocks(output, at))
        case _:
            raise fields.wrong(at, output, "an array of content blocks, or an object with `raw`")


def _blocks(content: Json, at: str) -> list[tuple[str, Obj]]:
    """Read content, which may be plain text, or the arguments of a template."""
    match content:
        case str():
            return [(f"{at}.", {"type": "text", "text": content})]
        case list():
            return list(fields.objects(content, at))
        case dict():
            return [(f"{at}.", {"type": "text", "arguments": content})]
        case _:
            raise fields.wrong(at, content, "an array of content blocks")


def _message(role: str, blocks: list[tuple[str, Obj]]) -> Obj:
    calls = [_call(block, path) for path, block in blocks if block.get("type") == "tool_call"]
    thoughts = [block.get("text") for _, block in blocks if block.get("type") == "thought"]
    shown = [_part(b, p) for p, b in blocks if b.get("type") not in ("tool_call", "thought")]
    return canonical.message(role, shown, calls, thoughts)


def _part(block: Obj, at: str) -> Obj:
    """Write one block; a template shows what it was filled in with, a file stays as it is."""
    match block:
        case {"type": "text" | "raw_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "text" | "raw_text", "value": value} if value is not None:
            return {"type": "text", "text": _template(value)}
        case {"type": "text" | "template", "arguments": arguments}:
            return {"type": "text", "text": _template(arguments)}
        case {"type": "text"}:
            raise fields.missing(f"{at}text", "text")
        case _:
            return block


def _template(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _call(block: Obj, at: str) -> Obj:
    """Write a call as the model wrote it, where that is known: ``name`` is null if it was wrong."""
    name = fields.may_text(block, "raw_name", at) or fields.want_text(block, "name", at)
    arguments = block.get("raw_arguments")
    return canonical.tool_call(
        name, block.get("arguments") if arguments is None else arguments, block.get("id")
    )


def _result(block: Obj, at: str) -> Obj:
    result = block.get("result")
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"role": "tool", "tool_call_id": fields.may_text(block, "id", at), "content": content}


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


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Read rows of any of the tables; the function of an inference is its workload."""
    return fields.each(rows, lambda row: [_convert(row, defaults)])


def _convert(row: SourceRow, defaults: Defaults) -> ParsedRecord:
    value = row.value
    if "function_name" in value or "input" in value:
        return ParsedRecord(row, "interactions", _inference(value, defaults))
    if "metric_name" in value:
        kind, said = _metric(value)
        return ParsedRecord(row, "feedback", _feedback(value, defaults, kind, said, _unsaid(value)))
    if "target_type" in value:
        comment = fields.want_text(value, "value")
        return ParsedRecord(
            row, "feedback", _feedback(value, defaults, "comment", comment, _said(value))
        )
    target: Target = ("response_id", fields.want_text(value, "inference_id"))
    shown = answer_message(fields.unpacked(value, "value"), "value")
    return ParsedRecord(row, "feedback", _feedback(value, defaults, "correction", shown, target))


def _inference(value: Obj, defaults: Defaults) -> Obj:
    given = fields.unpacked(value, "input")
    if not isinstance(given, dict):
        raise fields.wrong("input", given, "an object, or its JSON as text")
    answer = answer_message(fields.unpacked(value, "output"), "output")
    reason = "tool_calls" if answer.get("tool_calls") else "stop"
    tags = _tags(value)
    return canonical.interaction(
        defaults,
        timestamp=_time(value),
        request=canonical.request(
            messages(given, "input."),
            {**_sampling(value), **_tools(value), **_format(value)},
        ),
        response=canonical.response(
            [canonical.choice(answer, reason)], response_id=fields.want_text(value, "id")
        ),
        workload_id=fields.want_text(value, "function_name"),
        conversation_id=fields.want_text(value, "episode_id"),
        user_id=next((tags[name] for name in ("user_id", "user") if tags.get(name)), None),
        metadata={**tags, "variant_name": value.get("variant_name")},
        duration_ms=value.get("processing_time_ms"),
    )


def _sampling(value: Obj) -> Obj:
    parameters = fields.unpacked(value, "inference_params")
    match parameters:
        case {"chat_completion": dict(said)}:
            return {key: said.get(key) for key in SAMPLING}
        case dict() | None | "":
            return {}
        case _:
            raise fields.wrong("inference_params", parameters, "an object, or its JSON as text")


def _tools(value: Obj) -> Obj:
    """Read what tools were offered: once in ``tool_params``, now in columns of their own."""
    old = fields.unpacked(value, "tool_params")
    if not isinstance(old, dict | str | None):
        raise fields.wrong("tool_params", old, "an object, or its JSON as text")
    said = old if isinstance(old, dict) else {}
    offered = [*fields.may_array(said, "tools_available", "tool_params.")]
    for index, tool in enumerate(fields.may_array(value, "dynamic_tools")):
        at = f"dynamic_tools[{index}]"
        offered.append(fields.parsed(tool, at) if isinstance(tool, str) else tool)
    tools = [_tool(tool, path) for path, tool in fields.objects(offered, "tools")]
    choice = fields.loads(chosen) if isinstance(chosen := value.get("tool_choice"), str) else chosen
    return {
        "tools": [*tools] or None,
        "tool_choice": choice or chosen or said.get("tool_choice"),
        "parallel_tool_calls": value.get("parallel_tool_calls", said.get("parallel_tool_calls")),
    }


def _tool(tool: Obj, at: str) -> Obj:
    name = fields.want_text(tool, "name", at)
    return canonical.tool(
        name, tool.get("description"), tool.get("parameters"), strict=tool.get("strict")
    )


def _format(value: Obj) -> Obj:
    """Write the schema that the output of a JSON function must have."""
    schema = fields.unpacked(value, "output_schema")
    if not schema:
        return {}
    named: Json = {"name": value.get("function_name"), "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _metric(value: Obj) -> tuple[str, Json]:
    name, said = fields.want_text(value, "metric_name"), value.get("value")
    if not isinstance(said, bool | int | float):
        raise fields.wrong("value", said, "a boolean or a number")
    return feedback.score_signal(name, said)


def _feedback(value: Obj, defaults: Defaults, kind: str, said: Json, target: Target) -> Obj:
    tags = _tags(value)
    actor = next((tags[name] for name in ACTORS if tags.get(name)), "unknown")
    return canonical.feedback(
        defaults,
        timestamp=_time(value),
        actor_id=str(actor),
        kind=kind,
        value=said,
        target=target,
        metadata=tags,
    )


def _unsaid(value: Obj) -> Target:
    return "target_id", fields.want_text(value, "target_id")


def _said(value: Obj) -> Target:
    target = fields.want_text(value, "target_id")
    match fields.want_text(value, "target_type"):
        case "inference":
            return "response_id", target
        case "episode":
            return "conversation_id", target
        case other:
            raise fields.unknown("target_type", other, "inference or episode")


def _tags(value: Obj) -> Obj:
    tags = fields.unpacked(value, "tags")
    if not isinstance(tags, dict | None):
        raise fields.wrong("tags", tags, "an object")
    return tags or {}


def _time(value: Obj) -> Json:
    """Read the time of a row; a UUIDv7 begins with it, in milliseconds (RFC 9562, 5.7)."""
    if value.get("timestamp") is not None:
        return value["timestamp"]
    text = fields.want_text(value, "id")
    try:
        known = uuid.UUID(text)
    except ValueError:
        known = None
    if known is None or known.version != 7:
        raise fields.unknown("id", text, "a UUIDv7, or a `timestamp` beside it")
    return (known.int >> 80) / 1000
