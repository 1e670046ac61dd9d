"""MLflow traces in their dictionary form (``trace.to_dict()``), with their assessments.

Each span of a chat model is an interaction, each assessment a feedback: about the call it was made
on, else about the trace's last one, whose answer the user saw.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import canonical, feedback, fields, observations, otlp_encoding
from components.collect.sources.fields import Obj, WrongShapeError
from components.schema import Json

NAME = "mlflow"

CALLS = ("CHAT_MODEL", "LLM")
"""Types of the spans that are calls of a model."""

ANSWERS = ("expected_response", "expected_output")
"""Expectations that are the answer which should have been given."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A span that was read: its ids, and a trace of nothing else."""

    span_id: str
    response_id: str
    span: Obj


def claims(value: dict[str, Json]) -> bool:
    """Take traces."""
    match value:
        case {"info": {"trace_id": _} | {"request_id": _}, "data": {"spans": _}}:
            return True
        case _:
            return False


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Read traces, one a row."""
    return fields.each(rows, lambda row: _convert(row, defaults))


def _convert(row: SourceRow, defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    info = fields.want_object(row.value, "info")
    spans = fields.want_array(fields.want_object(row.value, "data"), "spans", "data.")
    calls: list[_Call] = []
    read: list[ParsedRecord | RejectedRecord] = []
    for at, span in fields.objects(spans, "data.spans"):
        part = fields.part(row, _trace({**info, "assessments": []}, span))
        try:
            said = _said(span, at)
            if said.get("mlflow.spanType") not in CALLS:
                continue
            record = _interaction(info, span, said, at, defaults)
            read.append(ParsedRecord(part, "interactions", record))
            response = fields.want_object(record, "response")
            calls.append(_Call(_span_id(span, at), fields.want_text(response, "id"), span))
        except WrongShapeError as error:
            read.append(RejectedRecord(part, str(error)))
    if not read:
        raise fields.missing("data.spans[].attributes.mlflow.spanType", " or ".join(CALLS))
    yield from read
    assessments = fields.may_array(info, "assessments", "info.")
    for at, assessment in fields.objects(assessments, "info.assessments"):
        about: Obj = {**info, "assessments": [assessment]}
        try:
            yield _assessed(row, at, assessment, about, calls, defaults)
        except WrongShapeError as error:
            yield RejectedRecord(fields.part(row, {**row.value, "info": about}), str(error))


def _trace(info: Obj, span: Obj) -> Obj:
    return {"info": info, "data": {"spans": [span]}}


def _said(span: Obj, at: str) -> Obj:
    """Read the attributes of a span, which MLflow holds as JSON text each."""
    attributes = fields.want_object(span, "attributes", at)
    return {
        key: fields.loads(value) if isinstance(value, str) else value
        for key, value in attributes.items()
        if key.startswith("mlflow.")
    }


def _interaction(info: Obj, span: Obj, said: Obj, at: str, defaults: Defaults) -> Obj:
    about = fields.may_object(info, "trace_metadata", "info.")
    tags = fields.may_object(info, "tags", "info.")
    given, answered = said.get("mlflow.spanInputs"), said.get("mlflow.spanOutputs")
    path = f"{at}attributes.mlflow."
    response: Obj = answered if isinstance(answered, dict) else {}
    request = observations.request(given, f"{path}spanInputs")
    tools = said.get("mlflow.chat.tools")
    if "tools" not in request and isinstance(tools, list):
        request["tools"] = tools
    used = response.get("usage") or _usage(said.get("mlflow.chat.tokenUsage"))
    return canonical.interaction(
        defaults,
        timestamp=otlp_encoding.seconds(span, ("start_time_unix_nano",), at),
        request=request,
        response=canonical.response(
            observations.choices(answered, f"{path}spanOutputs"),
            response_id=fields.may_text(response, "id", f"{path}spanOutputs.")
            or _span_id(span, at),
            model=response.get("model") or said.get("mlflow.llm.model"),
            usage=used,
        ),
        workload_id=fields.may_text(tags, "flywheel.workload_id", "info.tags."),
        conversation_id=fields.may_text(about, "mlflow.trace.session", "info.trace_metadata."),
        user_id=fields.may_text(about, "mlflow.trace.user", "info.trace_metadata."),
        trace_id=_trace_id(info),
        duration_ms=otlp_encoding.duration_ms(
            span, "start_time_unix_nano", "end_time_unix_nano", at
        ),
        metadata={key: value for key, value in tags.items() if not key.startswith("mlflow.")},
    )


def _usage(used: Json) -> Obj | None:
    if not isinstance(used, dict):
        return None
    return canonical.usage(used.get("input_tokens"), used.get("output_tokens"))


def _trace_id(info: Obj) -> str:
    return fields.may_text(info, "trace_id", "info.") or fields.want_text(
        info, "request_id", "info."
    )


def _span_id(span: Obj, at: str) -> str:
    """Read a span's id as hexadecimal text; the dictionary form has it in base64."""
    text = fields.want_text(span, "span_id", at)
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return text
    return raw.hex() if len(raw) == 8 else text


def _assessed(
    row: SourceRow, at: str, assessment: Obj, info: Obj, calls: list[_Call], defaults: Defaults
) -> ParsedRecord:
    """Read an assessment; its row is a trace of it (``info``) and of the call it is about."""
    if not calls:
        raise fields.missing("data.spans[]", "a readable call of a model to assess")
    kind, value = _signal(assessment, at)
    source = fields.may_object(assessment, "source", at)
    span_id = fields.may_text(assessment, "span_id", at)
    target = next((call for call in calls if call.span_id == span_id), calls[-1])
    record = canonical.feedback(
        defaults,
        timestamp=assessment.get("create_time"),
        actor_id=fields.may_text(source, "source_id", f"{at}source.") or "unknown",
        kind=kind,
        value=value,
        target=("response_id", target.response_id),
        comment=fields.may_text(assessment, "rationale", at),
        metadata=fields.may_object(assessment, "metadata", at),
    )
    return ParsedRecord(fields.part(row, _trace(info, target.span)), "feedback", record)


def _signal(assessment: Obj, at: str) -> tuple[str, Json]:
    """Read an assessment: an expected answer is a correction, the others are thumbs or outcomes."""
    name = fields.want_text(assessment, "assessment_name", at)
    if assessment.get("expectation") is not None:
        held = fields.want_object(assessment, "expectation", at)
        serialized = fields.may_object(held, "serialized_value", f"{at}expectation.")
        value = serialized.get("value", held.get("value"))
        if name in ANSWERS:
            return "correction", observations.answer(value, f"{at}expectation.value")
    else:
        held = fields.want_object(assessment, "feedback", at)
        value = held.get("value")
        if value is None:
            raise fields.missing(f"{at}feedback.value", "a boolean, number or text")
    if not isinstance(value, bool | int | float | str):
        value = json.dumps(value, ensure_ascii=False)
    return feedback.score_signal(name, value)
