"""Langfuse: observations and scores, as its blob storage exports them or its API gives them.

Exports write ``trace_id``, the API ``traceId``; both are read. A trace of the API that holds its
observations and scores gives one record for each. Only generations are calls of a model.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from components.collect.record import Defaults, Found, Refused, Row
from components.collect.sources import chat, langfuse_scores, observed, shape
from components.collect.sources.shape import Obj
from components.schema import Json

NAME = "langfuse"

OBSERVATION = {"id", "trace_id", "type", "start_time"}
CALL = "GENERATION"
HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def claims(value: dict[str, Json]) -> bool:
    """Take observations, scores, and traces that hold them."""
    row = _snake(value)
    return row.keys() >= OBSERVATION or langfuse_scores.is_score(row) or _is_trace(row)


def read(rows: Iterable[Row], defaults: Defaults) -> Iterator[Found | Refused]:
    """Read rows of any of the exports."""
    return shape.each(rows, lambda row: _convert(row, defaults))


def _convert(row: Row, defaults: Defaults) -> Iterable[Found | Refused]:
    value = _snake(row.value)
    if _is_trace(value):
        parts = [shape.part(row, one) for one in _parts(value)]
        if not parts:
            raise shape.missing("observations[0]", "the observations of the trace")
        return list(shape.each(parts, lambda one: _convert(one, defaults)))
    if langfuse_scores.is_score(value):
        return [Found(row, "feedback", langfuse_scores.feedback(value, defaults))]
    return [Found(row, "interactions", _interaction(value, defaults))]


def _is_trace(row: Obj) -> bool:
    return isinstance(row.get("observations"), list) and "trace_id" not in row


def _parts(trace: Obj) -> Iterator[Obj]:
    """Cut a trace into its generations, which take over its session and user, and its scores."""
    context: Obj = {key: trace.get(key) for key in ("session_id", "user_id", "environment")}
    observations = shape.want_array(trace, "observations")
    for _, observation in shape.objects(observations, "observations"):
        if observation.get("type") == CALL:
            yield shape.without_nulls(context) | {"trace_id": trace.get("id")} | _snake(observation)
    for _, score in shape.objects(shape.may_array(trace, "scores"), "scores"):
        yield {"trace_id": trace.get("id")} | _snake(score)


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    kind = shape.want_text(value, "type")
    if kind != CALL:
        raise shape.unknown("type", kind, f"{CALL}: only calls of a model are interactions")
    request = observed.request(_io(value, "input"), "input")
    offered = _tools(value)
    parameters: Obj = {**_parameters(value), "tools": offered or None}
    metadata = _metadata(value)
    return chat.interaction(
        defaults,
        timestamp=value.get("start_time"),
        request=shape.without_nulls(parameters) | request,
        response=chat.response(
            [
                _with_calls(choice, value)
                for choice in observed.choices(_io(value, "output"), "output")
            ],
            response_id=shape.want_text(value, "id"),
            model=value.get("provided_model_name") or value.get("model"),
            usage=_usage(value),
        ),
        workload_id=shape.may_text(metadata, "workload_id", "metadata."),
        conversation_id=shape.may_text(value, "session_id"),
        user_id=shape.may_text(value, "user_id"),
        trace_id=shape.want_text(value, "trace_id"),
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
        read = shape.loads(held)
        return held if read is None else read
    return held


def _parameters(value: Obj) -> Obj:
    said = shape.unpacked(value, "model_parameters")
    if not isinstance(said, dict) and said not in (None, ""):
        raise shape.wrong("model_parameters", said, "an object, or its JSON as text")
    model = value.get("provided_model_name") or value.get("model")
    return {"model": model or None, **(said if isinstance(said, dict) else {})}


def _tools(value: Obj) -> list[Json]:
    """Read the schemas of the tools offered, each under its name and perhaps as JSON text."""
    written: list[Json] = []
    for name in (definitions := shape.may_object(value, "tool_definitions")):
        at = f"tool_definitions.{name}"
        said = shape.unpacked(definitions, name, "tool_definitions.")
        if not isinstance(said, dict):
            raise shape.wrong(at, said, "an object, or its JSON as text")
        parameters = shape.unpacked(said, "parameters", f"{at}.")
        written.append(chat.tool(name, said.get("description"), parameters))
    return written


def _with_calls(choice: Json, value: Obj) -> Json:
    """Add the calls that an export keeps in a column of their own, if the message has none."""
    calls = shape.may_array(value, "tool_calls")
    match choice:
        case {"message": dict(message), **rest} if calls and not message.get("tool_calls"):
            written: list[Json] = [_call(call, index) for index, call in enumerate(calls)]
            return {**rest, "message": {**message, "tool_calls": written}}
        case _:
            return choice


def _call(call: Json, index: int) -> Json:
    at = f"tool_calls[{index}]"
    said = shape.parsed(call, at) if isinstance(call, str) else call
    match said:
        case {"function": {"name": str()}}:
            return said
        case {"name": str(name), **rest}:
            return chat.tool_call(name, rest.get("arguments"), rest.get("id"))
        case _:
            raise shape.wrong(at, said, "an object with a name and arguments")


def _usage(value: Obj) -> Obj | None:
    used = shape.may_object(value, "usage_details") or shape.may_object(value, "usage")
    return chat.usage(used.get("input"), used.get("output"))


def _metadata(value: Obj) -> Obj:
    metadata = shape.unpacked(value, "metadata")
    return metadata if isinstance(metadata, dict) else {}


def _snake(value: Obj) -> Obj:
    """Name the fields of the API as the exports do."""
    return {HUMP.sub(r"_\1", key).lower(): held for key, held in value.items()}
