"""OpenTelemetry: OTLP requests of traces and logs in JSON, with GenAI attributes."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import fields, otlp_encoding, otlp_messages
from components.collect.sources.fields import Obj, WrongShapeError
from components.collect.sources.otlp_calls import SpanCall, is_call
from components.collect.sources.otlp_messages import GenAiEvent
from components.schema import Json

SIGNALS = {
    "resourceSpans": ("scopeSpans", "spans"),
    "resourceLogs": ("scopeLogs", "logRecords"),
}
"""The lists of a request, and what lies inside them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One span or log record, with the attributes of its resource.

    ``request`` holds nothing else, but is a request that can be read again; ``row`` is what it was
    cut out of, only its place unless nothing else was in there (``is_alone``); ``characters`` is
    about its length.
    """

    row: SourceRow
    signal: Literal["resourceSpans", "resourceLogs"]
    body: Obj
    resource: Obj
    request: Obj
    at: str
    is_alone: bool
    characters: int


def split_request(row: SourceRow) -> list[Piece]:
    """Cut a request into its pieces."""
    cut = [*_cut(row, "resourceSpans"), *_cut(row, "resourceLogs")]
    share = len(row.text) // max(1, len(cut))
    # Pieces may wait long: those that are not alone must not keep the rest of the row alive.
    kept = row if len(cut) == 1 else SourceRow(row.place, "", {})
    return [replace(piece, row=kept, is_alone=len(cut) == 1, characters=share) for piece in cut]


def join_pieces(parts: Iterable[Piece]) -> SourceRow:
    """Put pieces together: one request, or the row itself if that held nothing else."""
    held = list(parts)
    if len(held) == 1 and held[0].is_alone:
        return held[0].row
    request: dict[str, list[Json]] = {}
    for piece in held:
        for key, values in piece.request.items():
            request.setdefault(key, []).extend(values if isinstance(values, list) else [])
    return fields.part(held[0].row, {**request})


def _cut(row: SourceRow, signal: Literal["resourceSpans", "resourceLogs"]) -> Iterator[Piece]:
    scopes_key, bodies_key = SIGNALS[signal]
    for path, group in fields.objects(fields.may_array(row.value, signal), signal):
        resource = fields.may_object(group, "resource", path)
        attributes = otlp_encoding.attributes(resource, f"{path}resource.")
        scopes = fields.may_array(group, scopes_key, path)
        for scope_path, scope in fields.objects(scopes, f"{path}{scopes_key}"):
            bodies = fields.may_array(scope, bodies_key, scope_path)
            for at, body in fields.objects(bodies, f"{scope_path}{bodies_key}"):
                inner: Obj = {**scope, bodies_key: [body]}
                request: Obj = {signal: [{**group, scopes_key: [inner]}]}
                yield Piece(
                    row, signal, body, attributes, request, at, is_alone=False, characters=0
                )


NAME = "otlp"

MOST_WAITING = 4096
"""Calls that may wait for their span or their messages; more, and the oldest is read as it is."""

MOST_CHARACTERS = 32 * 2**20
"""Characters that waiting calls may hold together."""

NOTHING = (
    "found neither a span of a model's call nor an event of one, wants `gen_ai.` attributes in "
    "`resourceSpans` or `resourceLogs`"
)

KNOWN = "its span was read before it came, and held the whole call; wants one or the other"

TIMES = {
    "resourceSpans": ("startTimeUnixNano", "endTimeUnixNano"),
    "resourceLogs": ("timeUnixNano", "observedTimeUnixNano"),
}
"""Where a span and a log record say their time, the best first."""

Key: TypeAlias = tuple[str, str]
"""Trace and span; the span is empty for log records that were recorded on none."""


@dataclass(slots=True)
class _Waiting:
    """A call whose span or messages have not come yet, and what it was read from."""

    call: SpanCall
    parts: list[Piece] = field(default_factory=list[Piece])
    objection: str | None = None
    has_span: bool = False


def claims(value: dict[str, Json]) -> bool:
    """Take requests of traces and of logs."""
    return any(isinstance(value.get(signal), list) for signal in SIGNALS)


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Read requests, one a row; memory is bounded by ``MOST_WAITING`` and ``MOST_CHARACTERS``."""
    return _Reader(defaults).read(rows)


class _Reader:
    """Holds the calls that are not whole yet."""

    def __init__(self, defaults: Defaults) -> None:
        self.defaults = defaults
        self.waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self.done: OrderedDict[Key, None] = OrderedDict()
        self.characters = 0

    def read(self, rows: Iterable[SourceRow]) -> Iterator[ParsedRecord | RejectedRecord]:
        """Read all rows, then what still waits."""
        for row in rows:
            yield from self._row(row)
            while self.characters > MOST_CHARACTERS or len(self.waiting) > MOST_WAITING:
                yield self._finish(next(iter(self.waiting)))
        while self.waiting:
            yield self._finish(next(iter(self.waiting)))

    def _row(self, row: SourceRow) -> Iterator[ParsedRecord | RejectedRecord]:
        try:
            fields.check_depth(row)
            held = split_request(row)
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
            return
        is_ours = False
        for piece in held:
            try:
                for found in self._piece(piece):
                    is_ours = True
                    if found is not None:
                        yield found
            except WrongShapeError as error:
                is_ours = True
                yield RejectedRecord(join_pieces([piece]), str(error))
        if not is_ours:
            yield RejectedRecord(row, NOTHING)

    def _piece(self, piece: Piece) -> Iterator[ParsedRecord | RejectedRecord | None]:
        """Read one span or log record; ``None`` for one of ours that waits."""
        attributes = otlp_encoding.attributes(piece.body, piece.at)
        if piece.signal == "resourceLogs":
            name = fields.may_text(piece.body, "eventName", piece.at) or attributes.get(
                "event.name"
            )
            body = otlp_encoding.value(piece.body.get("body"), f"{piece.at}body")
            if isinstance(name, str) and name.startswith("gen_ai."):
                yield self._event(piece, GenAiEvent(name, attributes, body, _seconds(piece)))
            return
        events = list(_events(piece))
        for event in events:
            if event.is_evaluation:
                yield self._evaluation(piece, event)
        if is_call(attributes):
            yield self._span(piece, attributes, events)

    def _span(
        self, piece: Piece, attributes: Obj, events: list[GenAiEvent]
    ) -> ParsedRecord | RejectedRecord | None:
        key = _key(piece)
        waiting = self._wait(key, piece)
        waiting.call.seconds, waiting.has_span = _seconds(piece), True
        times = TIMES["resourceSpans"]
        waiting.call.duration_ms = otlp_encoding.duration_ms(piece.body, *times, piece.at)
        try:
            waiting.call.take_span(attributes, events)
        except WrongShapeError as error:
            waiting.objection = str(error)
        is_settled = waiting.call.is_whole or waiting.objection or not key[1]
        return self._finish(key) if is_settled else None

    def _event(self, piece: Piece, event: GenAiEvent) -> ParsedRecord | RejectedRecord | None:
        if event.is_evaluation:
            return self._evaluation(piece, event)
        key = _key(piece)
        if key in self.done:
            return RejectedRecord(join_pieces([piece]), KNOWN)
        waiting = self._wait(key, piece)
        try:
            waiting.call.take_event(event)
        except WrongShapeError as error:
            waiting.objection = str(error)
        is_settled = waiting.has_span and waiting.call.is_whole and not event.is_message
        return self._finish(key) if is_settled or not key[1] else None

    def _evaluation(self, piece: Piece, event: GenAiEvent) -> ParsedRecord:
        record = otlp_messages.evaluation_feedback(self.defaults, event, _key(piece)[1])
        return ParsedRecord(join_pieces([piece]), "feedback", record)

    def _wait(self, key: Key, piece: Piece) -> _Waiting:
        if key not in self.waiting:
            self.waiting[key] = _Waiting(SpanCall(*key, seconds=_seconds(piece)))
        waiting = self.waiting[key]
        waiting.call.resource |= piece.resource
        waiting.parts.append(piece)
        self.characters += piece.characters
        return waiting

    def _finish(self, key: Key) -> ParsedRecord | RejectedRecord:
        """Write a call as it is by now, or say what it lacks."""
        waiting = self.waiting.pop(key)
        self.characters -= sum(piece.characters for piece in waiting.parts)
        if key[1]:
            self.done[key] = None
        if len(self.done) > MOST_WAITING:
            self.done.popitem(last=False)
        row = join_pieces(waiting.parts)
        if waiting.objection is not None:
            return RejectedRecord(row, waiting.objection)
        if not waiting.call.is_whole:
            return RejectedRecord(row, waiting.call.lack())
        try:
            return ParsedRecord(row, "interactions", waiting.call.record(self.defaults))
        except WrongShapeError as error:
            return RejectedRecord(row, str(error))


def _events(piece: Piece) -> Iterator[GenAiEvent]:
    """Read what a span says in events of its own."""
    events = fields.may_array(piece.body, "events", piece.at)
    for at, event in fields.objects(events, f"{piece.at}events"):
        name = fields.want_text(event, "name", at)
        if name.startswith("gen_ai."):
            seconds = otlp_encoding.seconds(event, ("timeUnixNano",), at)
            yield GenAiEvent(name, otlp_encoding.attributes(event, at), None, seconds)


def _key(piece: Piece) -> Key:
    """Name the span that a piece is, or that it was recorded on."""
    trace_id = fields.may_text(piece.body, "traceId", piece.at) or ""
    return trace_id, fields.may_text(piece.body, "spanId", piece.at) or ""


def _seconds(piece: Piece) -> float:
    return otlp_encoding.seconds(piece.body, TIMES[piece.signal], piece.at)
