"""Read OTLP's protobuf form into its JSON form, which ``otlp`` takes.

A file holds one request, or many, each with its length before it: four bytes as the collector's
file exporter writes them, or a varint as protobuf's own delimited form has it.
"""

import base64
from collections.abc import Iterator
from typing import cast

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from components.collect.sources.shape import Obj
from components.schema import Json

FIRST_FIELD = 0x0A
"""The byte that a request begins with: field 1, a message."""

LENGTH_BYTES = 4
IDS = ("traceId", "spanId", "parentSpanId")


def decode(content: bytes) -> Iterator[Obj]:
    """Go through the requests of a file, traces or logs, in their JSON form.

    Raises:
        ValueError: What comes next is no request; it says where. What was read before is good.
    """
    for start, frame in _frames(content):
        yield request(frame, f"at byte {start}")


def request(content: bytes, place: str = "") -> Obj:
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
