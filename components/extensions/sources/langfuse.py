"""Langfuse: observations as interactions and scores as feedback, of its blob export or its API."""

import re
from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, feedback, fields, openai_api
from components.collect.sources.canonical import Target, TargetKey
from components.collect.sources.fields import Obj
from components.extensions.sources import observations
from components.extensions.sources.otlp_calls import chat_attributes
from components.schema import Json

NAME = "langfuse"

SOURCES = ("API", "ANNOTATION", "EVAL")
KINDS = "NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION"
TARGETS: dict[str, TargetKey] = {
    "observation": "response_id",
    "session": "conversation_id",
    "trace": "target_id",  # it is unknown which of a trace's answers was scored
}

OBSERVATION = {"id", "trace_id", "type", "start_time"}
CALL = "GENERATION"
HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")

KIND = "langfuse.observation.type"
INPUT, OUTPUT = "langfuse.observation.input", "langfuse.observation.output"

NAMES = {
    "langfuse.observation.model.name": "gen_ai.request.model",
    "langfuse.user.id": "user.id",
    "langfuse.session.id": "session.id",
}


def claims(value: dict[str, Json]) -> bool:
    """Claim observations, scores, and traces that contain them."""
    row = _snake_keys(value)
    return row.keys() >= OBSERVATION or _is_score(row) or _is_trace(row)


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the records of a row of any export."""
    value = _snake_keys(row.value)
    if _is_trace(value):
        parts = [fields.part(row, member) for member in _parts(value)]
        if not parts:
            raise fields.missing("observations[0]", "the observations of the trace")
        yield from read(parts, defaults)
    elif _is_score(value):
        yield ParsedRecord(row, "feedback", _score_feedback(value, defaults))
    else:
        yield ParsedRecord(row, "interactions", _interaction(value, defaults))


def _is_score(row: Obj) -> bool:
    return "name" in row and ("data_type" in row or row.get("source") in SOURCES)


def _is_trace(row: Obj) -> bool:
    return isinstance(row.get("observations"), list) and "trace_id" not in row


def _parts(trace: Obj) -> Iterator[Obj]:
    context: Obj = {key: trace.get(key) for key in ("session_id", "user_id", "environment")}
    trace_id: Obj = {"trace_id": trace.get("id")}
    observations = fields.require_array(trace, "observations")
    for _, observation in fields.objects(observations, "observations"):
        if observation.get("type") == CALL:
            yield fields.without_nulls(context) | trace_id | _snake_keys(observation)
    for _, score in fields.objects(fields.optional_array(trace, "scores"), "scores"):
        yield trace_id | _snake_keys(score)


def _score_feedback(score: Obj, defaults: Defaults) -> Obj:
    kind, value = _score_signal(score)
    actor = (
        fields.optional_text(score, "author_user_id")
        or fields.optional_text(score, "source")
        or "unknown"
    )
    return canonical.feedback(
        defaults,
        timestamp=score.get("timestamp"),
        actor_id=actor,
        kind=kind,
        value=value,
        target=_score_target(score),
        comment=fields.optional_text(score, "comment"),
        metadata=_metadata(score),
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
    # Newer exports and the API use different fields.
    for key in ("string_value", "long_string_value"):
        if text := fields.optional_text(score, key):
            return text
    return fields.require_text(score, "value")


def _score_target(score: Obj) -> Target:
    match score.get("subject"):
        case {"kind": "observation" | "session" | "trace" as kind, "id": str(subject_id)}:
            return TARGETS[kind], subject_id
        case _:
            pass
    for kind in ("observation", "trace", "session"):
        if text := fields.optional_text(score, f"{kind}_id"):
            return TARGETS[kind], text
    raise fields.missing("trace_id", "text, or an observation_id or session_id")


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    kind = fields.require_text(value, "type")
    if kind != CALL:
        raise fields.unknown_value("type", kind, f"{CALL}: only calls of a model are interactions")
    request = observations.request(_io(value, "input"), "input")
    model = value.get("provided_model_name") or value.get("model")
    parameters: Obj = {"model": model or None, **fields.unpacked_object(value, "model_parameters")}
    parameters["tools"] = _tools(value) or None
    metadata = _metadata(value)
    output = _io(value, "output")
    choices = observations.choices(output, "output")
    is_cut = value.get("level") == "ERROR" or openai_api.is_cut(output)
    return canonical.interaction(
        defaults,
        timestamp=value.get("start_time"),
        request=fields.without_nulls(parameters) | request,
        response=canonical.response(
            [_with_calls(choice, value) for choice in choices],
            response_id=fields.require_text(value, "id"),
            model=model,
            usage=_usage(value),
        ),
        workload_id=fields.optional_text(metadata, "workload_id", "metadata."),
        conversation_id=fields.optional_text(value, "session_id"),
        user_id=fields.optional_text(value, "user_id"),
        trace_id=fields.require_text(value, "trace_id"),
        duration_ms=canonical.duration_ms(value, "start_time", "end_time"),
        finish=canonical.CUT if is_cut else None,
        usage=_cached_usage(value),
        metadata=metadata | {key: value[key] for key in ("name", "environment") if value.get(key)},
    )


def _io(value: Obj, key: str) -> Json:
    text = value.get(key)
    if isinstance(text, str) and text.lstrip()[:1] in ("{", "[", '"'):
        parsed = fields.loads(text)
        return text if parsed is None else parsed
    return text


def _tools(value: Obj) -> list[Json]:
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


READ = ("cache_read_input_tokens", "input_cached_tokens", "input_cache_read")
WRITTEN = ("cache_creation_input_tokens", "input_cache_creation")
"""Langfuse's names of cached tokens by SDK; ``input`` has neither."""


def _cached_usage(value: Obj) -> Obj | None:
    used = fields.optional_object(value, "usage_details")
    read, written = (next(filter(None, map(used.get, names)), None) for names in (READ, WRITTEN))
    prompt = canonical.total(used.get("input"), read, written)
    return canonical.cached_usage(prompt, used.get("output"), read, written)


def _metadata(value: Obj) -> Obj:
    metadata = fields.unpacked(value, "metadata")
    return metadata if isinstance(metadata, dict) else {}


def _snake_keys(value: Obj) -> Obj:
    return {HUMP.sub(r"_\1", key).lower(): inner for key, inner in value.items()}


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: Input or output are neither messages nor text.
    """
    kind = attributes.get(KIND)
    if not isinstance(kind, str) or "gen_ai.operation.name" in attributes:
        return attributes
    if kind.lower() != "generation":
        return {"gen_ai.operation.name": kind.lower(), **attributes}
    translated: Obj = {"gen_ai.operation.name": "chat"}
    translated |= {new: attributes[old] for old, new in NAMES.items() if old in attributes}
    set_to = fields.loads(str(attributes.get("langfuse.observation.model.parameters")))
    parameters = set_to if isinstance(set_to, dict) else {}
    if attributes.get("langfuse.observation.level") == "ERROR":
        translated["error.type"] = "ERROR"
    choices: list[Json] = []
    if INPUT in attributes:
        parameters |= observations.request(_value(attributes[INPUT]), INPUT)
    if OUTPUT in attributes:
        choices = observations.choices(_value(attributes[OUTPUT]), OUTPUT)
    translated |= chat_attributes(parameters, choices, OUTPUT)
    return translated | attributes


def _value(text: Json) -> Json:
    value = fields.loads(text) if isinstance(text, str) else text
    return value if isinstance(value, dict | list | str) else text
