"""Langfuse: observations, and scores as feedback, from its blob export or its API."""

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
    """Tell a score from an observation; its fields are named as exports name them."""
    return "name" in row and ("data_type" in row or row.get("source") in SOURCES)


def score_feedback(score: Obj, defaults: Defaults) -> Obj:
    """Write a score; it is about an observation, a session, or a trace.

    Of a trace is not known which of its answers was scored, so the target stays open.
    """
    kind, value = _score_signal(score)
    actor = (
        fields.may_text(score, "author_user_id") or fields.may_text(score, "source") or "unknown"
    )
    metadata = fields.unpacked(score, "metadata")
    return canonical.feedback(
        defaults,
        timestamp=score.get("timestamp"),
        actor_id=actor,
        kind=kind,
        value=value,
        target=_score_target(score),
        comment=fields.may_text(score, "comment"),
        metadata=metadata if isinstance(metadata, dict) else None,
    )


def _score_signal(score: Obj) -> tuple[str, Json]:
    name = fields.want_text(score, "name")
    value = score.get("value")
    match fields.may_text(score, "data_type") or "NUMERIC":
        case "NUMERIC":
            return feedback.score_signal(name, fields.want_number(score, "value"))
        case "BOOLEAN":
            if value not in (0, 1):
                raise fields.wrong("value", value, "0 or 1, or a boolean")
            return feedback.score_signal(name, value == 1)
        case "CATEGORICAL":
            return feedback.score_signal(name, _score_text(score))
        case "TEXT":
            return "comment", _score_text(score)
        case "CORRECTION":
            text = _score_text(score)
            said = fields.loads(text) if text.lstrip()[:1] in ("{", "[") else None
            return "correction", observations.answer(text if said is None else said, "value")
        case other:
            raise fields.unknown("data_type", other, KINDS)


def _score_text(score: Obj) -> str:
    """Read the text of a score, which newer exports and the API hold in different fields."""
    for key in ("string_value", "long_string_value"):
        if text := fields.may_text(score, key):
            return text
    return fields.want_text(score, "value")


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
        if text := fields.may_text(score, key):
            return cast("Target", (target, text))
    raise fields.missing("trace_id", "text, or an observation_id or session_id")


NAME = "langfuse"

OBSERVATION = {"id", "trace_id", "type", "start_time"}
CALL = "GENERATION"
HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def claims(value: dict[str, Json]) -> bool:
    """Take observations, scores, and traces that hold them."""
    row = _snake(value)
    return row.keys() >= OBSERVATION or is_score(row) or _is_trace(row)


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Read rows of any of the exports."""
    return fields.each(rows, lambda row: _convert(row, defaults))


def _convert(row: SourceRow, defaults: Defaults) -> Iterable[ParsedRecord | RejectedRecord]:
    value = _snake(row.value)
    if _is_trace(value):
        parts = [fields.part(row, one) for one in _parts(value)]
        if not parts:
            raise fields.missing("observations[0]", "the observations of the trace")
        return list(fields.each(parts, lambda one: _convert(one, defaults)))
    if is_score(value):
        return [ParsedRecord(row, "feedback", score_feedback(value, defaults))]
    return [ParsedRecord(row, "interactions", _interaction(value, defaults))]


def _is_trace(row: Obj) -> bool:
    return isinstance(row.get("observations"), list) and "trace_id" not in row


def _parts(trace: Obj) -> Iterator[Obj]:
    """Cut a trace into its generations, which take over its session and user, and its scores."""
    context: Obj = {key: trace.get(key) for key in ("session_id", "user_id", "environment")}
    observations = fields.want_array(trace, "observations")
    for _, observation in fields.objects(observations, "observations"):
        if observation.get("type") == CALL:
            yield (
                fields.without_nulls(context) | {"trace_id": trace.get("id")} | _snake(observation)
            )
    for _, score in fields.objects(fields.may_array(trace, "scores"), "scores"):
        yield {"trace_id": trace.get("id")} | _snake(score)


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    kind = fields.want_text(value, "type")
    if kind != CALL:
        raise fields.unknown("type", kind, f"{CALL}: only calls of a model are interactions")
    request = observations.request(_io(value, "input"), "input")
    offered = _tools(value)
    parameters: Obj = {**_parameters(value), "tools": offered or None}
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
            response_id=fields.want_text(value, "id"),
            model=value.get("provided_model_name") or value.get("model"),
            usage=_usage(value),
        ),
        workload_id=fields.may_text(metadata, "workload_id", "metadata."),
        conversation_id=fields.may_text(value, "session_id"),
        user_id=fields.may_text(value, "user_id"),
        trace_id=fields.want_text(value, "trace_id"),
        duration_ms=_duration_ms(value),
        metadata=metadata | {key: value[key] for key in ("name", "environment") if value.get(key)},
    )


def _duration_ms(value: Obj) -> float | None:
    """Give the milliseconds from start to end; ``None`` where they are not both told alike."""
    try:
        began, ended = (
            datetime.fromisoformat(str(value.get(key))) for key in ("start_time", "end_time")
        )
        return max(0.0, (ended - began) / timedelta(milliseconds=1))
    except (ValueError, TypeError):
        return None


def _io(value: Obj, key: str) -> Json:
    """Read input or output: text may be JSON, and is plain text if it is not."""
    held = value.get(key)
    if isinstance(held, str) and held.lstrip()[:1] in ("{", "[", '"'):
        read = fields.loads(held)
        return held if read is None else read
    return held


def _parameters(value: Obj) -> Obj:
    said = fields.unpacked(value, "model_parameters")
    if not isinstance(said, dict) and said not in (None, ""):
        raise fields.wrong("model_parameters", said, "an object, or its JSON as text")
    model = value.get("provided_model_name") or value.get("model")
    return {"model": model or None, **(said if isinstance(said, dict) else {})}


def _tools(value: Obj) -> list[Json]:
    """Read the schemas of the tools offered, each under its name and perhaps as JSON text."""
    written: list[Json] = []
    for name in (definitions := fields.may_object(value, "tool_definitions")):
        at = f"tool_definitions.{name}"
        said = fields.unpacked(definitions, name, "tool_definitions.")
        if not isinstance(said, dict):
            raise fields.wrong(at, said, "an object, or its JSON as text")
        parameters = fields.unpacked(said, "parameters", f"{at}.")
        written.append(canonical.tool(name, said.get("description"), parameters))
    return written


def _with_calls(choice: Json, value: Obj) -> Json:
    """Add the calls that an export keeps in a column of their own, if the message has none."""
    calls = fields.may_array(value, "tool_calls")
    match choice:
        case {"message": dict(message), **rest} if calls and not message.get("tool_calls"):
            written: list[Json] = [_call(call, index) for index, call in enumerate(calls)]
            return {**rest, "message": {**message, "tool_calls": written}}
        case _:
            return choice


def _call(call: Json, index: int) -> Json:
    at = f"tool_calls[{index}]"
    said = fields.parsed(call, at) if isinstance(call, str) else call
    match said:
        case {"function": {"name": str()}}:
            return said
        case {"name": str(name), **rest}:
            return canonical.tool_call(name, rest.get("arguments"), rest.get("id"))
        case _:
            raise fields.wrong(at, said, "an object with a name and arguments")


def _usage(value: Obj) -> Obj | None:
    used = fields.may_object(value, "usage_details") or fields.may_object(value, "usage")
    return canonical.usage(used.get("input"), used.get("output"))


def _metadata(value: Obj) -> Obj:
    metadata = fields.unpacked(value, "metadata")
    return metadata if isinstance(metadata, dict) else {}


def _snake(value: Obj) -> Obj:
    """Name the fields of the API as the exports do."""
    return {HUMP.sub(r"_\1", key).lower(): held for key, held in value.items()}
