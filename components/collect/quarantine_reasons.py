"""Why lines of a file can't be loaded: by reason, how many, one example, and what mends it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from components import warehouse
from components.warehouse import Connection

MOST_REASONS = 20
"""Reasons of one file that are kept; a file that is damaged at random has thousands."""

MOST_BYTES = 2_000
"""Bytes of an example that are kept."""

_VALUES = re.compile(r'"[^"]*"?|[0-9][0-9.]*')


@dataclass(frozen=True, slots=True)
class QuarantineReason:
    """Lines refused for one reason; ``path``, ``line`` and ``beginning`` are those of the first."""

    reason: str
    line_count: int
    path: str
    line: int
    beginning: bytes

    @property
    def pattern(self) -> str:
        """Return the reason without the values that differ from line to line."""
        return _VALUES.sub("_", self.reason)

    @property
    def remedy(self) -> str:
        """Name the flag or key that mends it, or who else can."""
        return next(remedy for pattern, remedy in REMEDIES if re.search(pattern, self.reason))


REMEDIES: tuple[tuple[str, str], ...] = (
    (
        "`workload_id` is empty|missing keys: workload_id$",
        "--workload NAME, or in a workload file {path: ..., workload_id: NAME}",
    ),
    (
        "missing keys: workload_id, client_id$",
        "--workload NAME --client NAME, or in a workload file {path: ..., workload_id: NAME, "
        "client_id: NAME}",
    ),
    (
        "missing keys: client_id$",
        "--client NAME, or in a workload file {path: ..., client_id: NAME}",
    ),
    (
        "missing keys: .*request, response",
        "no source recognizes these records; where one should, --source NAME (`source:` in a "
        "workload file) selects it: components/collect/README.md lists the forms",
    ),
    (
        "missing keys:.*(response_id|actor_id|kind|value)",
        "the application must log these keys with its feedback: components/collect/README.md",
    ),
    ("missing keys: ", "the application must log these keys: components/collect/README.md"),
    ("wants unix seconds", "the application must log unix seconds or ISO 8601 text"),
    (
        "not JSON",
        "the line is damaged, or its file has another form than lines, arrays, Parquet or OTLP",
    ),
    (
        r"error` is .* wants a response",
        "a request that failed has no answer to learn; such lines may stay in quarantine",
    ),
    (
        "wants `gen_ai.` attributes",
        "other spans teach nothing and may stay in quarantine; calls of a model need "
        "OpenTelemetry's GenAI attributes, with the content of the messages",
    ),
    ("", "the application must log this field as the reason says, or --source NAME names the form"),
)
"""What mends the reasons that match a pattern; the first match counts."""


def read(
    con: Connection, *, digest: str, source: str, now: datetime
) -> tuple[QuarantineReason, ...]:
    """Read why lines of a file went to quarantine when it was loaded, the most frequent first."""
    values = {"digest": digest, "source_name": source, "now": now}
    limits = {"most": MOST_REASONS, "most_bytes": MOST_BYTES}
    model = "marts/quarantine_reasons"
    return tuple(warehouse.read(con, model, QuarantineReason, **values, **limits))


def merged(reasons: Iterable[QuarantineReason]) -> list[QuarantineReason]:
    """Count reasons of several files together, the most frequent first."""
    by_pattern: dict[str, QuarantineReason] = {}
    for reason in reasons:
        known = by_pattern.get(reason.pattern)
        count = reason.line_count + (known.line_count if known else 0)
        by_pattern[reason.pattern] = replace(known or reason, line_count=count)
    return sorted(by_pattern.values(), key=lambda reason: -reason.line_count)
