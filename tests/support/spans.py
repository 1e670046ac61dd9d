"""OTLP requests as an OpenTelemetry exporter sends them."""

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from components.schema import Json


def request_json(**changes: Json) -> dict[str, Json]:
    """Write a request of one span; ``changes`` replace the span's keys."""
    span: dict[str, Json] = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "chat gpt-5",
        "startTimeUnixNano": "1760000000000000000",
        "endTimeUnixNano": "1760000001000000000",
        "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}],
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span | changes]}]}]}


def request_protobuf(*, span_id: bytes = bytes(range(8))) -> bytes:
    """Write a request of one span in protobuf."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = bytes(range(16)), span_id, "chat gpt-5"
    span.start_time_unix_nano = 1_760_000_000_000_000_000
    return request.SerializeToString()


def logs_json(**changes: Json) -> dict[str, Json]:
    """Write a request of one log record; ``changes`` replace the record's keys."""
    record: dict[str, Json] = {
        "timeUnixNano": "1760000000000000000",
        "eventName": "gen_ai.user.message",
        "body": {"stringValue": "Hello?"},
    }
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [record | changes]}]}]}


def logs_protobuf(*, span_id: bytes = b"") -> bytes:
    """Write a request of one log record in protobuf."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.time_unix_nano, record.span_id = 1_760_000_000_000_000_000, span_id
    record.event_name = "gen_ai.user.message"
    return request.SerializeToString()
