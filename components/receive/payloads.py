"""Parse the bodies of records and OTLP requests into lines of the spool."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic_core import from_json

from components.receive.client_tokens import Token
from components.receive.settings import RefusedError
from components.schema import Json, kind_of
from components.store import spool

Encoding: TypeAlias = Literal["application/json", "application/x-protobuf"]
Signal: TypeAlias = Literal["traces", "logs"]

_CODES = {400: 3, 401: 16, 403: 7, 408: 4, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}
"""google.rpc.Code of an HTTP status."""

_IDS = {"traceId": re.compile(r"[0-9a-fA-F]{32}"), "spanId": re.compile(r"[0-9a-fA-F]{16}")}
_ID_BYTES = {"trace_id": 16, "span_id": 8}
_LISTS: dict[Signal, tuple[str, str, str]] = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
"""Where a request has its spans or log records; a log record need not have ids."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The spans or log records of one request: a JSON text for the spool, and how many they are."""

    body: bytes
    count: int


def detect_encoding(content_type: str) -> Encoding | None:
    """Tell the encoding of a request; ``None`` where it is neither JSON nor protobuf."""
    name = content_type.partition(";")[0].strip().lower()
    if name == "application/json":
        return "application/json"
    return "application/x-protobuf" if name == "application/x-protobuf" else None


def read_telemetry(signal: Signal, content: bytes, content_type: str) -> Telemetry:
    """Check the skeleton of a request: resources, scopes, spans or log records, their ids.

    Raises:
        RefusedError: 415 for another type; 400, naming the field, what it is and what it should be.
    """
    encoded = detect_encoding(content_type)
    if encoded is None:
        found = f"the content type is {content_type or 'missing'}"
        raise RefusedError(415, f"{found}, wants application/json or application/x-protobuf")
    if encoded == "application/json":
        return _read_json(signal, content)
    count = _count_spans(content) if signal == "traces" else _count_logs(content)
    return Telemetry(b'"' + base64.b64encode(content) + b'"', count)


def accepted_body(encoded: Encoding) -> bytes:
    """Give the body of an ``ExportTraceServiceResponse`` (or logs') that rejects nothing."""
    return b"{}" if encoded == "application/json" else b""


def failure_body(encoded: Encoding, refused: RefusedError) -> bytes:
    """Give the body of a ``google.rpc.Status``."""
    code = _CODES.get(refused.status, 2)
    if encoded == "application/json":
        return json.dumps({"code": code, "message": refused.reason}).encode()
    message = refused.reason.encode()
    return bytes((0x08, code, 0x12)) + _varint(len(message)) + message  # fields 1 and 2


def _count_spans(content: bytes) -> int:
    try:
        request = ExportTraceServiceRequest.FromString(content)
    except DecodeError as error:
        raise RefusedError(400, f"the body is no ExportTraceServiceRequest: {error}") from error
    count = 0
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                count += 1
                for name, wanted in _ID_BYTES.items():
                    length = len(getattr(span, name))
                    if length != wanted:
                        reason = f"span {count} ({span.name[:80]}): {name} has {length} bytes"
                        raise RefusedError(400, f"{reason}, wants {wanted}")
    return count


def _count_logs(content: bytes) -> int:
    try:
        request = ExportLogsServiceRequest.FromString(content)
    except DecodeError as error:
        raise RefusedError(400, f"the body is no ExportLogsServiceRequest: {error}") from error
    count = 0
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                count += 1
                for name, wanted in _ID_BYTES.items():
                    length = len(getattr(record, name))
                    if length not in (0, wanted):
                        reason = f"log record {count}: {name} has {length} bytes"
                        raise RefusedError(400, f"{reason}, wants {wanted} or none")
    return count


def _read_json(signal: Signal, content: bytes) -> Telemetry:
    try:
        value: Json = from_json(content, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from error
    resources, scopes, members = _LISTS[signal]
    if not isinstance(value, dict):
        raise _wrong("the body", value, f"an object with {resources}")
    if value and resources not in value:
        found = ", ".join(list(value)[:5])
        raise RefusedError(400, f"the body has {found}, wants an object with {resources}")
    count = 0
    for at_resource, resource in _objects(value, "", resources):
        for at_scope, scope in _objects(resource, at_resource, scopes):
            for at, member in _objects(scope, at_scope, members):
                count += 1
                _check_ids(signal, at, member)
    return Telemetry(content, count)


def _check_ids(signal: Signal, at: str, member: dict[str, Json]) -> None:
    for name, wanted in _IDS.items():
        found = member.get(name)
        if signal == "logs" and not found:
            continue
        if not (isinstance(found, str) and wanted.fullmatch(found)):
            digits = f"{16 if name == 'spanId' else 32} hex digits"
            raise _wrong(f"{at}{name}", found, digits)


def _objects(
    parent: dict[str, Json], place: str, name: str
) -> Iterator[tuple[str, dict[str, Json]]]:
    """Go through the objects of an array, each with its place; a missing array is an empty one."""
    found = parent.get(name)
    if found is None:
        return
    if not isinstance(found, list):
        raise _wrong(f"{place}{name}", found, "an array")
    for number, one in enumerate(found):
        at = f"{place}{name}[{number}]"
        if not isinstance(one, dict):
            raise _wrong(at, one, "an object")
        yield f"{at}.", one


def _wrong(place: str, found: Json, wanted: str) -> RefusedError:
    shown = "missing" if found is None else json.dumps(found)[:80]
    return RefusedError(400, f"{place} is {shown}, wants {wanted}")


def _varint(number: int) -> bytes:
    """Encode a length as protobuf does: seven bits a byte, the lowest first."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


Kind: TypeAlias = Literal["interactions", "feedback"]

KEYS: dict[Kind, tuple[str, ...]] = {
    "interactions": ("timestamp", "workload_id", "request", "response"),
    "feedback": ("timestamp", "workload_id", "actor_id", "kind", "value"),
}
"""Keys of every record, ``client_id`` apart: the token says that."""

TARGETS = ("response_id", "conversation_id", "target_id")
"""What feedback is about: ``target_id`` is for senders who don't know which of the two it is."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one body: one JSON text, and how many they are."""

    body: bytes
    count: int


def read_records(kind: Kind, content: bytes) -> Records:
    """Read one object, an array of them, or one a line.

    Raises:
        RefusedError: 400 for what is no JSON, 422 for what is no record; nothing of it is taken.
    """
    if not content.strip():
        raise RefusedError(400, "the body is empty, wants a JSON object, an array, or one a line")
    try:
        value: Json = from_json(content, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        return _lines(kind, content, error)
    if not isinstance(value, list):
        _check(kind, "the body", value)
        return Records(content, 1)
    for number, one in enumerate(value, start=1):
        _check(kind, f"record {number}", one)
    return Records(content, len(value))


def require_workloads(body: bytes, token: Token) -> None:
    """Check that all records of a body, as ``read`` returned it, are of a token's workloads.

    Of a key that a record has twice, one reader takes the first and another the last: all count.

    Raises:
        RefusedError: 403, naming the record; nothing of the body is taken.
    """
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
    """A JSON object with all its keys, also those that it has twice."""


def _lines(kind: Kind, content: bytes, why_not_whole: ValueError) -> Records:
    """Read a body that is no JSON as a whole: each line, if already the first one is."""
    texts: list[bytes] = []
    for number, text in enumerate(content.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            value: Json = from_json(text, allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            found = f"line {number} is not JSON: {error}" if texts else None
            reason = found or f"the body is not JSON: {why_not_whole}"
            raise RefusedError(400, reason) from error
        _check(kind, f"line {number}", value)
        texts.append(text)
    return Records(b"[" + b",".join(texts) + b"]", len(texts))


def _check(kind: Kind, place: str, value: Json) -> None:
    if not isinstance(value, dict):
        raise RefusedError(422, f"{place} is {kind_of(value)}, wants an object")
    missing = [key for key in KEYS[kind] if key not in value]
    if kind == "feedback" and not any(key in value for key in TARGETS):
        missing.append(" or ".join(TARGETS))
    if missing:
        raise RefusedError(422, f"{place}: missing keys: {', '.join(missing)}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a body beside its bytes."""

    kind: spool.Kind
    content_type: str
    token: Token


@dataclass(frozen=True, slots=True)
class SpoolLine:
    """A line for the spool, and how many records, spans or log records it holds."""

    line: bytes
    count: int


def read_body(envelope: Envelope, content: bytes) -> SpoolLine:
    """Read a body as it was unpacked; pure.

    Raises:
        RefusedError: It is not what it should be, or the token may not send it.
    """
    kind, token = envelope.kind, envelope.token
    match kind:
        case "interactions" | "feedback":
            batch = read_records(kind, content)
            if not token.has_every_workload:
                require_workloads(batch.body, token)
        case "traces" | "logs":
            batch = read_telemetry(kind, content, envelope.content_type)
    return SpoolLine(spool.line(kind, token.client_id, batch.body), batch.count)
