"""OpenTelemetry: requests of traces and logs in OTLP's JSON form, with GenAI attributes.

A span that holds its messages is an interaction at once. Log records that hold messages are joined
with their span by its id, in whatever order they come, as long as both come in one file; without it
they are an interaction of their own. A call that has no answer at the end of the file is refused.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from components.collect.record import Defaults, Found, Refused, Row
from components.collect.sources import otlp_evaluations, otlp_values, shape
from components.collect.sources.otlp_calls import Call, is_call
from components.collect.sources.otlp_events import Event
from components.collect.sources.otlp_pieces import SIGNALS, Piece, pieces, whole
from components.collect.sources.shape import Obj, WrongShapeError
from components.schema import Json

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

    call: Call
    parts: list[Piece] = field(default_factory=list[Piece])
    objection: str | None = None
    has_span: bool = False


def claims(value: dict[str, Json]) -> bool:
    """Take requests of traces and of logs."""
    return any(isinstance(value.get(signal), list) for signal in SIGNALS)


def read(rows: Iterable[Row], defaults: Defaults) -> Iterator[Found | Refused]:
    """Read requests, one a row; memory is bounded by ``MOST_WAITING`` and ``MOST_CHARACTERS``."""
    return _Reader(defaults).read(rows)


class _Reader:
    """Holds the calls that are not whole yet."""

    def __init__(self, defaults: Defaults) -> None:
        self.defaults = defaults
        self.waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self.done: OrderedDict[Key, None] = OrderedDict()
        self.characters = 0

    def read(self, rows: Iterable[Row]) -> Iterator[Found | Refused]:
        """Read all rows, then what still waits."""
        for row in rows:
            yield from self._row(row)
            while self.characters > MOST_CHARACTERS or len(self.waiting) > MOST_WAITING:
                yield self._finish(next(iter(self.waiting)))
        while self.waiting:
            yield self._finish(next(iter(self.waiting)))

    def _row(self, row: Row) -> Iterator[Found | Refused]:
        try:
            shape.check_depth(row)
            held = pieces(row)
        except WrongShapeError as error:
            yield Refused(row, str(error))
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
                yield Refused(whole([piece]), str(error))
        if not is_ours:
            yield Refused(row, NOTHING)

    def _piece(self, piece: Piece) -> Iterator[Found | Refused | None]:
        """Read one span or log record; ``None`` for one of ours that waits."""
        attributes = otlp_values.attributes(piece.body, piece.at)
        if piece.signal == "resourceLogs":
            name = shape.may_text(piece.body, "eventName", piece.at) or attributes.get("event.name")
            body = otlp_values.value(piece.body.get("body"), f"{piece.at}body")
            if isinstance(name, str) and name.startswith("gen_ai."):
                yield self._event(piece, Event(name, attributes, body, _seconds(piece)))
            return
        events = list(_events(piece))
        for event in events:
            if event.is_evaluation:
                yield self._evaluation(piece, event)
        if is_call(attributes):
            yield self._span(piece, attributes, events)

    def _span(self, piece: Piece, attributes: Obj, events: list[Event]) -> Found | Refused | None:
        key = _key(piece)
        waiting = self._wait(key, piece)
        waiting.call.seconds, waiting.has_span = _seconds(piece), True
        times = TIMES["resourceSpans"]
        waiting.call.duration_ms = otlp_values.duration_ms(piece.body, *times, piece.at)
        try:
            waiting.call.take_span(attributes, events)
        except WrongShapeError as error:
            waiting.objection = str(error)
        is_settled = waiting.call.is_whole or waiting.objection or not key[1]
        return self._finish(key) if is_settled else None

    def _event(self, piece: Piece, event: Event) -> Found | Refused | None:
        if event.is_evaluation:
            return self._evaluation(piece, event)
        key = _key(piece)
        if key in self.done:
            return Refused(whole([piece]), KNOWN)
        waiting = self._wait(key, piece)
        try:
            waiting.call.take_event(event)
        except WrongShapeError as error:
            waiting.objection = str(error)
        is_settled = waiting.has_span and waiting.call.is_whole and not event.is_message
        return self._finish(key) if is_settled or not key[1] else None

    def _evaluation(self, piece: Piece, event: Event) -> Found:
        record = otlp_evaluations.feedback(self.defaults, event, _key(piece)[1])
        return Found(whole([piece]), "feedback", record)

    def _wait(self, key: Key, piece: Piece) -> _Waiting:
        if key not in self.waiting:
            self.waiting[key] = _Waiting(Call(*key, seconds=_seconds(piece)))
        waiting = self.waiting[key]
        waiting.call.resource |= piece.resource
        waiting.parts.append(piece)
        self.characters += piece.characters
        return waiting

    def _finish(self, key: Key) -> Found | Refused:
        """Write a call as it is by now, or say what it lacks."""
        waiting = self.waiting.pop(key)
        self.characters -= sum(piece.characters for piece in waiting.parts)
        if key[1]:
            self.done[key] = None
        if len(self.done) > MOST_WAITING:
            self.done.popitem(last=False)
        row = whole(waiting.parts)
        if waiting.objection is not None:
            return Refused(row, waiting.objection)
        if not waiting.call.is_whole:
            return Refused(row, waiting.call.lack())
        try:
            return Found(row, "interactions", waiting.call.record(self.defaults))
        except WrongShapeError as error:
            return Refused(row, str(error))


def _events(piece: Piece) -> Iterator[Event]:
    """Read what a span says in events of its own."""
    events = shape.may_array(piece.body, "events", piece.at)
    for at, event in shape.objects(events, f"{piece.at}events"):
        name = shape.want_text(event, "name", at)
        if name.startswith("gen_ai."):
            seconds = otlp_values.seconds(event, ("timeUnixNano",), at)
            yield Event(name, otlp_values.attributes(event, at), None, seconds)


def _key(piece: Piece) -> Key:
    """Name the span that a piece is, or that it was recorded on."""
    trace_id = shape.may_text(piece.body, "traceId", piece.at) or ""
    return trace_id, shape.may_text(piece.body, "spanId", piece.at) or ""


def _seconds(piece: Piece) -> float:
    return otlp_values.seconds(piece.body, TIMES[piece.signal], piece.at)
