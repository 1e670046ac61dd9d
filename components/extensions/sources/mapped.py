"""Records of any form, read by a map of their fields.

The map's name is the map itself, so that whatever is kept by source (loaded files, lines in
quarantine) is read by the same map again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from components.collect.field_map import PREFIX, FeedbackMap, FieldMap, steps
from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields, openai_logs
from components.collect.sources.canonical import Target
from components.collect.sources.fields import Obj
from components.extensions.sources import observations
from components.schema import Json

NO_TIME_FROM = canonical.NO_SECONDS_FROM * 10**9  # larger numbers are no nanoseconds either


@dataclass(frozen=True)
class Mapped:
    """The source that a map describes."""

    NAME: str  # the map as text

    @property
    def map(self) -> FieldMap:
        """Return the map, or raise pydantic's ``ValidationError``."""
        return FieldMap.model_validate_json(self.NAME.removeprefix(PREFIX))

    def claims(self, _: dict[str, Json], /) -> bool:
        """Claim nothing: a map reads the files that it is written for."""
        return False

    def read(self, rows: Iterable[SourceRow], defaults: Defaults, /) -> Iterator[SourceRecord]:
        """Yield the interaction of each record and its feedback."""
        field_map = self.map

        def convert(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
            return _records(row, field_map, defaults)

        return fields.by_row(convert)(rows, defaults)


def _records(row: SourceRow, field_map: FieldMap, defaults: Defaults) -> Iterator[SourceRecord]:
    value, time = row.value, _seconds(find(row.value, field_map.timestamp))
    owner = {"workload_id": field_map.workload_id, "client_id": field_map.client_id}
    named = fields.without_nulls({key: _text(value, path) for key, path in owner.items()})
    response_id = _text(value, field_map.response_id)
    if field_map.request:
        record = _interaction(value, field_map, time, response_id, defaults)
        yield ParsedRecord(row, "interactions", record | named)
        response_id = fields.optional_text(fields.require_object(record, "response"), "id")
    conversation_id = _text(value, field_map.conversation_id)
    target: Target = ("response_id", response_id or "")
    if not response_id and conversation_id:
        target = ("conversation_id", conversation_id)
    for entry in field_map.feedback:
        signal = find(value, entry.value)
        if signal is not None:
            record = canonical.feedback(
                defaults,
                timestamp=time,
                actor_id=_text(value, entry.actor_id or field_map.user_id) or "unknown",
                kind=entry.kind,
                value=_signal(entry, signal),
                target=target,
                comment=_text(value, entry.comment),
                scale=[*entry.scale] if entry.scale else None,
            )
            yield ParsedRecord(row, "feedback", record | named)


def _seconds(time: Json) -> Json:
    """Return a time in milli-, micro- or nanoseconds in seconds, and anything else as it is."""
    while isinstance(time, int | float) and canonical.NO_SECONDS_FROM < time < NO_TIME_FROM:
        time /= 1000
    return time


def _signal(entry: FeedbackMap, value: Json) -> Json:
    match entry.kind, value:
        case "thumb", bool() | int() | float():
            return "up" if value > 0 else "down"
        case "correction", _:
            return observations.answer(value, entry.value)
        case "outcome", _:
            return {"name": entry.name or entry.value, "value": value}
        case _:
            return value


def _interaction(
    value: Obj, field_map: FieldMap, time: Json, response_id: str | None, defaults: Defaults
) -> Obj:
    at = field_map.request or ""
    asked = _unpacked(find(value, at))
    body = asked if isinstance(asked, dict) else observations.request(asked, at)
    answered = _unpacked(find(value, field_map.response))
    if field_map.answer:
        message = observations.answer(find(value, field_map.answer), field_map.answer)
        answered = canonical.response([canonical.answer(message)], response_id=None)
    model: Obj = {"model": _text(value, field_map.model)}
    sent = fields.without_nulls(model) | _all(value, field_map.parameters)
    request, response, beside = openai_logs.exchange(body | sent, f"{at}.", answered)
    counts = (find(value, path) for path in (field_map.prompt_tokens, field_map.completion_tokens))
    known: Obj = {"id": response_id, "usage": canonical.usage(*counts)}
    if field_map.timestamp is None:
        time = response.get("created", canonical.NO_TIME)
    return canonical.interaction(
        defaults,
        timestamp=time,
        request=request,
        response=fields.without_nulls(model) | response | fields.without_nulls(known),
        conversation_id=_text(value, field_map.conversation_id),
        user_id=_text(value, field_map.user_id),
        trace_id=_text(value, field_map.trace_id),
        duration_ms=find(value, field_map.duration_ms),
        metadata=_all(value, field_map.metadata),
        **beside,
    )


def find(value: Json, paths: str | None) -> Json:
    """Return the first value that paths lead to in a record; ``None`` if there is none."""
    for path in paths.split("|") if paths else ():
        inner = value
        for step in steps(path.strip()):
            match _unpacked(inner):
                case dict() as holder:
                    inner = holder.get(step)
                case list() as items if step.lstrip("-").isdecimal():
                    inner = items[int(step)] if -len(items) <= int(step) < len(items) else None
                case _:
                    inner = None
        if inner is not None:
            return inner
    return None


def _all(value: Obj, paths: Mapping[str, str]) -> Obj:
    return fields.without_nulls({name: find(value, path) for name, path in paths.items()})


def _unpacked(value: Json) -> Json:
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    unpacked = fields.loads(value)
    return value if unpacked is None else unpacked


def _text(value: Obj, path: str | None) -> str | None:
    match find(value, path):
        case None | "":
            return None
        case str() | int() | float() as text:
            return fields.as_text(text)
        case other:
            raise fields.wrong_type(path or "", other, "text or a number")
