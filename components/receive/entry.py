"""Turn the body of a request into the line that stands for it in the spool."""

from dataclasses import dataclass

from components import spool
from components.receive import otlp, records
from components.receive.tokens import Token


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a body beside its bytes."""

    kind: spool.Kind
    content_type: str
    token: Token


@dataclass(frozen=True, slots=True)
class Entry:
    """A line for the spool, and how many records, spans or log records it holds."""

    line: bytes
    count: int


def read(envelope: Envelope, content: bytes) -> Entry:
    """Read a body as it was unpacked; pure.

    Raises:
        RefusedError: It is not what it should be, or the token may not send it.
    """
    kind, token = envelope.kind, envelope.token
    match kind:
        case "interactions" | "feedback":
            batch = records.read(kind, content)
            if not token.has_every_workload:
                records.require_workloads(batch.body, token)
        case "traces" | "logs":
            batch = otlp.read(kind, content, envelope.content_type)
    return Entry(spool.line(kind, token.client_id, batch.body), batch.count)
