"""MLflow traces in their dictionary form (``trace.to_dict()``), with their assessments.

Each span of a chat model becomes an interaction, each assessment feedback on the call it was made
on, or on the trace's last call, whose answer the user saw.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass

from components.collect.source import (
    Defaults,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import canonical, feedback, fields, openai_api, otlp_encoding
from components.collect.sources.fields import Obj, WrongShapeError
from components.extensions.sources import observations
from components.extensions.sources.otlp_calls import chat_attributes
from components.schema import Json

NAME = "mlflow"

CALLS = ("CHAT_MODEL", "LLM")  # span types of model calls
TIMES = ("start_time_unix_nano", "end_time_unix_nano")
ANSWERS = ("expected_response", "expected_output")  # expectations that contain the correct answer

KIND = "mlflow.spanType"
INPUT, OUTPUT = "mlflow.spanInputs", "mlflow.spanOutputs"


@dataclass(frozen=True, slots=True)
class _Call:
    span_id: str
    response_id: str
    span: Obj


def claims(value: dict[str, Json]) -> bool:
    """Claim traces."""
    match value:
        case {"info": {"trace_id": _} | {"request_id": _}, "data": {"spans": _}}:
            return True
        case _:
            return False


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the records of a trace."""
    info = fields.require_object(row.value, "info")
    spans = fields.require_array(fields.require_object(row.value, "data"), "spans", "data.")
    calls: list[_Call] = []
    records: list[SourceRecord] = []
    for at, span in fields.objects(spans, "data.spans"):
        part = fields.part(row, _trace({**info, "assessments": []}, span))
        try:
            attributes = _attributes(span, at)
            if attributes.get("mlflow.spanType") not in CALLS:
                continue
            record = _interaction(info, span, attributes, at, defaults)
            records.append(ParsedRecord(part, "interactions", record))
            response = fields.require_object(record, "response")
            calls.append(_Call(_span_id(span, at), fields.require_text(response, "id"), span))
        except WrongShapeError as error:
            records.append(RejectedRecord(part, str(error)))
    if not records:
        raise fields.missing("data.spans[].attributes.mlflow.spanType", " or ".join(CALLS))
    yield from records
    assessments = fields.optional_array(info, "assessments", "info.")
    for at, assessment in fields.objects(assessments, "info.assessments"):
        own_info: Obj = {**info, "assessments": [assessment]}
        try:
            yield _assessed(row, at, assessment, own_info, calls, defaults)
        except WrongShapeError as error:
            yield RejectedRecord(fields.part(row, {**row.value, "info": own_info}), str(error))


def _trace(info: Obj, span: Obj) -> Obj:
    return {"info": info, "data": {"spans": [span]}}


def _attributes(span: Obj, at: str) -> Obj:
    attributes = fields.require_object(span, "attributes", at)
    return unpacked({key: attributes[key] for key in attributes if key.startswith("mlflow.")})


def unpacked(attributes: Obj) -> Obj:
    """Return attributes as they were before MLflow made each JSON text."""
    return {
        key: fields.loads(value) if isinstance(value, str) else value
        for key, value in attributes.items()
    }


def request_of(attributes: Obj, at: str) -> Obj:
    """Return the request of a call in chat form, or raise ``WrongShapeError``."""
    request = observations.request(attributes.get("mlflow.spanInputs"), f"{at}spanInputs")
    tools = attributes.get("mlflow.chat.tools")
    if "tools" not in request and isinstance(tools, list):
        request["tools"] = tools
    return request


def _interaction(info: Obj, span: Obj, attributes: Obj, at: str, defaults: Defaults) -> Obj:
    metadata = fields.optional_object(info, "trace_metadata", "info.")
    at_metadata = "info.trace_metadata."
    tags = fields.optional_object(info, "tags", "info.")
    outputs = attributes.get("mlflow.spanOutputs")
    path = f"{at}attributes.mlflow."
    response: Obj = outputs if isinstance(outputs, dict) else {}
    response_id = fields.optional_text(response, "id", f"{path}spanOutputs.")
    is_cut = otlp_encoding.has_failed(span) or openai_api.is_cut(outputs)
    return canonical.interaction(
        defaults,
        timestamp=otlp_encoding.seconds(span, TIMES[:1], at),
        request=request_of(attributes, path),
        response=canonical.response(
            observations.choices(outputs, f"{path}spanOutputs"),
            response_id=response_id or _span_id(span, at),
            model=response.get("model") or attributes.get("mlflow.llm.model"),
            usage=response.get("usage") or _usage(attributes.get("mlflow.chat.tokenUsage")),
        ),
        workload_id=fields.optional_text(tags, "flywheel.workload_id", "info.tags."),
        conversation_id=fields.optional_text(metadata, "mlflow.trace.session", at_metadata),
        user_id=fields.optional_text(metadata, "mlflow.trace.user", at_metadata),
        trace_id=fields.optional_text(info, "trace_id", "info.")
        or fields.require_text(info, "request_id", "info."),
        duration_ms=otlp_encoding.duration_ms(span, *TIMES, at),
        finish=canonical.CUT if is_cut else None,
        usage=_cached_usage(attributes.get("mlflow.chat.tokenUsage")),
        metadata={key: value for key, value in tags.items() if not key.startswith("mlflow.")},
    )


def _usage(used: Json) -> Obj | None:
    if not isinstance(used, dict):
        return None
    return canonical.usage(used.get("input_tokens"), used.get("output_tokens"))


def _cached_usage(used: Json) -> Obj | None:
    if not isinstance(used, dict):
        return None
    return canonical.cached_usage(
        used.get("input_tokens"),
        used.get("output_tokens"),
        used.get("cache_read_input_tokens"),
        used.get("cache_creation_input_tokens"),
    )


def _span_id(span: Obj, at: str) -> str:
    """Return a span's id as hexadecimal text; the dictionary form has it in base64."""
    text = fields.require_text(span, "span_id", at)
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return text
    return raw.hex() if len(raw) == 8 else text


def _assessed(
    row: SourceRow, at: str, assessment: Obj, info: Obj, calls: list[_Call], defaults: Defaults
) -> ParsedRecord:
    if not calls:
        raise fields.missing("data.spans[]", "a readable call of a model to assess")
    kind, value = _signal(assessment, at)
    source = fields.optional_object(assessment, "source", at)
    span_id = fields.optional_text(assessment, "span_id", at)
    target = next((call for call in calls if call.span_id == span_id), calls[-1])
    record = canonical.feedback(
        defaults,
        timestamp=assessment.get("create_time"),
        actor_id=fields.optional_text(source, "source_id", f"{at}source.") or "unknown",
        kind=kind,
        value=value,
        target=("response_id", target.response_id),
        comment=fields.optional_text(assessment, "rationale", at),
        metadata=fields.optional_object(assessment, "metadata", at),
    )
    return ParsedRecord(fields.part(row, _trace(info, target.span)), "feedback", record)


def _signal(assessment: Obj, at: str) -> tuple[str, Json]:
    name = fields.require_text(assessment, "assessment_name", at)
    if assessment.get("expectation") is not None:
        expectation = fields.require_object(assessment, "expectation", at)
        serialized = fields.optional_object(expectation, "serialized_value", f"{at}expectation.")
        value = serialized.get("value", expectation.get("value"))
        if name in ANSWERS:
            return "correction", observations.answer(value, f"{at}expectation.value")
    else:
        value = fields.require_object(assessment, "feedback", at).get("value")
        if value is None:
            raise fields.missing(f"{at}feedback.value", "a boolean, number or text")
    if not isinstance(value, bool | int | float):
        value = fields.as_text(value)
    return feedback.score_signal(name, value)


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: Inputs or outputs are neither messages nor text.
    """
    if KIND not in attributes or "gen_ai.operation.name" in attributes:
        return attributes
    plain = _plain(attributes)
    if not isinstance(plain[KIND], str):
        return attributes
    if plain[KIND] not in CALLS:
        return {**plain, "gen_ai.operation.name": "span"}
    request: Obj = request_of(plain, "mlflow.") if INPUT in plain else {}
    outputs = plain.get(OUTPUT)
    choices = [] if outputs is None else observations.choices(outputs, OUTPUT)
    response: Obj = outputs if isinstance(outputs, dict) else {}
    used = response.get("usage") or plain.get("mlflow.chat.tokenUsage")
    counts: Obj = used if isinstance(used, dict) else {}
    translated: Obj = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.id": response.get("id"),
        "gen_ai.response.model": response.get("model") or plain.get("mlflow.llm.model"),
        "error.type": "cut" if openai_api.is_cut(outputs) else None,
        **{f"gen_ai.usage.{name}": count for name, count in counts.items()},
    }
    return plain | translated | chat_attributes(request, choices, OUTPUT)


def _plain(attributes: Obj) -> Obj:
    """Return attributes without MLflow's quotes; those of other instrumentations never had any."""
    plain = unpacked(attributes)
    return fields.without_nulls(
        {
            key: plain[key] if key.startswith("mlflow.") or isinstance(plain[key], str) else value
            for key, value in attributes.items()
        }
    ) | {KIND: plain[KIND]}
