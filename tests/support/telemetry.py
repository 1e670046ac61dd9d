"""Make requests of OTLP with the OpenTelemetry SDK, as an instrumented application would."""

import json
from collections.abc import Callable, Mapping
from typing import cast

from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from opentelemetry.util.types import AnyValue

from components.collect.sources import otlp_encoding
from components.schema import Json

RESOURCE = Resource({"service.name": "shop-bot"})

Event = tuple[str, Mapping[str, Json]]


def traces(act: Callable[[Tracer], object]) -> bytes:
    """Give the request that exports the spans which ``act`` records."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    act(provider.get_tracer("test"))
    return encode_spans(exporter.get_finished_spans()).SerializeToString()


def call(*events: Event, name: str = "chat gpt-4o-mini", **attributes: Json) -> bytes:
    """Give the request of one span, its attributes written with ``__`` for each dot.

    Values that a span can't hold are written as JSON text, as instrumentations do; an event's too.
    """

    def act(tracer: Tracer) -> None:
        with tracer.start_as_current_span(name) as span:
            for key, value in attributes.items():
                span.set_attribute(key.replace("__", "."), _held(value))
            for event, said in events:
                span.add_event(event, {key: _held(value) for key, value in said.items()})

    return traces(act)


def logs_of_a_span(*events: Event) -> tuple[bytes, bytes]:
    """Give the request of a bare span, and that of the log records which were recorded on it."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("test")

    def act(tracer: Tracer) -> None:
        with tracer.start_as_current_span("chat gpt-4o-mini") as span:
            span.set_attribute("gen_ai.system", "openai")
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.request.model", "gpt-4o-mini")
            span.set_attribute("gen_ai.response.id", "chatcmpl-1")
            for event, body in events:
                said = cast("AnyValue", body)
                logger.emit(LogRecord(timestamp=1_760_000_000 * 10**9, event_name=event, body=said))

    spans = traces(act)
    records = exporter.get_finished_logs()
    return spans, encode_logs(records).SerializeToString()


def json_form(content: bytes) -> dict[str, Json]:
    """Give the one request that ``content`` is, in OTLP's JSON form."""
    (request,) = otlp_encoding.decode_file(content)
    return request


def _held(value: Json) -> str | bool | int | float | list[str]:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return [str(one) for one in value]
    return json.dumps(value) if isinstance(value, dict | list | None) else value
