"""Langfuse's ingestion events, as applications send them: generations as interactions, scores.

A generation is begun by one event and completed by others under the same ``body.id``, which may be
in several requests (``{"batch": [...]}``), lines or elements of one file. A later value replaces an
earlier one. The session and user are those of the events of its trace.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from components.collect.source import (
    Defaults,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import fields, langfuse
from components.collect.sources.fields import Obj, WrongShapeError
from components.schema import Json

NAME = "langfuse_events"

GENERATIONS = ("generation-create", "generation-update")
OBSERVATIONS = ("observation-create", "observation-update")  # of older clients
TRACE, SCORE = "trace-create", "score-create"
OTHERS = ("sdk-log", "event-create", "span-create", "span-update", "embedding-create")
TYPES = {*GENERATIONS, *OBSERVATIONS, TRACE, SCORE, *OTHERS} | {
    f"{kind}-create" for kind in ("agent", "tool", "chain", "retriever", "evaluator", "guardrail")
}

OF_TRACE = {"session_id": "sessionId", "user_id": "userId"}
"""What of a trace is used, and how events name it."""

PROMPT = ("input", "prompt_tokens", "promptTokens")
ANSWER = ("output", "completion_tokens", "completionTokens")
"""Names of token counts; those of OpenAI are accepted, too."""


@dataclass(frozen=True, slots=True)
class _Event:
    row: SourceRow
    value: Obj
    kind: str
    timestamp: str
    body: Obj


@dataclass(slots=True)
class _Sent:
    """The events of a file, by what they are about."""

    generations: dict[str, list[_Event]] = field(
        default_factory=lambda: defaultdict[str, list[_Event]](list)
    )
    traces: dict[str, list[_Event]] = field(
        default_factory=lambda: defaultdict[str, list[_Event]](list)
    )
    scores: list[_Event] = field(default_factory=list[_Event])


def claims(value: dict[str, Json]) -> bool:
    """Claim events, and requests that send them."""
    batch = value.get("batch")
    events = batch if isinstance(batch, list) else [value]
    return bool(events) and all(isinstance(each, dict) and _is_event(each) for each in events)


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the records of generations and scores; reject rows that have none."""
    sent, all_rows, used = _Sent(), list[SourceRow](), set[int]()
    for row in rows:
        try:
            fields.check_depth(row)
            listed = _listed(row)
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
            continue
        all_rows.append(row)
        for at, value in listed:
            try:
                _sort(_event(row, value, at), sent)
            except WrongShapeError as error:
                used.add(row.place)
                yield RejectedRecord(fields.part(row, value), str(error))
    contexts = {trace_id: _context(events) for trace_id, events in sent.traces.items()}
    have_calls = set[str]()
    for events in sent.generations.values():
        body = _merged(events)
        trace_id = str(body.get("trace_id"))
        have_calls.add(trace_id)
        used |= {event.row.place for event in events}
        yield _record(events, contexts.get(trace_id), body, defaults)
    for trace_id in have_calls & sent.traces.keys():
        used |= {event.row.place for event in sent.traces[trace_id]}
    for event in sent.scores:
        used.add(event.row.place)
        yield _score(event, defaults)
    for row in all_rows:
        if row.place not in used:
            reason = f"the row has no event of {' or '.join(GENERATIONS)}, expected a model's call"
            yield RejectedRecord(row, reason)


def _is_event(value: Obj) -> bool:
    match value:
        case {"id": _, "type": str(kind), "body": dict()}:
            return kind in TYPES
        case _:
            return False


def _listed(row: SourceRow) -> list[tuple[str, Obj]]:
    if "batch" not in row.value:
        return [("", row.value)]
    return [*fields.objects(fields.require_array(row.value, "batch"), "batch")]


def _event(row: SourceRow, value: Obj, at: str) -> _Event:
    body = fields.require_object(value, "body", at)
    return _Event(
        row,
        value,
        fields.require_text(value, "type", at),
        fields.require_text(value, "timestamp", at),
        langfuse.snake_keys(body),
    )


def _sort(event: _Event, sent: _Sent) -> None:
    is_observation = event.kind in OBSERVATIONS and event.body.get("type") == langfuse.CALL
    if event.kind in GENERATIONS or is_observation:
        sent.generations[fields.require_text(event.body, "id", "body.")].append(event)
    elif event.kind == TRACE:
        if trace_id := fields.optional_text(event.body, "id", "body."):
            sent.traces[trace_id].append(event)
    elif event.kind == SCORE:
        sent.scores.append(event)


def _merged(events: Sequence[_Event]) -> Obj:
    """Return the body of what several events are about."""
    merged: Obj = {}
    for event in sorted(events, key=_order):
        known = fields.without_nulls(event.body)
        match merged.get("metadata"), known.get("metadata"):
            case dict(before), dict(now):
                before |= now
                del known["metadata"]
            case _, dict(first):
                known["metadata"] = {**first}
            case _:
                pass
        merged |= known
    return merged


def _order(event: _Event) -> tuple[datetime, bool]:
    """Return when an event was sent, and whether it completes one of the same moment."""
    try:
        sent = datetime.fromisoformat(event.timestamp)
    except ValueError:
        sent = datetime.min
    return sent.replace(tzinfo=sent.tzinfo or UTC), event.kind.endswith("update")


def _context(events: Sequence[_Event]) -> Obj:
    """Return one event that has what is used of a trace's, which may be many and long."""
    merged, last = _merged(events), max(events, key=_order)
    body: Obj = {name: merged[key] for key, name in OF_TRACE.items() if key in merged}
    return {**last.value, "body": {"id": merged["id"], **body}}


def _record(
    events: Sequence[_Event], of_trace: Obj | None, body: Obj, defaults: Defaults
) -> SourceRecord:
    sent: list[Json] = [event.value for event in events]
    context: Obj = {}
    if of_trace is not None:
        sent.insert(0, of_trace)
        of = fields.require_object(of_trace, "body")
        context = {key: of[name] for key, name in OF_TRACE.items() if name in of}
    part = fields.part(events[-1].row, {"batch": sent})
    began = min(events, key=_order).timestamp
    observation: Obj = {"start_time": began, **context, **body, "type": langfuse.CALL}
    try:
        observation["usage_details"] = _usage(body)
        return ParsedRecord(part, "interactions", langfuse.interaction(observation, defaults))
    except WrongShapeError as error:
        return RejectedRecord(part, str(error))


def _usage(body: Obj) -> Obj:
    used = {
        **fields.optional_object(body, "usage", "body."),
        **fields.optional_object(body, "usage_details", "body."),
    }
    counts = (next((used[key] for key in names if key in used), None) for names in (PROMPT, ANSWER))
    prompt, completion = counts
    return fields.without_nulls({**used, "input": prompt, "output": completion})


def _score(event: _Event, defaults: Defaults) -> SourceRecord:
    kind = "CATEGORICAL" if isinstance(event.body.get("value"), str) else "NUMERIC"
    body = fields.without_nulls(event.body)
    score: Obj = {"data_type": kind, "source": "API", "timestamp": event.timestamp, **body}
    part = fields.part(event.row, event.value)
    try:
        return ParsedRecord(part, "feedback", langfuse.score_feedback(score, defaults))
    except WrongShapeError as error:
        return RejectedRecord(part, str(error))
