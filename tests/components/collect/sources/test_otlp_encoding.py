import pytest

from components.collect.sources import otlp_encoding
from components.extensions.sources import otlp
from tests.support import telemetry
from tests.support.source_reading import records

SPAN = telemetry.call(
    gen_ai__operation__name="chat",
    gen_ai__input__messages=[{"role": "user", "parts": [{"type": "text", "content": "Hello?"}]}],
    gen_ai__output__messages=[
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Hi."}],
            "finish_reason": "stop",
        }
    ],
)


def varint(number: int) -> bytes:
    read = bytearray()
    while number > 0x7F:
        read.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*read, number])


def collector(request: bytes) -> bytes:
    """Return a request as the collector's file exporter writes it, after its length in 4 bytes."""
    return len(request).to_bytes(4, "big") + request


def delimited(request: bytes) -> bytes:
    return varint(len(request)) + request


def test_a_request_becomes_its_json_form_with_hexadecimal_ids():
    (request,) = otlp_encoding.decode_file(SPAN)
    match request:
        case {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": trace, "spanId": span}]}]}]}:
            assert (len(bytes.fromhex(str(trace))), len(bytes.fromhex(str(span)))) == (16, 8)
        case _:
            pytest.fail(f"not a request of one span: {request}")


@pytest.mark.parametrize("frame", [collector, delimited])
def test_requests_with_their_length_before_them_are_all_read(frame: "type[bytes]"):
    _, log_records = telemetry.logs_of_a_span(
        ("gen_ai.user.message", {"content": "Hello?"}),
        ("gen_ai.choice", {"index": 0, "message": {"content": "Hi."}}),
    )
    requests = list(otlp_encoding.decode_file(frame(SPAN) + frame(log_records)))
    assert [list(request) for request in requests] == [["resourceSpans"], ["resourceLogs"]]
    assert [interaction["request"] for interaction in records(otlp, *requests)] == [
        {"messages": [{"role": "user", "content": "Hello?"}]}
    ] * 2


def test_a_truncated_file_yields_its_good_requests_first():
    requests = otlp_encoding.decode_file(collector(SPAN) + collector(SPAN)[:-3])
    assert "resourceSpans" in next(requests)
    with pytest.raises(ValueError, match=rf"at byte {len(SPAN) + 4}: the request has {len(SPAN)} "):
        next(requests)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x0a\x05hello", id="garbage"),
        pytest.param(b"\x0a\x03\x0a\x01\xff", id="damaged"),
        pytest.param(b"\xff" * 20, id="no-length"),
        pytest.param(b"hello", id="text"),
    ],
)
def test_bytes_that_are_not_a_request_raise_value_error(content: bytes):
    with pytest.raises(ValueError, match="reading OTLP protobuf"):
        list(otlp_encoding.decode_file(content))
