"""OpenTelemetry: OTLP requests of traces and logs in JSON, with GenAI attributes."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, TypeAlias

from components.collect.source import (
    CallKey,
    Defaults,
    HeldBack,
    LoadedCalls,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import fields, otlp_encoding
from components.collect.sources.fields import Obj, WrongShapeError
from components.extensions.sources import (
    langfuse,
    langsmith,
    mlflow_traces,
    otlp_ai_sdk,
    otlp_messages,
    otlp_openinference,
    otlp_pydantic_ai,
)
from components.extensions.sources.otlp_calls import SpanCall, is_call, is_other_operation
from components.extensions.sources.otlp_messages import GenAiEvent
from components.schema import Json

NAME = "otlp"

Signal: TypeAlias = Literal["resourceSpans", "resourceLogs"]
SIGNALS: dict[Signal, tuple[str, str]] = {
    "resourceSpans": ("scopeSpans", "spans"),
    "resourceLogs": ("scopeLogs", "logRecords"),
}
"""The lists of a request, and the lists in their elements."""

TIMES: dict[Signal, tuple[str, str]] = {
    "resourceSpans": ("startTimeUnixNano", "endTimeUnixNano"),
    "resourceLogs": ("timeUnixNano", "observedTimeUnixNano"),
}
"""Time fields of spans and log records, in order of preference."""

CONVENTIONS: Mapping[str, Callable[[Obj], Obj]] = {
    "openinference.span.kind": otlp_openinference.to_genai,
    "ai.prompt.messages": otlp_ai_sdk.to_genai,
    "langfuse.observation.type": langfuse.to_genai,
    "langsmith.span.kind": langsmith.to_genai,
    "mlflow.spanType": mlflow_traces.to_genai,
    "model_request_parameters": otlp_pydantic_ai.to_genai,
}
"""What translates the attributes of a span that has this one to GenAI's, in order."""

EVENTS_LISTED_BY = "model_request_parameters"
"""An attribute of Pydantic AI, whose first version has the events as JSON in another."""

MAX_WAITING = 4096  # maximum calls that wait for their parts; beyond it the oldest is read as it is
MAX_CHARACTERS = 32 * 2**20  # maximum characters of all waiting calls together
MAX_REMEMBERED = 64  # maximum pieces of a call that was read that are still known when sent again

NOTHING = (
    "found neither a span of a model's call nor an event of one, expected `gen_ai.` attributes in "
    "`resourceSpans` or `resourceLogs`"
)
LOADED = "its call was loaded before without it: it came too late"
KNOWN = "its span was read before it came, and held the whole call; expected one or the other"


@dataclass(frozen=True, slots=True)
class Piece:
    """One span or log record, with the attributes of its resource."""

    row: SourceRow  # it was cut from; reduced to its place unless the piece is alone in it
    signal: Signal
    body: Obj
    resource: Obj
    group: Obj  # the resource with only this piece, an element of a request's list
    at: str
    is_alone: bool = False
    characters: int = 0  # its approximate length


def split_request(row: SourceRow) -> list[Piece]:
    """Return the pieces of a request."""
    # Pieces may wait long: those that are not alone must not keep the rest of the row in memory.
    place = SourceRow(row.place, "", {})
    pieces = [*_cut(row.value, "resourceSpans", place), *_cut(row.value, "resourceLogs", place)]
    if len(pieces) == 1:
        return [replace(pieces[0], row=row, is_alone=True, characters=len(row.text))]
    return [replace(piece, characters=len(row.text) // len(pieces)) for piece in pieces]


def join_pieces(pieces: list[Piece]) -> SourceRow:
    """Return the pieces as one request; the row itself for a piece that is alone in it."""
    first = pieces[0]
    if len(pieces) == 1 and first.is_alone:
        return first.row
    request: dict[str, list[Json]] = {}
    for piece in pieces:
        request.setdefault(piece.signal, []).append(piece.group)
    return fields.part(first.row, {**request})


def _cut(value: Obj, signal: Signal, row: SourceRow) -> Iterator[Piece]:
    scopes_key, bodies_key = SIGNALS[signal]
    for path, group in fields.objects(fields.optional_array(value, signal), signal):
        resource = fields.optional_object(group, "resource", path)
        attributes = otlp_encoding.attributes(resource, f"{path}resource.")
        scopes = fields.optional_array(group, scopes_key, path)
        for scope_path, scope in fields.objects(scopes, f"{path}{scopes_key}"):
            bodies = fields.optional_array(scope, bodies_key, scope_path)
            for at, body in fields.objects(bodies, f"{scope_path}{bodies_key}"):
                inner: Obj = {**group, scopes_key: [{**scope, bodies_key: [body]}]}
                yield Piece(row, signal, body, attributes, inner, at)


@dataclass(slots=True)
class _Waiting:
    call: SpanCall
    pieces: list[Piece] = field(default_factory=list[Piece])
    places: dict[bytes, int] = field(default_factory=dict[bytes, int])
    """The row of each piece by its digest: the same piece in another row was sent twice."""

    objection: str | None = None
    has_span: bool = False

    def is_recent(self, since: int) -> bool:
        """Return whether a part may still come: it lacks one, and its first one came lately."""
        is_complete = self.has_span and self.call.is_whole
        return not is_complete and min(piece.row.place for piece in self.pieces) >= since


def claims(value: dict[str, Json]) -> bool:
    """Claim requests of traces and of logs."""
    return any(isinstance(value.get(signal), list) for signal in SIGNALS)


def read(
    rows: Iterable[SourceRow],
    defaults: Defaults,
    held: HeldBack | None = None,
    loaded: LoadedCalls | None = None,
) -> Iterator[SourceRecord]:
    """Yield the records of requests, one request per row; a part that was sent twice counts once.

    Calls that lack a part at the end are read as they are or, if all that is known of them came
    lately, added to ``held``. A call that was ``loaded`` from other parts is rejected. Memory is
    bounded by ``MAX_WAITING`` and ``MAX_CHARACTERS``.
    """
    return _Reader(defaults, held, loaded).read(rows)


def call_keys(value: Obj) -> Iterator[CallKey]:
    """Yield trace and span of the parts of a request that have both; wrong shapes have none."""
    for signal, (scopes, bodies) in SIGNALS.items():
        for group in _dicts(value.get(signal)):
            for scope in _dicts(group.get(scopes)):
                for body in _dicts(scope.get(bodies)):
                    match body:
                        case {"traceId": str(trace), "spanId": str(span)} if _is_id(span):
                            yield trace, span
                        case _:
                            continue


def _dicts(value: Json) -> list[dict[str, Json]]:
    elements = value if isinstance(value, list) else []
    return [element for element in elements if isinstance(element, dict)]


class _Reader:
    def __init__(
        self, defaults: Defaults, held: HeldBack | None, loaded: LoadedCalls | None
    ) -> None:
        self.defaults = defaults
        self.held = held
        self.loaded = loaded
        self.waiting: OrderedDict[CallKey, _Waiting] = OrderedDict()
        self.done: OrderedDict[CallKey, Mapping[bytes, int]] = OrderedDict()
        self.answered: OrderedDict[str, None] = OrderedDict()  # the answers of calls with spans
        self.characters = 0

    def read(self, rows: Iterable[SourceRow]) -> Iterator[SourceRecord]:
        for row in rows:
            yield from self._row(row)
            while self.characters > MAX_CHARACTERS or len(self.waiting) > MAX_WAITING:
                yield from self._finished(next(iter(self.waiting)))
        while self.waiting:
            key, waiting = next(iter(self.waiting.items()))
            if self.held and waiting.is_recent(self.held.since):
                self.held.rows += [join_pieces([piece]) for piece in waiting.pieces]
                self.held.calls += 1
                self._forget(key)
            else:
                yield from self._finished(key)
        if self.held:
            self.held.rows.sort(key=lambda row: row.place)

    def _row(self, row: SourceRow) -> Iterator[SourceRecord]:
        try:
            fields.check_depth(row)
            pieces = split_request(row)
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
            return
        has_genai = False
        for piece in pieces:
            try:
                for record in self._piece(piece):
                    has_genai = True
                    if record is not None:
                        yield record
            except WrongShapeError as error:
                has_genai = True
                yield RejectedRecord(join_pieces([piece]), str(error))
        if not has_genai:
            yield RejectedRecord(row, NOTHING)

    def _piece(self, piece: Piece) -> Iterator[SourceRecord | None]:
        """Yield the records of one span or log record.

        ``None`` is yielded for a call that waits, and for what is known to be no call.
        """
        attributes = otlp_encoding.attributes(piece.body, piece.at)
        if piece.signal == "resourceLogs":
            name = fields.optional_text(piece.body, "eventName", piece.at)
            name = name or attributes.get("event.name")
            body = otlp_encoding.value(piece.body.get("body"), f"{piece.at}body")
            if isinstance(name, str) and name.startswith("gen_ai."):
                yield self._event(piece, GenAiEvent(name, attributes, body, _seconds(piece)))
            return
        for to_genai in [each for mark, each in CONVENTIONS.items() if mark in attributes]:
            attributes = to_genai(attributes)
        events = list(_events(piece))
        if EVENTS_LISTED_BY in attributes:
            events += otlp_messages.listed_events(attributes, _seconds(piece))
        for event in events:
            if event.is_evaluation:
                yield self._evaluation(piece, event)
        if is_call(attributes):
            yield self._span(piece, attributes, events)
        elif is_other_operation(attributes):
            yield None

    def _span(self, piece: Piece, attributes: Obj, events: list[GenAiEvent]) -> SourceRecord | None:
        key = _key(piece)
        if self._is_repeated(key, piece):
            return None
        waiting = self._wait(key, piece)
        waiting.call.seconds, waiting.has_span = _seconds(piece), True
        times = TIMES[piece.signal]
        waiting.call.has_failed |= otlp_encoding.has_failed(piece.body)
        waiting.call.duration_ms = otlp_encoding.duration_ms(piece.body, *times, piece.at)
        try:
            _require_all(piece.body, attributes, events)
            waiting.call.take_span(attributes, events)
        except WrongShapeError as error:
            waiting.objection = str(error)
        is_settled = waiting.call.is_whole or waiting.objection or not key[1]
        return self._finish(key) if is_settled else None

    def _event(self, piece: Piece, event: GenAiEvent) -> SourceRecord | None:
        if event.is_evaluation:
            return self._evaluation(piece, event)
        key = _key(piece)
        if self._is_repeated(key, piece):
            return None
        if key in self.done:
            return RejectedRecord(join_pieces([piece]), KNOWN)
        waiting = self._wait(key, piece)
        try:
            waiting.call.take_event(event)
        except WrongShapeError as error:
            waiting.objection = str(error)
        if not key[1]:
            return self._finish_alone(key)
        is_settled = waiting.has_span and waiting.call.is_whole and not event.is_message
        return self._finish(key) if is_settled else None

    def _finish_alone(self, key: CallKey) -> SourceRecord | None:
        """Return a log record that names no span, unless one may come that has its answer.

        OpenLIT's of streams are so, and their spans have the whole call.
        """
        waiting = self.waiting[key]
        answer = None if waiting.objection else waiting.call.answer_key
        if answer in self.answered:
            self._forget(key)
            return None
        if answer is None or (answer, "") in self.waiting:
            return self._finish(key)
        self.waiting[answer, ""] = self.waiting.pop(key)
        return None

    def _evaluation(self, piece: Piece, event: GenAiEvent) -> ParsedRecord:
        record = otlp_messages.evaluation_feedback(self.defaults, event, _key(piece)[1])
        return ParsedRecord(join_pieces([piece]), "feedback", record)

    def _wait(self, key: CallKey, piece: Piece) -> _Waiting:
        if key not in self.waiting:
            self.waiting[key] = _Waiting(SpanCall(*key, seconds=_seconds(piece)))
        waiting = self.waiting[key]
        waiting.call.resource |= piece.resource
        waiting.pieces.append(piece)
        if key[1]:
            waiting.places.setdefault(_digest(piece), piece.row.place)
        self.characters += piece.characters
        return waiting

    def _is_repeated(self, key: CallKey, piece: Piece) -> bool:
        waiting = self.waiting.get(key)
        places = waiting.places if waiting else self.done.get(key)
        if not places:
            return False
        return places.get(_digest(piece), piece.row.place) != piece.row.place

    def _forget(self, key: CallKey) -> _Waiting:
        waiting = self.waiting.pop(key)
        self.characters -= sum(piece.characters for piece in waiting.pieces)
        return waiting

    def _finished(self, key: CallKey) -> Iterator[SourceRecord]:
        record = self._finish(key)
        if record is not None:
            yield record

    def _finish(self, key: CallKey) -> SourceRecord | None:
        """Return a call as far as it is known, or the reason why it is incomplete.

        ``None`` if it was loaded before and only some of its parts were sent again: those that are
        erased meanwhile would come back in quarantine.
        """
        waiting = self._forget(key)
        if key[1]:
            self.done[key] = dict(islice(waiting.places.items(), MAX_REMEMBERED))
        if len(self.done) > MAX_WAITING:
            self.done.popitem(last=False)
        parts = frozenset(waiting.places)
        late = self.loaded.late_parts(key, parts) if self.loaded and key[1] else None
        if late is not None:
            pieces = [piece for piece in waiting.pieces if _digest(piece) in late]
            return RejectedRecord(join_pieces(pieces), LOADED) if pieces else None
        row = join_pieces(waiting.pieces)
        if waiting.objection is not None:
            return RejectedRecord(row, waiting.objection)
        if not waiting.call.is_whole:
            return RejectedRecord(row, str(waiting.call.lack()))
        try:
            record = waiting.call.record(self.defaults)
        except WrongShapeError as error:
            return RejectedRecord(row, str(error))
        if self.loaded and key[1]:
            self.loaded.now[key] = parts
        if waiting.has_span and (answer := waiting.call.answer_key):
            self._remember_answer(answer)
        return ParsedRecord(row, "interactions", record)

    def _remember_answer(self, answer: str) -> None:
        if (answer, "") in self.waiting:
            self._forget((answer, ""))
        self.answered[answer] = None
        if len(self.answered) > MAX_WAITING:
            self.answered.popitem(last=False)


def _require_all(span: Obj, attributes: Obj, events: list[GenAiEvent]) -> None:
    """Raise ``WrongShapeError`` if an SDK's limit has dropped messages: who knows which."""
    is_whole = "gen_ai.input.messages" in attributes  # all of them in one attribute
    is_numbered = not is_whole and otlp_messages.is_numbered(attributes)
    for key, limit, is_used in (
        ("droppedAttributesCount", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", is_numbered),
        ("droppedEventsCount", "OTEL_SPAN_EVENT_COUNT_LIMIT", any(e.is_message for e in events)),
    ):
        if is_used and (dropped := span.get(key)):
            raise WrongShapeError(
                f"`{key}` of the span is {dropped}, so messages may be missing; expected 0: raise "
                f"the application's {limit}"
            )


def _events(piece: Piece) -> Iterator[GenAiEvent]:
    events = fields.optional_array(piece.body, "events", piece.at)
    for at, event in fields.objects(events, f"{piece.at}events"):
        name = fields.require_text(event, "name", at)
        if name.startswith("gen_ai."):
            seconds = otlp_encoding.seconds(event, ("timeUnixNano",), at)
            yield GenAiEvent(name, otlp_encoding.attributes(event, at), None, seconds)


def _key(piece: Piece) -> CallKey:
    trace_id = fields.optional_text(piece.body, "traceId", piece.at) or ""
    span_id = fields.optional_text(piece.body, "spanId", piece.at) or ""
    return trace_id, span_id if _is_id(span_id) else ""


def _is_id(span_id: str) -> bool:
    """Return whether an id names a span: one of zeros does not, by W3C's Trace Context."""
    return bool(span_id.strip("0"))


def _digest(piece: Piece) -> bytes:
    return hashlib.md5(
        json.dumps(piece.body, sort_keys=True).encode(), usedforsecurity=False
    ).digest()


def _seconds(piece: Piece) -> float:
    return otlp_encoding.seconds(piece.body, TIMES[piece.signal], piece.at)
