"""Why lines of a file can't be loaded: by reason, how many, one example, and what mends it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from components.collect import files, lines, record_batches, writer
from components.collect.lines import Line, Unreadable
from components.collect.record_batches import BatchValidator, RecordOrigin
from components.collect.source import Defaults
from components.collect.writer import Stored
from components.store import warehouse
from components.store.warehouse import Connection

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


@dataclass(frozen=True, slots=True)
class Group:
    """Lines in quarantine with one reason, from one file: ``found`` of them."""

    found: int
    source: str
    reason: str
    path: str
    first_id: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One line in quarantine, with what it was read with."""

    quarantine_id: str
    path: str
    file_digest: str
    line: int
    reason: str
    content: bytes
    source: str
    workload_id: str
    client_id: str


@dataclass(frozen=True, slots=True)
class NewField:
    """A field that a source showed after its first file, and where it did so first."""

    source: str
    field: str
    first_path: str
    first_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Retried:
    """How many lines were tried again, and what came of them."""

    lines: int
    new: int
    known: int
    quarantined: int


def groups(con: Connection) -> list[Group]:
    """Count what is in quarantine."""
    return list(warehouse.read(con, "marts/quarantined", Group))


def find(con: Connection, beginning: str) -> Quarantined:
    """Find a line in quarantine by the first characters of its id.

    Raises:
        LookupError: None has such an id, or several have.
    """
    found = list(
        warehouse.read(con, "marts/quarantine", Quarantined, beginning=beginning, source_name=None)
    )
    if len(found) != 1:
        raise LookupError(
            f"{len(found)} lines in quarantine have an id that begins with {beginning!r}, wants one"
        )
    return found[0]


def retry(con: Connection, *, source: str | None, now: datetime) -> Retried:
    """Read every line in quarantine again, in one transaction; what is still refused stays."""
    values = {"beginning": "", "source_name": source}
    waiting = list(warehouse.read(con, "marts/quarantine", Quarantined, **values))
    stored = Stored(0, 0, 0)
    with warehouse.transaction(con), record_batches.open_validator(con) as judge:
        con.execute(
            "delete from raw.quarantine where $source is null or source = $source",
            {"source": source},
        )
        for origin, members in groupby(waiting, key=lambda one: _origin(one, now)):
            stored += _retry(con, judge, origin, list(members))
    return Retried(len(waiting), stored.new, stored.known, stored.quarantined)


def new_fields(con: Connection) -> list[NewField]:
    """List the fields that were not in the first file of their source, the newest first."""
    return list(warehouse.read(con, "marts/new_fields", NewField))


def _origin(one: Quarantined, now: datetime) -> RecordOrigin:
    defaults = Defaults(one.workload_id, one.client_id)
    return RecordOrigin(one.path, one.file_digest, one.source, defaults, now)


def _retry(
    con: Connection, judge: BatchValidator, origin: RecordOrigin, members: list[Quarantined]
) -> Stored:
    source = files.source_named(origin.source)
    unreadable: list[Unreadable] = []
    pieces = (_piece(one) for one in members)
    records = list(source.read(files.read_rows(pieces, unreadable), origin.defaults))
    batches = record_batches.batches_of_records([*records, *unreadable])
    with writer.validated(judge, origin.now, batches) as judged:
        return writer.store_batches(con, origin, judged)


def _piece(one: Quarantined) -> Line | Unreadable:
    """Read the bytes as the line that they should have been; its place is kept."""
    block = lines.make_block(one.line, one.content)
    found = list(lines.split_block(block))
    if len(found) == 1 and isinstance(found[0], Line):
        return found[0]
    return Unreadable(one.line, one.content, one.reason)
