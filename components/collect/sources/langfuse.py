"""Langfuse: observations as interactions and scores as feedback, from its blob export or API."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import cast

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import canonical, feedback, fields, observations
from components.collect.sources.canonical import Target
from components.collect.sources.fields import Obj
from components.schema import Json

SOURCES = ("API", "ANNOTATION", "EVAL")
KINDS = "NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION"


def is_score(row: Obj) -> bool:
    """Return whether a row, with the field names of exports, is a score."""
    return "name" in row and ("data_type" in row or row.get("source") in SOURCES)


def score_feedback(score: Obj, defaults: Defaults) -> Obj:
    """Return a score of an observation, a session or a trace as feedback.

    For a trace it is unknown which of its answers was scored, so the target is a ``target_id``.
    """
    kind, value = _score_signal(score)
    actor = (
        fields.optional_text(score, "author_user_id")
        or fields.optional_text(score, "source")
        or "unknown"
    )
    metadata = fields.unpacked(score, "metadata")
    return canonical.feedback(
        defaults,
        timestamp=score.get("timestamp"),
        actor_id=actor,
        kind=kind,
        value=value,
        target=_score_target(score),
        comment=fields.optional_text(score, "comment"),
        metadata=metadata if isinstance(metadata, dict) else None,
    )


def _score_signal(score: Obj) -> tuple[str, Json]:
    name = fields.require_text(score, "name")
    value = score.get("value")
    match fields.optional_text(score, "data_type") or "NUMERIC":
        case "NUMERIC":
            return feedback.score_signal(name, fields.require_number(score, "value"))
        case "BOOLEAN":
            if value not in (0, 1):
                raise fields.wrong_type("value", value, "0 or 1, or a boolean")
            return feedback.score_signal(name, value == 1)
        case "CATEGORICAL":
            return feedback.score_signal(name, _score_text(score))
        case "TEXT":
            return "comment", _score_text(score)
        case "CORRECTION":
            text = _score_text(score)
            parsed = fields.loads(text) if text.lstrip()[:1] in ("{", "[") else None
            return "correction", observations.answer(text if parsed is None else parsed, "value")
        case other:
            raise fields.unknown_value("data_type", other, KINDS)


def _score_text(score: Obj) -> str:
    """Return a score's text, whose field differs between newer exports and the API."""
    for key in ("string_value", "long_string_value"):
        if text := fields.optional_text(score, key):
            return text
    return fields.require_text(score, "value")


def _score_target(score: Obj) -> Target:
    match score.get("subject"):
        case {"kind": "observation", "id": str(id)}:
            return "response_id", id
        case {"kind": "session", "id": str(id)}:
            return "conversation_id", id
        case {"kind": "trace", "id": str(id)}:
            return "target_id", id
        case _:
            pass
    for key, target in (
        ("observation_id", "response_id"),
        ("trace_id", "target_id"),
        ("session_id", "conversation_id"),
    ):
        if text := fields.optional_text(score, key):
            return cast("Target", (target, text))
    raise fields.missing("trace_id", "text, or an observation_id or session_id")


NAME = "langfuse"

OBSERVATION = {"id", "trace_id", "type", "start_time"}
CALL = "GENERATION"
HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def claims(value: dict[str, Json]) -> bool:
    """Claim observations, scores, and traces that contain them."""
    row = _snake(value)
    return row.keys() >= OBSERVATION or is_score(row) or _is_trace(row)


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Yield the records of any export's rows."""
    return fields.each(rows, lambda row: _convert(row, defaults))


def _convert(row: SourceRow, defaults: Defaults) -> Iterable[ParsedRecord | RejectedRecord]:
    value = _snake(row.value)
    if _is_trace(value):
        parts = [fields.part(row, member) for member in _parts(value)]
        if not parts:
            raise fields.missing("observations[0]", "the observations of the trace")
        return list(fields.each(parts, lambda part: _convert(part, defaults)))
    if is_score(value):
        return [ParsedRecord(row, "feedback", score_feedback(value, defaults))]
    return [ParsedRecord(row, "interactions", _interaction(value, defaults))]


def _is_trace(row: Obj) -> bool:
    return isinstance(row.get("observations"), list) and "trace_id" not in row


def _parts(trace: Obj) -> Iterator[Obj]:
    """Yield a trace's generations, with its session and user, and its scores."""
    context: Obj = {key: trace.get(key) for key in ("session_id", "user_id", "environment")}
    observations = fields.require_array(trace, "observations")
    for _, observation in fields.objects(observations, "observations"):
        if observation.get("type") == CALL:
            yield (
                fields.without_nulls(context) | {"trace_id": trace.get("id")} | _snake(observation)
            )
    for _, score in fields.objects(fields.optional_array(trace, "scores"), "scores"):
        yield {"trace_id": trace.get("id")} | _snake(score)


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    kind = fields.require_text(value, "type")
    if kind != CALL:
        raise fields.unknown_value("type", kind, f"{CALL}: only calls of a model are interactions")
    request = observations.request(_io(value, "input"), "input")
    parameters: Obj = {**_parameters(value), "tools": _tools(value) or None}
    metadata = _metadata(value)
    return canonical.interaction(
        defaults,
        timestamp=value.get("start_time"),
        request=fields.without_nulls(parameters) | request,
        response=canonical.response(
            [
                _with_calls(choice, value)
                for choice in observations.choices(_io(value, "output"), "output")
            ],
            response_id=fields.require_text(value, "id"),
            model=value.get("provided_model_name") or value.get("model"),
            usage=_usage(value),
        ),
        workload_id=fields.optional_text(metadata, "workload_id", "metadata."),
        conversation_id=fields.optional_text(value, "session_id"),
        user_id=fields.optional_text(value, "user_id"),
        trace_id=fields.require_text(value, "trace_id"),
        duration_ms=_duration_ms(value),
        metadata=metadata | {key: value[key] for key in ("name", "environment") if value.get(key)},
    )


def _duration_ms(value: Obj) -> float | None:
    """Return the milliseconds from start to end; ``None`` unless both are in the same form."""
    try:
        began, ended = (
            datetime.fromisoformat(str(value.get(key))) for key in ("start_time", "end_time")
        )
        return max(0.0, (ended - began) / timedelta(milliseconds=1))
    except (ValueError, TypeError):
        return None


def _io(value: Obj, key: str) -> Json:
    """Return input or output, parsed if it is JSON text."""
    text = value.get(key)
    if isinstance(text, str) and text.lstrip()[:1] in ("{", "[", '"'):
        parsed = fields.loads(text)
        return text if parsed is None else parsed
    return text


def _parameters(value: Obj) -> Obj:
    parameters = fields.unpacked(value, "model_parameters")
    if not isinstance(parameters, dict) and parameters not in (None, ""):
        raise fields.wrong_type("model_parameters", parameters, "an object, or its JSON as text")
    model = value.get("provided_model_name") or value.get("model")
    return {"model": model or None, **(parameters if isinstance(parameters, dict) else {})}


def _tools(value: Obj) -> list[Json]:
    """Return the tools of a request; each schema is under its name, perhaps as JSON text."""
    tools: list[Json] = []
    for name in (definitions := fields.optional_object(value, "tool_definitions")):
        at = f"tool_definitions.{name}"
        definition = fields.unpacked(definitions, name, "tool_definitions.")
        if not isinstance(definition, dict):
            raise fields.wrong_type(at, definition, "an object, or its JSON as text")
        parameters = fields.unpacked(definition, "parameters", f"{at}.")
        tools.append(canonical.tool(name, definition.get("description"), parameters))
    return tools


def _with_calls(choice: Json, value: Obj) -> Json:
    """Add the calls of an export's own column to a message without calls."""
    calls = fields.optional_array(value, "tool_calls")
    match choice:
        case {"message": dict(message), **rest} if calls and not message.get("tool_calls"):
            written: list[Json] = [_call(call, index) for index, call in enumerate(calls)]
            return {**rest, "message": {**message, "tool_calls": written}}
        case _:
            return choice


def _call(call: Json, index: int) -> Json:
    at = f"tool_calls[{index}]"
    value = fields.parsed(call, at) if isinstance(call, str) else call
    match value:
        case {"function": {"name": str()}}:
            return value
        case {"name": str(name), **rest}:
            return canonical.tool_call(name, rest.get("arguments"), rest.get("id"))
        case _:
            raise fields.wrong_type(at, value, "an object with a name and arguments")


def _usage(value: Obj) -> Obj | None:
    used = fields.optional_object(value, "usage_details") or fields.optional_object(value, "usage")
    return canonical.usage(used.get("input"), used.get("output"))


def _metadata(value: Obj) -> Obj:
    metadata = fields.unpacked(value, "metadata")
    return metadata if isinstance(metadata, dict) else {}


def _snake(value: Obj) -> Obj:
    """Return an API object with the field names of exports."""
    return {HUMP.sub(r"_\1", key).lower(): inner for key, inner in value.items()}
