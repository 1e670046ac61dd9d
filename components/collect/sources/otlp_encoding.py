"""Decode OTLP: protobuf to its JSON form, attributes to plain values."""

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

DEEPEST = 64
"""Levels of nesting that an attribute may have; a value below was made to do harm."""


def attributes(holder: Obj, at: str) -> Obj:
    """Read the attributes of a resource, span, event or log record by name."""
    return _entries(fields.may_array(holder, "attributes", at), f"{at}attributes", 0)


def value(wrapped: Json, at: str, depth: int = 0) -> Json:
    """Unwrap an ``AnyValue``; integers may be text, as protobuf's JSON form has 64-bit ones."""
    if depth > DEEPEST:
        raise fields.WrongShapeError(f"`{at}` is nested deeper than {DEEPEST} levels")
    match wrapped:
        case None | {"stringValue": None}:
            return None
        case {"intValue": str(text)} if text.lstrip("-").isdecimal() and len(text) < 21:
            return int(text)
        case {"arrayValue": dict(array)}:
            values = fields.may_array(array, "values", f"{at}.arrayValue.")
            return [value(one, f"{at}[{n}]", depth + 1) for n, one in enumerate(values)]
        case {"kvlistValue": dict(entries)}:
            values = fields.may_array(entries, "values", f"{at}.kvlistValue.")
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
            raise fields.wrong(at, wrapped, "an object with one of OTLP's typed values")


def seconds(holder: Obj, keys: tuple[str, ...], at: str) -> float:
    """Read the first of the times that is set, given in nanoseconds, as unix seconds.

    To the microsecond, which is what a float can hold of them.
    """
    for key in keys:
        nanoseconds = holder.get(key)
        match nanoseconds:
            case None | 0 | "0" | "":
                continue
            case str() if nanoseconds.isdecimal() and len(nanoseconds) < 21:
                return int(nanoseconds) // 1000 / 1e6
            case int() if not isinstance(nanoseconds, bool):
                return nanoseconds // 1000 / 1e6
            case _:
                raise fields.wrong(at + key, nanoseconds, "nanoseconds as digits")
    raise fields.missing(at + keys[0], "nanoseconds as digits")


def duration_ms(holder: Obj, began: str, ended: str, at: str) -> float | None:
    """Give the milliseconds between two times; ``None`` where one is not set, or not after it."""
    try:
        seconds_ = seconds(holder, (ended,), at) - seconds(holder, (began,), at)
    except fields.WrongShapeError:  # a call is a call without it
        return None
    return round(1000 * seconds_, 3) if seconds_ >= 0 else None


def _entries(entries: list[Json], at: str, depth: int) -> Obj:
    read: Obj = {}
    for path, entry in fields.objects(entries, at):
        key = fields.want_text(entry, "key", path)
        read[key] = value(entry.get("value"), f"{at}[{key}]", depth)
    return read


FIRST_FIELD = 0x0A
"""The byte that a request begins with: field 1, a message."""

LENGTH_BYTES = 4
IDS = ("traceId", "spanId", "parentSpanId")


def decode_file(content: bytes) -> Iterator[Obj]:
    """Go through the requests of a file, traces or logs, in their JSON form.

    Raises:
        ValueError: What comes next is no request; it says where. What was read before is good.
    """
    for start, frame in _frames(content):
        yield decode_request(frame, f"at byte {start}")


def decode_request(content: bytes, place: str = "") -> Obj:
    """Read one request of traces or logs.

    The two can't be told from the bytes alone; but where a span has its id a log record has its
    time, so what has no ids as traces is logs.

    Raises:
        ValueError: It is neither.
    """
    try:
        traces = _as_traces(content)
        if traces is not None and any(_span_ids(traces)):
            return _json_form(cast("Obj", MessageToDict(traces)))
        logs = ExportLogsServiceRequest.FromString(content)
        return _json_form(cast("Obj", MessageToDict(logs)))
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
    """Cut a file into its requests, each with the place where it begins."""
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
    """Tell whether the bytes are one message of nothing but first fields."""
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
    """Read a length of seven bits a byte, lowest first; give where it ends, too."""
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
    """Write ids in hexadecimal, as OTLP's JSON form has them and protobuf's has not."""
    return {key: _hexadecimal(key, held) for key, held in value.items()}


def _hexadecimal(key: str, value: Json) -> Json:
    if isinstance(value, dict):
        return _json_form(value)
    if isinstance(value, list):
        return [_hexadecimal("", one) for one in value]
    return base64.b64decode(value).hex() if key in IDS and isinstance(value, str) else value
