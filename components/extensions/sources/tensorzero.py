"""TensorZero: rows of ChatInference and JsonInference, and its four feedback tables."""

import uuid
from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, feedback, fields
from components.collect.sources.canonical import Target
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "tensorzero"

INFERENCE = {"id", "function_name", "variant_name", "episode_id", "input", "output"}
METRIC = {"id", "target_id", "metric_name", "value"}
COMMENT = {"id", "target_id", "target_type", "value"}
DEMONSTRATION = {"id", "inference_id", "value"}

ACTORS = ("author", "user_id", "user")  # tags that may name the actor of feedback

SAMPLING = ("temperature", "top_p", "seed", "max_tokens", "presence_penalty", "frequency_penalty")
"""Inference parameters of a chat completion that OpenAI has too."""


def claims(value: dict[str, Json]) -> bool:
    """Claim rows of the inference and feedback tables."""
    return any(value.keys() >= table for table in (INFERENCE, METRIC, COMMENT, DEMONSTRATION))


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the record of a row of any table; an inference's function is its workload."""
    if "function_name" in row.value or "input" in row.value:
        yield ParsedRecord(row, "interactions", _inference(row.value, defaults))
    else:
        yield ParsedRecord(row, "feedback", _feedback(row.value, defaults))


def messages(inference_input: Obj, at: str) -> list[Json]:
    """Return the messages of an inference's ``input``; each tool result becomes a message."""
    written: list[Json] = []
    if inference_input.get("system") is not None:
        written.append(canonical.text_message("system", fields.as_text(inference_input["system"])))
    listed = fields.require_array(inference_input, "messages", at)
    for path, message in fields.objects(listed, f"{at}messages"):
        role = fields.require_text(message, "role", path)
        blocks = _blocks(message.get("content"), f"{path}content")
        results = [(p, block) for p, block in blocks if block.get("type") == "tool_result"]
        written += [_result(block, block_path) for block_path, block in results]
        others = [(p, block) for p, block in blocks if block.get("type") != "tool_result"]
        if others or not results:
            written.append(_message(role, others))
    return written


def answer_message(output: Json, at: str) -> Obj:
    """Return an output (blocks of a chat function, or ``raw``/``parsed`` of a JSON function)."""
    match output:
        case {"raw": str(raw)}:
            return canonical.text_message("assistant", raw)
        case {"parsed": parsed} if parsed is not None:
            return canonical.text_message("assistant", fields.as_json(parsed))
        case list():
            return _message("assistant", _blocks(output, at))
        case _:
            expected = "an array of content blocks, or an object with `raw`"
            raise fields.wrong_type(at, output, expected)


def _blocks(content: Json, at: str) -> list[tuple[str, Obj]]:
    match content:
        case str():
            return [(f"{at}.", {"type": "text", "text": content})]
        case list():
            return list(fields.objects(content, at))
        case dict():
            return [(f"{at}.", {"type": "text", "arguments": content})]
        case _:
            raise fields.wrong_type(at, content, "an array of content blocks")


def _message(role: str, blocks: list[tuple[str, Obj]]) -> Obj:
    calls = [_call(block, path) for path, block in blocks if block.get("type") == "tool_call"]
    thoughts = [block.get("text") for _, block in blocks if block.get("type") == "thought"]
    parts = [_part(b, p) for p, b in blocks if b.get("type") not in ("tool_call", "thought")]
    return canonical.message(role, parts, calls, thoughts)


def _part(block: Obj, at: str) -> Obj:
    match block:
        case {"type": "text" | "raw_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "text" | "raw_text", "value": value} if value is not None:
            return {"type": "text", "text": fields.as_text(value)}
        case {"type": "text" | "template", "arguments": arguments}:
            return {"type": "text", "text": fields.as_text(arguments)}
        case {"type": "text"}:
            raise fields.missing(f"{at}text", "text")
        case _:
            return block


def _call(block: Obj, at: str) -> Obj:
    # The raw values, if known, are the model's own: ``name`` is null if the model's was wrong.
    name = fields.optional_text(block, "raw_name", at) or fields.require_text(block, "name", at)
    arguments = block.get("raw_arguments")
    return canonical.tool_call(
        name, block.get("arguments") if arguments is None else arguments, block.get("id")
    )


def _result(block: Obj, at: str) -> Obj:
    return canonical.tool_result(fields.optional_text(block, "id", at), block.get("result"))


def _inference(value: Obj, defaults: Defaults) -> Obj:
    inference_input = fields.unpacked(value, "input")
    if not isinstance(inference_input, dict):
        raise fields.wrong_type("input", inference_input, "an object, or its JSON as text")
    answer = answer_message(fields.unpacked(value, "output"), "output")
    tags = _tags(value)
    return canonical.interaction(
        defaults,
        timestamp=_time(value),
        request=canonical.request(
            messages(inference_input, "input."),
            {**_sampling(value), **_tools(value), **_format(value)},
        ),
        response=canonical.response(
            [canonical.answer(answer)], response_id=fields.require_text(value, "id")
        ),
        workload_id=fields.require_text(value, "function_name"),
        conversation_id=fields.require_text(value, "episode_id"),
        user_id=next((tags[name] for name in ("user_id", "user") if tags.get(name)), None),
        metadata={**tags, "variant_name": value.get("variant_name")},
        duration_ms=value.get("processing_time_ms"),
    )


def _sampling(value: Obj) -> Obj:
    match fields.unpacked_object(value, "inference_params"):
        case {"chat_completion": dict(sampling)}:
            return {key: sampling.get(key) for key in SAMPLING}
        case _:
            return {}


def _tools(value: Obj) -> Obj:
    # Older rows have the tools in ``tool_params``, newer ones in their own columns.
    old = fields.unpacked(value, "tool_params")
    if not isinstance(old, dict | str | None):
        raise fields.wrong_type("tool_params", old, "an object, or its JSON as text")
    params = old if isinstance(old, dict) else {}
    offered = [*fields.optional_array(params, "tools_available", "tool_params.")]
    for index, tool in enumerate(fields.optional_array(value, "dynamic_tools")):
        at = f"dynamic_tools[{index}]"
        offered.append(fields.parsed(tool, at) if isinstance(tool, str) else tool)
    tools = [
        canonical.flat_tool(tool, path, strict=tool.get("strict"))
        for path, tool in fields.objects(offered, "tools")
    ]
    choice = fields.loads(chosen) if isinstance(chosen := value.get("tool_choice"), str) else chosen
    return {
        "tools": [*tools] or None,
        "tool_choice": choice or chosen or params.get("tool_choice"),
        "parallel_tool_calls": value.get("parallel_tool_calls", params.get("parallel_tool_calls")),
    }


def _format(value: Obj) -> Obj:
    schema = fields.unpacked(value, "output_schema")
    if not schema:
        return {}
    named: Json = {"name": value.get("function_name"), "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _feedback(value: Obj, defaults: Defaults) -> Obj:
    target: Target
    if "metric_name" in value:
        name, score = fields.require_text(value, "metric_name"), value.get("value")
        if not isinstance(score, bool | int | float):
            raise fields.wrong_type("value", score, "a boolean or a number")
        kind, signal = feedback.score_signal(name, score)
        target = "target_id", fields.require_text(value, "target_id")
    elif "target_type" in value:
        kind, signal, target = "comment", fields.require_text(value, "value"), _target(value)
    else:
        target = "response_id", fields.require_text(value, "inference_id")
        kind, signal = "correction", answer_message(fields.unpacked(value, "value"), "value")
    tags = _tags(value)
    actor = next((tags[name] for name in ACTORS if tags.get(name)), "unknown")
    return canonical.feedback(
        defaults,
        timestamp=_time(value),
        actor_id=str(actor),
        kind=kind,
        value=signal,
        target=target,
        metadata=tags,
    )


def _target(value: Obj) -> Target:
    target = fields.require_text(value, "target_id")
    match fields.require_text(value, "target_type"):
        case "inference":
            return "response_id", target
        case "episode":
            return "conversation_id", target
        case other:
            raise fields.unknown_value("target_type", other, "inference or episode")


def _tags(value: Obj) -> Obj:
    tags = fields.unpacked(value, "tags")
    if not isinstance(tags, dict | None):
        raise fields.wrong_type("tags", tags, "an object")
    return tags or {}


def _time(value: Obj) -> Json:
    """Return a row's ``timestamp``, else its UUIDv7's, in milliseconds there (RFC 9562, 5.7)."""
    if value.get("timestamp") is not None:
        return value["timestamp"]
    text = fields.require_text(value, "id")
    try:
        known = uuid.UUID(text)
    except ValueError:
        known = None
    if known is None or known.version != 7:
        raise fields.unknown_value("id", text, "a UUIDv7, or a `timestamp` beside it")
    return (known.int >> 80) / 1000
