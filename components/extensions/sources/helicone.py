"""Helicone: requests exported by its tool (``npx @helicone/export --include-body``) or queried.

A row has the bodies of a call as its provider takes and gives them, of a stream also its chunks,
the properties of the application, and ``scores``, of which one is what a user thought. A page of
its API (``/v1/request/query-clickhouse``) has rows in ``data``.
"""

from collections.abc import Iterator

from components.collect.source import (
    Defaults,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import canonical, feedback, fields, openai_logs
from components.collect.sources.fields import Obj, WrongShapeError
from components.schema import Json

NAME = "helicone"

ROW = {"request_id", "request_created_at", "response_status", "request_body"}
SUCCESS = range(200, 300)
ELSEWHERE = "helicone_message"  # the only key of a body that was not exported

SESSION = "Helicone-Session-Id"  # a property
THUMB = "helicone-score-feedback"
BOOLEAN = "-hcone-bool"  # ends the names of scores that are booleans, and written as 0 and 1


def claims(value: dict[str, Json]) -> bool:
    """Claim rows, and pages of them."""
    match value:
        case {"data": [dict(first), *_], "error": None}:
            return first.keys() >= ROW
        case _:
            return value.keys() >= ROW


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interaction of a row, and its scores as feedback."""
    if "data" in row.value and "request_id" not in row.value:
        page = fields.require_array(row.value, "data")
        if not page:
            raise fields.missing("data[0]", "a request")
        yield from read(
            [fields.part(row, each) for _, each in fields.objects(page, "data")], defaults
        )
        return
    interaction = _interaction(row.value, defaults)
    yield ParsedRecord(row, "interactions", interaction)
    response = fields.require_object(interaction, "response")
    try:
        for record in _feedback(row.value, fields.require_text(response, "id"), defaults):
            yield ParsedRecord(row, "feedback", record)
    except WrongShapeError as error:
        yield RejectedRecord(row, str(error))


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    status = value.get("response_status")
    if isinstance(status, int) and status not in SUCCESS:
        expected = "a status of success: the call has no answer"
        raise fields.unknown_value("response_status", str(status), expected)
    body = _body(value, "request_body")
    asked = fields.require_object({"request_body": body}, "request_body")
    request, response, beside = openai_logs.exchange(
        asked, "request_body.", _answer(_body(value, "response_body"))
    )
    model = fields.optional_text(value, "request_model")
    if "usage" not in response:
        beside["usage"] = beside.get("usage") or _usage(value)
    sent = fields.optional_object(value, "request_properties")
    known = fields.without_nulls({key: value.get(key) for key in ("provider", "request_path")})
    return canonical.interaction(
        defaults,
        timestamp=value.get("request_created_at"),
        request=fields.without_nulls({"model": model}) | request,
        response={**response, "id": response.get("id") or fields.require_text(value, "request_id")},
        workload_id=fields.optional_text(sent, "workload_id", "request_properties."),
        conversation_id=fields.optional_text(sent, SESSION, "request_properties."),
        user_id=fields.optional_text(value, "request_user_id"),
        trace_id=fields.optional_text(value, "request_id"),
        duration_ms=value.get("delay_ms"),
        metadata=sent | known,
        **beside,
    )


def _body(value: Obj, key: str) -> Json:
    body = fields.unpacked(value, key)
    if isinstance(body, dict) and body.keys() == {ELSEWHERE}:
        raise fields.missing(key, "the body: export with --include-body")
    return body


def _answer(body: Json) -> Json:
    """Return the chunks of a body that was streamed, which Helicone joins for few providers."""
    match body:
        case {"streamed_data": [*_] | str() as chunks} if chunks:
            return chunks
        case _:
            return body


def _usage(value: Obj) -> Obj | None:
    counts = [value.get(key) for key in ("prompt_tokens", "completion_tokens")]
    known = [count for count in counts if isinstance(count, int) and count > 0]
    return canonical.usage(*counts) if len(known) == len(counts) else None


def _feedback(value: Obj, response_id: str, defaults: Defaults) -> Iterator[Obj]:
    times = ("feedback_created_at", "updated_at", "response_created_at", "request_created_at")
    scores = {**fields.optional_object(value, "scores")}
    if THUMB not in scores and value.get("feedback_rating") is not None:
        scores[THUMB] = value["feedback_rating"]
    for key in scores:
        kind, signal = _signal(key, _score(scores, key))
        yield canonical.feedback(
            defaults,
            timestamp=next((value[time] for time in times if value.get(time)), None),
            actor_id="unknown",
            kind=kind,
            value=signal,
            target=("response_id", response_id),
        )


def _signal(key: str, score: float | bool) -> tuple[str, Json]:
    name = key.removesuffix(BOOLEAN)
    if name == THUMB:
        return "thumb", "up" if score else "down"
    return feedback.score_signal(name, score == 1 if key.endswith(BOOLEAN) else score)


def _score(scores: Obj, key: str) -> float | bool:
    """Return a score, which may be text (a number of 64 bits) or next to its type."""
    match scores[key]:
        case {"value": score}:
            pass
        case score:
            pass
    at = "scores."
    if isinstance(score, str):
        score = fields.parsed(score, f"{at}{key}")
    if isinstance(score, bool):
        return score
    return fields.require_number({key: score}, key, at)
