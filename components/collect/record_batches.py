"""Batches of records as Arrow columns; SQL validates them and finds the new ones."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.collect import lines
from components.collect.lines import BEGINNING, Block, Line, LineStart, Unreadable
from components.collect.source import (
    Defaults,
    Kind,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.schema import Json
from components.store import warehouse
from components.store.arrow import ArrowTable
from components.store.warehouse import Connection

Column: TypeAlias = Sized  # a sequence of values, or an Arrow array
_Line: TypeAlias = tuple[Kind, int, str, "str | None"]
"""A record's kind, place, verbatim text, and canonical JSON text unless the verbatim text is it."""

BATCH_CHARACTERS = 16 * 2**20
MAX_UNREADABLE = 1_000  # maximum refused records of a batch, if they are short

RETURN = ord("\r")
SHORTEST = 13  # Arrow stores shorter strings in the view itself

TOLERANCE = timedelta(days=1)  # how far an application's clock may be ahead of ours

CHECKED_ROWS = 500
"""Minimum rows of a batch to check for new fields (a small batch is checked whole), because each
check costs a parse; so a field that only few rows of a long log have may be missed."""

READERS = 2
"""Batches to read in parallel. The writer takes in a whole row group, then compresses it: while it
waits for rows, one reader would keep only one processor busy."""

READ_TOGETHER = 256  # records to parse at a time; their results stay in a processor's cache


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one kind to store together, and the unreadable ones among them.

    The columns are ``ordinal`` (from 1), ``line``, ``content`` (the verbatim text) and ``record``
    (the canonical JSON text, null if ``content`` is canonical).
    """

    kind: Kind
    columns: Mapping[str, Column]
    rows: int
    unreadable: Sequence[Unreadable] = ()


@dataclass(slots=True)
class _Records:
    line: list[int] = field(default_factory=list[int])
    content: list[str] = field(default_factory=list[str])
    record: list[str | None] = field(default_factory=list["str | None"])
    size: int = 0

    def add(self, line: int, content: str, record: str | None) -> None:
        self.line.append(line)
        self.content.append(content)
        self.record.append(record)
        self.size += len(content) + len(record or "")

    def to_batch(self, kind: Kind) -> Batch:
        columns: dict[str, Column] = {
            "ordinal": pa.array(range(1, len(self.line) + 1)),
            "line": pa.array(self.line),
            "content": pa.array(self.content, pa.string_view()),
            "record": pa.array(self.record, pa.string()),
        }
        return Batch(kind, columns, len(self.line))


def batches_of_lines(kind: Kind, path: Path, start: LineStart = BEGINNING) -> Iterator[Batch]:
    """Yield batches of a file whose lines are canonical records, from ``start`` on."""
    for block in lines.read_blocks(path, start):
        if isinstance(block, Unreadable):
            yield Batch(kind, {}, 0, [block])
        elif (columns := _columns(block)) is not None:
            yield Batch(kind, columns, len(columns["line"]))
        else:
            pieces = (_canonical_line(kind, piece) for piece in lines.split_block(block))
            yield from _batches(pieces, kind)


def canonical_records(
    kind: Kind, pieces: Iterable[Line | Unreadable]
) -> Iterator[SourceRecord | Unreadable]:
    """Yield lines that already are canonical records, without parsing them in Python."""
    unparsed: dict[str, Json] = {}
    for piece in pieces:
        if isinstance(piece, Unreadable):
            yield piece
        else:
            yield ParsedRecord(SourceRow(piece.number, piece.text, unparsed), kind, unparsed)


def batches_of_records(records: Iterable[SourceRecord | Unreadable]) -> Iterator[Batch]:
    """Yield batches of a source's records, interactions and feedback separately."""
    return _batches(map(_batch_line, records), "interactions")


def _batches(
    batch_lines: Iterable[_Line | Unreadable], kind_of_unreadable: Kind
) -> Iterator[Batch]:
    waiting: dict[Kind, _Records] = {"interactions": _Records(), "feedback": _Records()}
    unreadable, unreadable_bytes = list[Unreadable](), 0
    for line in batch_lines:
        if isinstance(line, Unreadable):
            unreadable.append(line)
            unreadable_bytes += len(line.content)
            if len(unreadable) >= MAX_UNREADABLE or unreadable_bytes >= BATCH_CHARACTERS:
                yield Batch(kind_of_unreadable, {}, 0, unreadable)
                unreadable, unreadable_bytes = [], 0
            continue
        kind, place, content, record = line
        waiting[kind].add(place, content, record)
        if waiting[kind].size >= BATCH_CHARACTERS:
            yield waiting[kind].to_batch(kind)
            waiting[kind] = _Records()
    for kind, rest in waiting.items():
        if rest.line:
            yield rest.to_batch(kind)
    if unreadable:
        yield Batch(kind_of_unreadable, {}, 0, unreadable)


def _canonical_line(kind: Kind, piece: Line | Unreadable) -> _Line | Unreadable:
    return piece if isinstance(piece, Unreadable) else (kind, piece.number, piece.text, None)


def _batch_line(record: SourceRecord | Unreadable) -> _Line | Unreadable:
    if isinstance(record, Unreadable):
        return record
    place, text = record.row.place, record.row.text
    if isinstance(record, RejectedRecord):
        return Unreadable(place, text.encode(), record.reason)
    if record.record is record.row.value:
        return record.kind, place, text, None
    return record.kind, place, text, json.dumps(record.record)


def _columns(block: Block) -> Mapping[str, Column] | None:
    content, ends = block.content, block.ends
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts
    if lengths.min() < SHORTEST or lengths.max() > lines.LONGEST:
        return None
    if np.any(content[ends - 1] == RETURN) or content[:3].tobytes() == lines.BYTE_ORDER_MARK:
        return None
    count = len(ends)
    columns: dict[str, Column] = {
        "ordinal": pa.array(np.arange(1, count + 1)),
        "line": pa.array(np.arange(block.number, block.number + count)),
        "content": _views(block, starts, lengths),
        "record": pa.nulls(count, pa.string()),
    }
    try:
        pa.table(columns).validate(full=True)
    except pa.ArrowInvalid:  # not UTF-8
        return None
    return columns


def _views(block: Block, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Column:
    # A view is 16 bytes: the length, the first four bytes, the buffer's number and the offset in it
    # (Arrow columnar format, "Variable-size Binary View Layout").
    content = block.content
    views = np.zeros((len(starts), 4), np.int32)
    views[:, 0] = lengths
    views.view(np.uint8)[:, 4:8] = content[starts[:, None] + np.arange(4)]
    views[:, 3] = starts
    buffers = [None, pa.py_buffer(views), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.string_view(), len(starts), buffers)


@dataclass(frozen=True, slots=True)
class RecordOrigin:
    """Where records come from: a file with its digest, source, defaults and load time."""

    path: str
    digest: str
    source: str
    defaults: Defaults
    now: datetime


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """A batch and its parsed records, new or not."""

    batch: Batch
    parsed: ArrowTable | None  # a row per record, in their order; ``None`` if there is no record
    refused: Sequence[Unreadable]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class ValidatedBatch:
    """A validated batch.

    ``rows`` has a row per record, with ``content``, ``record`` and the columns of ``raw``; the rows
    to store have ``is_fresh``. It is ``None`` if there is no row to store.
    """

    kind: Kind
    records: int  # the number of valid ones
    rows: ArrowTable | None
    refused: Sequence[Unreadable]
    fields: frozenset[str]


class BatchValidator:
    """Validates batches for one transaction.

    It remembers the transaction's rows, which no other connection can see before the commit.
    """

    def __init__(self, con: Connection, readers: Sequence[Connection]) -> None:
        self._con = con
        self._readers: SimpleQueue[Connection] = SimpleQueue()
        for reader in readers:
            self._readers.put(reader)
        con.execute(
            "create temporary table passed"
            " (kind text, id text, timestamp timestamptz, content_hash ubigint)"
        )

    def read(self, now: datetime, batch: Batch) -> ParsedBatch:
        """Parse a batch that arrived at ``now``; thread-safe."""
        if not batch.rows:
            return ParsedBatch(batch, None, batch.unreadable, frozenset())
        con = self._readers.get()
        try:
            return _read(con, now, batch)
        finally:
            self._readers.put(con)

    def validate(self, parsed_batch: ParsedBatch) -> ValidatedBatch:
        """Find the new records of a batch: those in no earlier batch. Call it in batch order."""
        batch, rows, refused = parsed_batch.batch, parsed_batch.parsed, parsed_batch.refused
        if rows is not None:
            is_fresh = self._is_fresh(batch, rows)
            rows = rows.append_column("is_fresh", pa.array(is_fresh)) if is_fresh.any() else None
        if rows is not None:
            for name in ("content", "record"):
                rows = rows.append_column(name, pa.chunked_array([batch.columns[name]]))
        records = batch.rows - (len(refused) - len(batch.unreadable))
        return ValidatedBatch(batch.kind, records, rows, refused, parsed_batch.fields)

    def _is_fresh(self, batch: Batch, parsed: ArrowTable) -> NDArray[np.bool_]:
        """Return which records to store, and remember them."""
        is_fresh = np.zeros(batch.rows, np.bool_)
        times = pc.call_function("min_max", [parsed.column("timestamp")]).as_py()
        if times["min"] is None:
            return is_fresh
        within = {"earliest": times["min"], "latest": times["max"]}
        with warehouse.one_state(self._con):
            with warehouse.present(self._con, "found", parsed):
                fresh = warehouse.table(self._con, f"temp/fresh_{batch.kind}", **within)
            with warehouse.present(self._con, "fresh", fresh):
                remember = (
                    "insert into temp.passed by name"
                    " select $kind as kind, fresh.* exclude (ordinal) from fresh"
                )
                self._con.execute(remember, {"kind": batch.kind})
        is_fresh[np.asarray(fresh.column("ordinal")) - 1] = True
        return is_fresh


@contextmanager
def open_validator(con: Connection) -> Generator[BatchValidator]:
    """Yield a validator for a transaction of ``con`` that is about to begin or has just begun."""
    with ExitStack() as stack:
        readers = [
            stack.enter_context(warehouse.second_connection(con, reads=False))
            for _ in range(READERS)
        ]
        known = stack.enter_context(warehouse.second_connection(con))
        yield BatchValidator(known, readers)


def _read(con: Connection, now: datetime, batch: Batch) -> ParsedBatch:
    latest_seconds = (now + TOLERANCE).timestamp()
    with warehouse.present(con, "lines", batch.columns, READ_TOGETHER):
        parsed = warehouse.table(con, f"temp/{batch.kind}", latest_seconds=latest_seconds)
        step = max(1, batch.rows // CHECKED_ROWS)
        shapes = warehouse.select(con, "temp/shapes", step=step)
        if batch.kind == "interactions":
            objections = _objections(con, batch, parsed, latest_seconds)
            parsed = parsed.append_column("objection", objections)
    refused = _refused(batch, parsed)
    return ParsedBatch(batch, parsed, [*refused, *batch.unreadable], _fields(shapes))


def _objections(con: Connection, batch: Batch, parsed: ArrowTable, latest_seconds: float) -> object:
    is_plain = np.asarray(parsed.column("is_plain"))
    if is_plain.all():
        return pa.nulls(len(is_plain), pa.string())
    odd = np.flatnonzero(~is_plain).tolist()
    record, content = (pa.chunked_array([batch.columns[name]]) for name in ("record", "content"))
    texts = [record[place].as_py() or content[place].as_py() for place in odd]
    # As plain strings: DuckDB 1.5 pushes filters down to Arrow, which can't filter string views.
    written = {
        "ordinal": pa.array([place + 1 for place in odd]),
        "written": pa.array(texts, pa.large_string()),
    }
    with warehouse.present(con, "found", parsed), warehouse.present(con, "odd_lines", written):
        model = "temp/refused_interactions"
        return warehouse.table(con, model, latest_seconds=latest_seconds).column("objection")


def _fields(shapes: Sequence[warehouse.Row]) -> frozenset[str]:
    fields: set[str] = set()
    for shape in shapes:
        keys = cast("Sequence[Sequence[str] | None]", shape["shape"] or ())
        for within, names in zip(("", "request.", "response."), keys, strict=False):
            fields.update(f"{within}{name}" for name in names or ())
    return frozenset(fields)


def _refused(batch: Batch, parsed: ArrowTable) -> list[Unreadable]:
    objections = parsed.column("objection")
    if objections.null_count == batch.rows:
        return []
    content = pa.chunked_array([batch.columns["content"]])
    reasons = zip(parsed.column("line").to_pylist(), objections.to_pylist(), strict=True)
    return [
        Unreadable(line, content[place].as_py().encode(), reason)
        for place, (line, reason) in enumerate(reasons)
        if reason is not None
    ]
