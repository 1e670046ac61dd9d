"""Rows of a wanted size that are made to be slow: the worst that is known for each expression."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from components.curate.interaction import CandidateRow
from components.schema import Json
from tests.support import logs
from tests.support.curated_rows import row

DEEP = 400
KNOWN = 900
"""Different values; of more than 1,000 a row is left out."""


def repeated(text: str, size: int) -> str:
    """Repeat a text up to a size."""
    return text * (size // len(text))


def numbered(form: str, size: int, first: int = 0) -> str:
    """Write different values, a space between them, up to a size."""
    count = size // (len(form % first) + 1)
    return " ".join(form % (first + n) for n in range(count))


def answered(text: str) -> CandidateRow:
    """Put a text where no bound on prompts counts it."""
    return row(tools=[], message=logs.say(text))


def _cards(size: int) -> CandidateRow:
    return answered(repeated("4111 1111 1111 1111 ", size))


def _named(size: int) -> CandidateRow:
    messages: Json = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": repeated("your name ", size)},
        {"role": "user", "content": "John Smith"},
    ]
    return row(messages=messages, tools=[], message=logs.say("Yes."))


def _marks(size: int) -> CandidateRow:
    marks = "\u0301" * (size // 4) + "\u0323" * (size // 4)
    return row(messages=[{"role": "user", "content": "a" + marks}], tools=[], message=logs.say("x"))


def _quoted(size: int) -> CandidateRow:
    values = " ".join(f"ann{n}@acme.org" for n in range(500))
    corrected = row(
        messages=[{"role": "user", "content": values}],
        tools=[],
        message=logs.say(repeated("<EMAIL_500> ", size)),
        is_corrected=True,
    )
    return replace(corrected, logged_message=json.dumps(logs.say("x")))


def _arguments(size: int) -> CandidateRow:
    zeros: list[Json] = [0] * (size // 3)
    arguments: Json = {"city": zeros}
    return row(message=logs.call("weather", arguments))


def _keys(size: int) -> CandidateRow:
    return row(message=logs.call("weather", {f"key {n}": n for n in range(size // 18)}))


def _half_characters(size: int) -> CandidateRow:
    half = repeated("\\ud800", size)  # by an escape, the only way to write one
    messages: Json = [
        {"role": "user", "content": "How is Rome?"},
        logs.call("weather", f'{{"city": "{half}"}}'),
        {"role": "user", "content": "And then?"},
    ]
    return row(messages=messages)


def _nested(size: int) -> str:
    """Write lists that are as deep as other readers of JSON allow."""
    return f"[{','.join(['[' * 90 + ']' * 90] * (size // 181))}]"


def _nested_schema(size: int) -> CandidateRow:
    schema: dict[str, Json] = {"type": "string"}
    for _ in range(90):
        schema = {"type": "object", "properties": {"a": schema}}
    properties: Json = {f"city {n}": schema for n in range(size // len(json.dumps(schema)))}
    function: Json = {**logs.WEATHER["function"], "parameters": {"properties": properties}}  # type: ignore[dict-item]
    return row(tools=[{"type": "function", "function": function}])


def _shown(size: int) -> CandidateRow:
    tool = {**logs.WEATHER["function"], "description": numbered("u%07d@acme.org", size)}  # type: ignore[dict-item]
    return row(tools=[{"type": "function", "function": tool}])


ROWS: Mapping[str, Callable[[int], CandidateRow]] = {
    "digits with blanks": lambda size: answered(repeated("1 ", size)),
    "groups of digits": lambda size: answered(repeated("4444 ", size)),
    "one long number": lambda size: answered("1" * size),
    "cards in a row": _cards,
    "many addresses": lambda size: answered(numbered("u%07d@acme.org", size)),
    "many phones": lambda size: answered(numbered("+1 415 %07d", size, 2_000_000)),
    "many secrets": lambda size: answered(numbered("sk-live-9aZ%013dx", size)),
    "known values in many texts": lambda size: answered(
        numbered("u%07d@acme.org", min(size // 2, KNOWN * 17)) + json.dumps(["word"] * (size // 16))
    ),
    "known values again and again": lambda size: answered(
        repeated(numbered("u%07d@acme.org", KNOWN * 17) + " ", size)
    ),
    "punctuation": lambda size: answered("!" * size + "a1b2c3d4e5f6g7h8i9j0"),
    "prefixes of keys": lambda size: answered(repeated("sk-", size) + "a" * 20),
    "beginnings of keys": lambda size: answered(repeated("-----BEGIN PRIVATE KEY-----", size)),
    "words with dots": lambda size: answered(repeated("A.", size) + " Xweg 1"),
    "labels of a domain": lambda size: answered("x" * 64 + "@" + repeated("a.", size)),
    "questions for a name": _named,
    "marks on a letter": _marks,
    "placeholders in a correction": _quoted,
    "one word": lambda size: answered(repeated("a ", size)),
    "one letter": lambda size: answered("a" * size),
    "a list of numbers": _arguments,
    "an object of many keys": _keys,
    "addresses in a tool": _shown,
    "half characters in arguments": _half_characters,
    "characters of two halves": lambda size: answered("\U0001f600" * (size // 12)),
    "nested arguments": lambda size: row(
        message=logs.call("weather", f'{{"city": {_nested(size)}}}')
    ),
    "a nested schema": _nested_schema,
    "nested JSON in a message": lambda size: answered(_nested(size)),
    "braces": lambda size: answered("{" * size),
    "brackets": lambda size: answered("[" * DEEP + "1, " * (size // 3)),
}
"""By what is in them; each takes the size of its text in characters."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a client with a token may send it."""

    content: bytes
    path: str = "/v1/interactions"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


RECORD = b'{"timestamp":1,"workload_id":"w","request":{},"response":{}}'
LINE = RECORD + b"\n"
GZIP = {"content-encoding": "gzip"}


def _lines(size: int) -> bytes:
    return LINE * (size // len(LINE))


def _record(within: bytes) -> Request:
    """Put a JSON value into a record that has all its keys."""
    head = b'{"timestamp":1,"workload_id":"w","response":{},"request":'
    return Request(head + within + b"}")


def _objects(size: int) -> bytes:
    return b"[" + b"{}," * (size // 3 - 1) + b"{}]"


def _keys_of_one(size: int) -> bytes:
    return b"{" + b",".join(b'"%08d":1' % n for n in range(size // 13)) + b"}"


def _empty_members(size: int) -> Request:
    member = gzip.compress(b"")
    return Request(member * (size // len(member)), headers=GZIP)


def _spans(size: int) -> Request:
    span = b'{"traceId":"%032x","spanId":"%016x"}' % (1, 1)
    spans = b",".join([span] * (size // (len(span) + 1)))
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + spans + b"]}]}]}"
    return Request(body, "/v1/traces", {"content-type": "application/json"})


def _spans_in_protobuf(size: int) -> Request:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    span = spans.add(trace_id=bytes(16), span_id=bytes(8))
    spans.extend([span] * (size // (span.ByteSize() + 2) - 1))
    content = request.SerializeToString()
    return Request(content, "/v1/traces", {"content-type": "application/x-protobuf"})


REQUESTS: Mapping[str, Callable[[int], Request]] = {
    "gzip of empty members": _empty_members,
    "gzip of zeros": lambda size: Request(gzip.compress(b"0" * size), headers=GZIP),
    "gzip of records": lambda size: Request(
        gzip.compress(LINE * (size // len(LINE))), headers=GZIP
    ),
    "records, one a line": lambda size: Request(LINE * (size // len(LINE))),
    "records, the last one broken": lambda size: Request(_lines(size) + b"{"),
    "an array of records": lambda size: Request(
        b"[" + b",".join([RECORD] * (size // len(LINE))) + b"]"
    ),
    "a record of empty arrays": lambda size: _record(b"[" + b"[]," * (size // 3) + b"[]]"),
    "a record of empty objects": lambda size: _record(_objects(size)),
    "a record of keys": lambda size: _record(_keys_of_one(size)),
    "a record of nested arrays": lambda size: _record(
        b"[" + b",".join([b"[" * 90 + b"]" * 90] * (size // 181)) + b"]"
    ),
    "a record of escapes": lambda size: _record(b'"' + b"\\u00e9" * (size // 6) + b'"'),
    "a record of new lines": lambda size: _record(b"[" + b"\n" * size + b"]"),
    "an array of arrays": lambda size: Request(b"[" + b"[]," * (size // 3) + b"[]]"),
    "an array of objects": lambda size: Request(_objects(size)),
    "keys": lambda size: Request(_keys_of_one(size)),
    "nested arrays": lambda size: Request(b"[" * size),
    "many lines": lambda size: Request(b"1\n" * (size // 2)),
    "one text": lambda size: Request(b'"' + b"a" * size + b'"'),
    "spans": _spans,
    "spans in protobuf": _spans_in_protobuf,
}
"""By what is in them; each takes the size of its body in bytes, unpacked."""
