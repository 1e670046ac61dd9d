"""Quarantined lines: list them by reason with an example and a remedy, find one, retry them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby

from components.collect import files, lines, record_batches, writer
from components.collect.lines import Line, Unreadable
from components.collect.record_batches import RecordOrigin
from components.collect.source import Defaults
from components.collect.writer import Stored, committed
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection

MAX_REASONS = 20  # maximum reasons of one file; a randomly damaged file has thousands

MAX_BYTES = 2_000  # maximum bytes of an example

_VALUES = re.compile(r'"[^"]*"?|0x[0-9a-f]+|[0-9][0-9.]*')

_MISNAMED = re.compile(rb'"((workload|client)(?:_?name|Id|ID)?)": ?"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class QuarantineReason:
    """Lines with one reason; ``path``, ``line`` and ``beginning`` (bytes) are the first line's."""

    reason: str
    line_count: int
    path: str
    line: int
    beginning: bytes

    @property
    def pattern(self) -> str:
        """Return the reason with its values (numbers, quoted text) replaced by ``_``."""
        return _VALUES.sub("_", self.reason)

    @property
    def remedy(self) -> str:
        """Return the flag or key that fixes the reason, or who else can fix it."""
        remedy = next(remedy for pattern, remedy in REMEDIES if re.search(pattern, self.reason))
        for found in _MISNAMED.finditer(self.beginning):
            name, expected = found[1].decode(), f"{found[2].decode().lower()}_id"
            if expected in self.reason and remedy.startswith("--"):
                # One workload for all lines would mix those that they name.
                return f"{remedy}, for all lines; or rename `{name}` in them to `{expected}`"
        return remedy


RETRIED_BYTES = 1 << 25
"""Of lines that are read again at a time: their records take several times as much memory."""

FILES_AT_ONCE = 200
"""Of which lines are read again in one transaction, some seconds, for which others wait."""

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
        r"missing keys: .*\b(request|response)\b",
        "no source recognizes these records; where one should, --source NAME (`source:` in a "
        "workload file) selects it: components/collect/README.md lists the forms, and how a `map:` "
        "reads others and the two files of a batch are joined",
    ),
    (
        "missing keys:.*(response_id|actor_id|kind|value)",
        "the application must log these keys with its feedback: components/collect/README.md",
    ),
    ("missing keys: ", "the application must log these keys: components/collect/README.md"),
    ("expected unix seconds", "the application must log unix seconds or ISO 8601 text"),
    (
        "not JSON",
        "the line is damaged, or its file has another form than lines, arrays, Parquet or OTLP: "
        "components/collect/README.md shows how CSV is rewritten",
    ),
    (
        r"error` is .* expected a response|the call has no answer",
        "a request that failed has no answer to learn; such lines may stay in quarantine",
    ),
    (
        "expected `gen_ai.` attributes",
        "other spans teach nothing and may stay in quarantine; calls of a model need "
        "OpenTelemetry's GenAI attributes, with the content of the messages",
    ),
    (
        "(gzip|zstd) stream is damaged",
        "the file was cut or damaged on its way: copy it again; what could be read is loaded, and "
        "no row is stored twice",
    ),
    (
        "not UTF-8",
        "the file is binary, packed in a form that is not detected, or of another encoding: unpack "
        "it, or `iconv -t utf-8` it",
    ),
    ("", "the application must log this field as the reason says, or --source NAME names the form"),
)
"""The remedy for reasons that match a pattern; the first match counts."""


def read(con: Connection, origin: RecordOrigin) -> tuple[QuarantineReason, ...]:
    """Return why lines of a file were quarantined at its load, the most frequent reason first."""
    values = {"digest": origin.digest, "source_name": origin.source, "now": origin.now}
    limits = {"most": MAX_REASONS, "most_bytes": MAX_BYTES}
    model = "marts/quarantine_reasons"
    return tuple(warehouse.records(con, model, QuarantineReason, **values, **limits))


def merged(reasons: Iterable[QuarantineReason]) -> list[QuarantineReason]:
    """Merge equal patterns of several files, the most frequent first; the first example stays."""
    by_pattern: dict[str, QuarantineReason] = {}
    for reason in reasons:
        known = by_pattern.get(reason.pattern)
        count = reason.line_count + (known.line_count if known else 0)
        by_pattern[reason.pattern] = replace(known or reason, line_count=count)
    return sorted(by_pattern.values(), key=lambda reason: -reason.line_count)


@dataclass(frozen=True, slots=True)
class Group:
    """Quarantined lines of one file with one reason."""

    line_count: int
    source: str
    reason: str
    path: str
    first_id: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One quarantined line, with the source and defaults that read it."""

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
class _Waiting:
    """A line of ``marts/retried``; those of a group, which are a file's, are read together."""

    quarantine_id: str
    group_number: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Retried:
    """How many lines were retried, and their outcomes."""

    lines: int
    new: int
    known: int
    quarantined: int

    def __add__(self, other: "Retried") -> "Retried":
        return Retried(
            self.lines + other.lines,
            self.new + other.new,
            self.known + other.known,
            self.quarantined + other.quarantined,
        )


def groups(con: Connection) -> list[Group]:
    """Return the quarantined lines by source, reason and file, the most frequent first."""
    return warehouse.records(con, "marts/quarantined", Group)


def find(con: Connection, beginning: str) -> Quarantined:
    """Return the line whose id begins so; raise ``LookupError`` unless there is exactly one."""
    matches = _lines(con, beginning)
    if len(matches) != 1:
        raise LookupError(
            f"{len(matches)} lines in quarantine have an id that begins with {beginning!r}, "
            "expected one"
        )
    return matches[0]


def retriable(con: Connection, source: str | None) -> list[list[str]]:
    """Return the ids of the lines of ``source`` (all if ``None``), in parts to be read again.

    A part has all lines of its files, at most ``FILES_AT_ONCE``, and about ``RETRIED_BYTES``.
    """
    waiting = warehouse.read(con, "marts/retried", _Waiting, source_name=source)
    parts: list[list[str]] = []
    held, files_held = RETRIED_BYTES, 0
    for _, members in groupby(waiting, key=lambda line: line.group_number):
        if held >= RETRIED_BYTES or files_held == FILES_AT_ONCE:
            parts.append([])
            held = files_held = 0
        files_held += 1
        for line in members:
            parts[-1].append(line.quarantine_id)
            held += line.bytes
    return parts


def retry(con: Connection, ids: Sequence[str], *, now: datetime) -> Retried:
    """Read a part of the quarantined lines again, in one transaction.

    Lines that are still refused stay in quarantine.
    """
    waiting, stored = _lines(con, ids=ids), Stored(0, 0, 0)
    with committed(con), record_batches.open_validator(con) as validator:
        con.execute(
            "delete from raw.quarantine where quarantine_id in (select unnest($ids))",
            {"ids": [line.quarantine_id for line in waiting]},
        )
        for origin, members in groupby(waiting, key=partial(_origin, now=now)):
            source = files.source_named(origin.source)
            records = files.read_records(source, map(_piece, [*members]), origin.defaults)
            batches = record_batches.batches_of_records(records)
            with writer.validated(validator, now, batches) as validated:
                stored += writer.store_batches(con, origin, validated)
    return Retried(len(waiting), stored.new, stored.known, stored.quarantined)


def _lines(
    con: Connection,
    beginning: str = "",
    ids: Sequence[str] | None = None,
) -> list[Quarantined]:
    named: Json = None if ids is None else [*ids]
    values = {"beginning": beginning, "quarantine_ids": named}
    return warehouse.records(con, "marts/quarantine", Quarantined, **values)


def _origin(line: Quarantined, now: datetime) -> RecordOrigin:
    defaults = Defaults(line.workload_id, line.client_id)
    return RecordOrigin(line.path, line.file_digest, line.source, defaults, now)


def _piece(line: Quarantined) -> Line | Unreadable:
    pieces = list(lines.split_block(lines.make_block(line.line, line.content)))
    if len(pieces) == 1 and isinstance(pieces[0], Line):
        return pieces[0]
    if (text := files.object_text(line.content)) is not None:  # an object over several lines
        return Line(line.line, text)
    return Unreadable(line.line, line.content, line.reason)
