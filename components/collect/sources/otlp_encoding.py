"""Decode OTLP: protobuf to JSON form, attributes to plain values."""

import base64
from collections.abc import Iterator
from typing import cast

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from components.collect.sources import fields
from components.collect.sources.fields import Obj
from components.schema import Json

DEEPEST = 64  # maximum nesting of an attribute; deeper values are attacks

FIRST_FIELD = 0x0A  # a request's first byte: field 1, a message
LENGTH_BYTES = 4
IDS = ("traceId", "spanId", "parentSpanId")


def attributes(holder: Obj, at: str) -> Obj:
    """Return the attributes of a resource, span, event or log record by name."""
    return _entries(fields.optional_array(holder, "attributes", at), f"{at}attributes", 0)


def value(wrapped: Json, at: str, depth: int = 0) -> Json:
    """Return the value of an ``AnyValue``; integers may be text, as in protobuf's JSON form."""
    if depth > DEEPEST:
        raise fields.WrongShapeError(f"`{at}` is nested deeper than {DEEPEST} levels")
    match wrapped:
        case None | {"stringValue": None}:
            return None
        case {"intValue": str(text)} if text.removeprefix("-").isdecimal() and len(text) < 21:
            return int(text)
        case {"arrayValue": dict(array)}:
            values = fields.optional_array(array, "values", f"{at}.arrayValue.")
            return [value(inner, f"{at}[{n}]", depth + 1) for n, inner in enumerate(values)]
        case {"kvlistValue": dict(entries)}:
            values = fields.optional_array(entries, "values", f"{at}.kvlistValue.")
            return _entries(values, at, depth + 1)
        case {"stringValue": str(plain)} | {"bytesValue": str(plain)}:
            return plain
        case {"boolValue": bool(plain)} | {"intValue": int(plain)}:
            return plain
        case {"doubleValue": int() | float() | str() as plain}:
            return plain
        case dict() if not wrapped:
            return None
        case _:
            raise fields.wrong_type(at, wrapped, "an object with one of OTLP's typed values")


def seconds(holder: Obj, keys: tuple[str, ...], at: str) -> float:
    """Return the first time (nanoseconds) that is set as unix seconds.

    Truncated to microseconds, the precision of a float.
    """
    for key in keys:
        nanoseconds = holder.get(key)
        match nanoseconds:
            case None | 0 | "0" | "":
                continue
            case str() if nanoseconds.isdecimal() and len(nanoseconds) < 21:
                return int(nanoseconds) // 1000 / 1e6
            case int() if not isinstance(nanoseconds, bool) and abs(nanoseconds) < 10**20:
                return nanoseconds // 1000 / 1e6
            case _:
                raise fields.wrong_type(at + key, nanoseconds, "nanoseconds as digits")
    raise fields.missing(at + keys[0], "nanoseconds as digits")


def duration_ms(holder: Obj, began: str, ended: str, at: str) -> float | None:
    """Return the milliseconds between two times; ``None`` if one is missing or they are swapped."""
    try:
        elapsed = seconds(holder, (ended,), at) - seconds(holder, (began,), at)
    except fields.WrongShapeError:  # the duration is optional
        return None
    return round(1000 * elapsed, 3) if elapsed >= 0 else None


def has_failed(span: Obj) -> bool:
    """Return whether a span ended in an error."""
    match span.get("status"):
        case {"code": 2 | "STATUS_CODE_ERROR" | "ERROR"}:
            return True
        case _:
            return False


def _entries(entries: list[Json], at: str, depth: int) -> Obj:
    values: Obj = {}
    for path, entry in fields.objects(entries, at):
        key = fields.require_text(entry, "key", path)
        values[key] = value(entry.get("value"), f"{at}[{key}]", depth)
    return values


def decode_file(content: bytes) -> Iterator[Obj]:
    """Yield a file's requests of traces or logs in JSON form.

    Raise ``ValueError`` with the offset when the next bytes are not a request.
    """
    for start, frame in _frames(content):
        yield decode_request(frame, f"at byte {start}")


def decode_request(content: bytes, place: str = "") -> Obj:
    """Return one request of traces or logs in JSON form; raise ``ValueError`` if it is neither."""
    # The bytes alone don't distinguish the two; but a log record has its time in the field of a
    # span's id, so a request without ids as traces is logs.
    try:
        request = _as_traces(content)
        if request is None or not any(_span_ids(request)):
            request = ExportLogsServiceRequest.FromString(content)
        return _json_form(cast("Obj", MessageToDict(request)))
    except (DecodeError, RecursionError) as error:
        where = f" {place}" if place else ""
        raise ValueError(
            f"reading OTLP protobuf{where}: found {len(content)} bytes that are neither a request "
            f"of traces nor one of logs ({error})"
        ) from error


def _as_traces(content: bytes) -> ExportTraceServiceRequest | None:
    try:
        return ExportTraceServiceRequest.FromString(content)
    except DecodeError:
        return None


def _frames(content: bytes) -> Iterator[tuple[int, bytes]]:
    if content[:1] == bytes([FIRST_FIELD]) and _is_whole(content):
        yield 0, content
        return
    read_length = _fixed_length if content[:1] == b"\0" else _varint
    start = 0
    while start < len(content):
        begin, length = read_length(content, start)
        if begin + length > len(content):
            raise ValueError(
                f"reading OTLP protobuf at byte {start}: the request has {length} bytes, "
                f"the file ends after {len(content) - begin}"
            )
        yield start, content[begin : begin + length]
        start = begin + length


def _is_whole(content: bytes) -> bool:
    start = 0
    while start < len(content):
        if content[start] != FIRST_FIELD:
            return False
        begin, length = _varint(content, start + 1)
        start = begin + length
    return start == len(content)


def _fixed_length(content: bytes, start: int) -> tuple[int, int]:
    begin = start + LENGTH_BYTES
    return begin, int.from_bytes(content[start:begin], "big")


def _varint(content: bytes, start: int) -> tuple[int, int]:
    length = 0
    for shift, byte in enumerate(content[start : start + 10]):
        length |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return start + shift + 1, length
    raise ValueError(f"reading OTLP protobuf at byte {start}: found no length")


def _span_ids(request: ExportTraceServiceRequest) -> Iterator[bytes]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span.trace_id


def _json_form(value: Obj) -> Obj:
    """Return the value with hexadecimal ids, as in OTLP's JSON form; protobuf's has base64."""
    return {key: _hexadecimal(key, inner) for key, inner in value.items()}


def _hexadecimal(key: str, value: Json) -> Json:
    if isinstance(value, dict):
        return _json_form(value)
    if isinstance(value, list):
        return [_hexadecimal("", inner) for inner in value]
    return base64.b64decode(value).hex() if key in IDS and isinstance(value, str) else value
