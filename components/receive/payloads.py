"""Validate the bodies of records and OTLP requests, and convert them to spool lines."""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic_core import from_json

from components.receive import objections
from components.receive.client_tokens import Token
from components.receive.objections import TARGETS, Kind
from components.receive.settings import RefusedError
from components.schema import Json, kind_of
from components.store import spool

Encoding: TypeAlias = Literal["application/json", "application/x-protobuf"]
Signal: TypeAlias = Literal["traces", "logs"]
ExportRequest = TypeVar("ExportRequest", ExportTraceServiceRequest, ExportLogsServiceRequest)

_CODES = {400: 3, 401: 16, 403: 7, 408: 4, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}
"""The ``google.rpc.Code`` of each HTTP status."""

_IDS = {"traceId": re.compile(r"[0-9a-fA-F]{32}"), "spanId": re.compile(r"[0-9a-fA-F]{16}")}
_ID_BYTES = {"trace_id": 16, "span_id": 8}
_LISTS: dict[Signal, tuple[str, str, str]] = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
"""The path to a request's spans or log records; a log record need not have ids."""


KEYS: dict[Kind, tuple[str, ...]] = {
    "interactions": ("timestamp", "workload_id", "request", "response"),
    "feedback": ("timestamp", "workload_id", "actor_id", "kind", "value"),
}
"""Required keys of a record; ``client_id`` is the token's."""

GATEWAYS = "served"
"""What only the gateway writes into a record of its own: canaries' limits are measured by it."""

MAX_WARNINGS = 10

AHEAD_SECONDS = 86_400.0
"""How far an application's clock may be ahead of ours, as in collecting."""


@dataclass(frozen=True, slots=True)
class Records:
    """A body as JSON text for the spool, and the number of its records, spans or log records.

    ``doubts`` say which records collecting will quarantine, and why.
    """

    body: bytes
    count: int
    doubts: Sequence[str] = ()


def detect_encoding(content_type: str) -> Encoding | None:
    """Return a request's encoding; ``None`` if it is neither JSON nor protobuf."""
    name = content_type.partition(";")[0].strip().lower()
    if name == "application/json":
        return "application/json"
    return "application/x-protobuf" if name == "application/x-protobuf" else None


def read_telemetry(signal: Signal, content: bytes, content_type: str) -> Records:
    """Return a request after a check of its structure: resources, scopes, members, their ids."""
    encoded = detect_encoding(content_type)
    if encoded is None:
        reason = f"the content type is {content_type or 'missing'}"
        raise RefusedError(415, f"{reason}, expected application/json or application/x-protobuf")
    if encoded == "application/json":
        return _read_json(signal, content)
    count = _count_spans(content) if signal == "traces" else _count_logs(content)
    return Records(b'"' + base64.b64encode(content) + b'"', count)


def accepted_body(encoded: Encoding) -> bytes:
    """Return the body of an ``ExportTraceServiceResponse`` (or logs') without rejections."""
    return b"{}" if encoded == "application/json" else b""


def failure_body(encoded: Encoding, refused: RefusedError) -> bytes:
    """Return the body of a ``google.rpc.Status``."""
    code = _CODES.get(refused.status, 2)
    if encoded == "application/json":
        return json.dumps({"code": code, "message": refused.reason}).encode()
    message = refused.reason.encode()
    return bytes((0x08, code, 0x12)) + _varint(len(message)) + message  # fields 1 and 2


def _count_spans(content: bytes) -> int:
    request = _decoded(ExportTraceServiceRequest, content)
    scopes = (scope for resource in request.resource_spans for scope in resource.scope_spans)
    count = 0
    for count, span in enumerate((span for scope in scopes for span in scope.spans), start=1):
        for name, expected in _ID_BYTES.items():
            if (length := len(getattr(span, name))) != expected:
                reason = f"span {count} ({span.name[:80]}): {name} has {length} bytes"
                raise RefusedError(400, f"{reason}, expected {expected}")
    return count


def _count_logs(content: bytes) -> int:
    request = _decoded(ExportLogsServiceRequest, content)
    scopes = (scope for resource in request.resource_logs for scope in resource.scope_logs)
    count = 0
    for count, record in enumerate((log for scope in scopes for log in scope.log_records), start=1):
        for name, expected in _ID_BYTES.items():
            if (length := len(getattr(record, name))) not in (0, expected):
                reason = f"log record {count}: {name} has {length} bytes"
                raise RefusedError(400, f"{reason}, expected {expected} or none")
    return count


def _decoded(request: type[ExportRequest], content: bytes) -> ExportRequest:
    try:
        return request.FromString(content)
    except DecodeError as error:
        raise RefusedError(400, f"the body is not an {request.__name__}: {error}") from error


def _read_json(signal: Signal, content: bytes) -> Records:
    try:
        value = _parse(content)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from error
    resources, scopes, members = _LISTS[signal]
    if not isinstance(value, dict):
        raise _wrong("the body", value, f"an object with {resources}")
    if value and resources not in value:
        keys = ", ".join(list(value)[:5])
        raise RefusedError(400, f"the body has {keys}, expected an object with {resources}")
    count = 0
    for at_resource, resource in _objects(value, "", resources):
        for at_scope, scope in _objects(resource, at_resource, scopes):
            for at, member in _objects(scope, at_scope, members):
                count += 1
                _check_ids(signal, at, member)
    return Records(content, count)


def _check_ids(signal: Signal, at: str, member: dict[str, Json]) -> None:
    for name, pattern in _IDS.items():
        value = member.get(name)
        if signal == "logs" and not value:
            continue
        if not (isinstance(value, str) and pattern.fullmatch(value)):
            digits = f"{16 if name == 'spanId' else 32} hex digits"
            raise _wrong(f"{at}{name}", value, digits)


def _objects(
    parent: dict[str, Json], place: str, name: str
) -> Iterator[tuple[str, dict[str, Json]]]:
    values = parent.get(name)
    if values is None:
        return
    if not isinstance(values, list):
        raise _wrong(f"{place}{name}", values, "an array")
    for number, value in enumerate(values):
        at = f"{place}{name}[{number}]"
        if not isinstance(value, dict):
            raise _wrong(at, value, "an object")
        yield f"{at}.", value


def _wrong(place: str, value: Json, expected: str) -> RefusedError:
    shown = "missing" if value is None else json.dumps(value)[:80]
    return RefusedError(400, f"{place} is {shown}, expected {expected}")


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def read_records(kind: Kind, content: bytes, *, now: float) -> Records:
    """Return the records of a body: one object, an array of objects, or one per line.

    ``now`` is in unix seconds.
    """
    if not content.strip():
        raise RefusedError(
            400, "the body is empty, expected a JSON object, an array, or one a line"
        )
    try:
        value = _parse(content)
    except ValueError as error:
        return _lines(kind, content, error, now)
    if not isinstance(value, list):
        return Records(content, 1, _doubts(kind, {"the body": value}, now))
    places = {f"record {number}": record for number, record in enumerate(value, start=1)}
    return Records(content, len(value), _doubts(kind, places, now))


def require_workloads(body: bytes, token: Token) -> None:
    """Refuse a body from ``read_records`` (403) unless its records are of the token's workloads."""
    # JSON readers differ in which of two equal keys they take, so all of them are checked.
    root: _Pairs | list[_Pairs] = json.loads(body, object_pairs_hook=_Pairs)
    for number, record in enumerate([root] if isinstance(root, _Pairs) else root, start=1):
        for key, value in record:
            if key == "workload_id" and not token.may_send_for(value):
                raise RefusedError(
                    403,
                    f"record {number} is of the workload {json.dumps(value)[:80]}, and the token "
                    f"{token.id} may send for {', '.join(token.workloads)}",
                )


class _Pairs(list[tuple[str, object]]):
    """A JSON object with all its keys, including duplicates."""


def _lines(kind: Kind, content: bytes, why_not_whole: ValueError, now: float) -> Records:
    texts: list[bytes] = []
    doubts: list[str] = []
    for number, text in enumerate(content.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            value = _parse(text)
        except ValueError as error:
            at_line, at_body = f"line {number} is not JSON", "the body is not JSON"
            reason = f"{at_line}: {error}" if texts else f"{at_body}: {why_not_whole}"
            raise RefusedError(400, reason) from error
        doubts += _doubts(kind, {f"line {number}": value}, now)
        texts.append(text)
    return Records(b"[" + b",".join(texts) + b"]", len(texts), doubts)


def _doubts(kind: Kind, records: Mapping[str, Json], now: float) -> list[str]:
    """Return what collecting will object to in records, by their places; refuse invalid ones."""
    latest, doubts = now + AHEAD_SECONDS, list[str]()
    for place, record in records.items():
        if not isinstance(record, dict):
            raise RefusedError(422, f"{place} is {kind_of(record)}, expected an object")
        _check(kind, place, record)
        if (objection := objections.objection(kind, record, latest)) is not None:
            doubts.append(f"{place} is stored, but collecting will quarantine it: {objection}")
    return doubts


def _check(kind: Kind, place: str, record: dict[str, Json]) -> None:
    missing = [key for key in KEYS[kind] if key not in record]
    if kind == "feedback" and not any(key in record for key in TARGETS):
        missing.append(" or ".join(TARGETS))
    if missing:
        raise RefusedError(422, f"{place}: missing keys: {', '.join(missing)}")
    if kind == "interactions" and GATEWAYS in record:
        raise RefusedError(
            422,
            f"{place} has the key {GATEWAYS}, by which the gateway says which version answered; "
            "send it under another name",
        )


def _parse(content: bytes) -> Json:
    return from_json(content, allow_inf_nan=False, cache_strings="keys")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body's metadata."""

    kind: spool.Kind
    content_type: str
    token: Token
    received_at: float  # unix seconds


@dataclass(frozen=True, slots=True)
class SpoolLine:
    """A line for the spool, and the number of its records, spans or log records.

    ``doubtful`` of them are records that collecting will quarantine; ``warnings`` say of the first
    ones why.
    """

    line: bytes
    count: int
    doubtful: int = 0
    warnings: Sequence[str] = ()


def read_body(envelope: Envelope, content: bytes) -> SpoolLine:
    """Return an unpacked body as a spool line; pure.

    Raises:
        RefusedError: 400 if it can't be parsed, 403 if the token may not send it, 415 for an
            unknown content type, 422 if a record is invalid; the whole body is refused.
    """
    kind, token = envelope.kind, envelope.token
    match kind:
        case "interactions" | "feedback":
            batch = read_records(kind, content, now=envelope.received_at)
            if not token.has_every_workload:
                require_workloads(batch.body, token)
        case "traces" | "logs":
            batch = read_telemetry(kind, content, envelope.content_type)
    line = spool.line(kind, token.client_id, batch.body)
    return SpoolLine(line, batch.count, len(batch.doubts), _warnings(batch.doubts))


def _warnings(doubts: Sequence[str]) -> list[str]:
    further = len(doubts) - MAX_WARNINGS
    more = [f"{further} further records will be quarantined as well"] if further > 0 else []
    return [*doubts[:MAX_WARNINGS], *more]
