"""Batches of records as Arrow columns; validate them, and find which are new, in SQL."""

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
from components.collect.source import Defaults, Kind, ParsedRecord, RejectedRecord
from components.store import warehouse
from components.store.arrow import ArrowTable
from components.store.warehouse import Connection

Column: TypeAlias = Sized
"""A sequence of values, or an Arrow array."""

BATCH_CHARACTERS = 16 * 2**20
MOST_UNREADABLE = 1_000
"""Refused records that are held at once."""

RETURN = ord("\r")
SHORTEST = 13
"""Arrow keeps shorter strings within the view itself."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one kind that are stored together, and what was unreadable among them.

    The columns are ``ordinal`` (from 1), ``line``, ``content`` (what stood there) and ``record``
    (the canonical JSON text, null where the content itself is it).
    """

    kind: Kind
    columns: Mapping[str, Column]
    rows: int
    unreadable: Sequence[Unreadable] = ()


@dataclass(slots=True)
class _Records:
    """Records on their way into a batch."""

    line: list[int] = field(default_factory=list[int])
    content: list[str] = field(default_factory=list[str])
    record: list[str | None] = field(default_factory=list["str | None"])
    size: int = 0

    def add(self, line: int, content: str, record: str | None) -> None:
        """Take one record in."""
        self.line.append(line)
        self.content.append(content)
        self.record.append(record)
        self.size += len(content) + len(record or "")

    def to_batch(self, kind: Kind) -> Batch:
        """Give the batch."""
        columns: dict[str, Column] = {
            "ordinal": pa.array(range(1, len(self.line) + 1)),
            "line": pa.array(self.line),
            "content": pa.array(self.content, pa.string_view()),
            "record": pa.array(self.record, pa.string()),
        }
        return Batch(kind, columns, len(self.line))


def batches_of_lines(kind: Kind, path: Path, start: LineStart = BEGINNING) -> Iterator[Batch]:
    """Go through a file whose lines are canonical records, from a place in it."""
    for block in lines.read_blocks(path, start):
        if isinstance(block, Unreadable):
            yield from batches_of_pieces(kind, [block])
        elif (columns := _columns(block)) is not None:
            yield Batch(kind, columns, len(columns["line"]))
        else:
            yield from batches_of_pieces(kind, lines.split_block(block))


def batches_of_pieces(kind: Kind, pieces: Iterable[Line | Unreadable]) -> Iterator[Batch]:
    """Make batches of canonical records, line by line."""
    records, unreadable = _Records(), list[Unreadable]()
    for piece in pieces:
        if isinstance(piece, Unreadable):
            unreadable.append(piece)
        else:
            records.add(piece.number, piece.text, None)
        if records.size >= BATCH_CHARACTERS:
            yield records.to_batch(kind)
            records = _Records()
    if records.line:
        yield records.to_batch(kind)
    if unreadable:
        yield Batch(kind, {}, 0, unreadable)


def batches_of_records(
    found: Iterable[ParsedRecord | RejectedRecord | Unreadable],
) -> Iterator[Batch]:
    """Make batches of what a source read, of interactions and of feedback apart."""
    waiting: dict[Kind, _Records] = {"interactions": _Records(), "feedback": _Records()}
    unreadable: list[Unreadable] = []
    for one in map(_batch_line, found):
        if isinstance(one, Unreadable):
            unreadable.append(one)
            if len(unreadable) >= MOST_UNREADABLE:
                yield Batch("interactions", {}, 0, unreadable)
                unreadable = []
            continue
        kind, place, content, record = one
        waiting[kind].add(place, content, record)
        if waiting[kind].size >= BATCH_CHARACTERS:
            yield waiting[kind].to_batch(kind)
            waiting[kind] = _Records()
    for kind, records in waiting.items():
        if records.line:
            yield records.to_batch(kind)
    if unreadable:
        yield Batch("interactions", {}, 0, unreadable)


def _batch_line(
    one: ParsedRecord | RejectedRecord | Unreadable,
) -> tuple[Kind, int, str, str | None] | Unreadable:
    """Write a record as its columns: place, what stood there and, where it differs, the record."""
    if isinstance(one, Unreadable):
        return one
    place, text = one.row.place, one.row.text
    if isinstance(one, RejectedRecord):
        return Unreadable(place, text.encode(), one.reason)
    if one.record is one.row.value:
        return one.kind, place, text, None
    try:
        return one.kind, place, text, json.dumps(one.record)
    except RecursionError:
        return Unreadable(place, text.encode(), "the record is nested too deeply to be written")


def _columns(block: Block) -> Mapping[str, Column] | None:
    """Give the lines of a block as columns; ``None`` if one of them has to be looked at alone."""
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
    """Make an Arrow string column of slices of the block.

    A view is 16 bytes: the length, the first four bytes, the number of the buffer and the place in
    it (Arrow columnar format, "Variable-size Binary View Layout").
    """
    content = block.content
    views = np.zeros((len(starts), 4), np.int32)
    views[:, 0] = lengths
    views.view(np.uint8)[:, 4:8] = content[starts[:, None] + np.arange(4)]
    views[:, 3] = starts
    buffers = [None, pa.py_buffer(views), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.string_view(), len(starts), buffers)


TOLERANCE = timedelta(days=1)
"""How far ahead of ours the clock of an application may be."""

CHECKED_ROWS = 500
"""Of each batch at least, for fields that its source has not shown before: looking costs a parse.
All of a small one, so a field that only few rows of a long log have may be missed."""

READERS = 2
"""Batches that are read at a time. What stores them takes in a whole row group, then compresses it:
while it waits for the rows, one reader would keep one processor busy."""

READ_TOGETHER = 256
"""Records that are parsed at a time: what becomes of these stays in a processor's cache."""


@dataclass(frozen=True, slots=True)
class RecordOrigin:
    """Where records come from: a file of that digest, read by a source with its defaults."""

    path: str
    digest: str
    source: str
    defaults: Defaults
    now: datetime


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """A batch and what its records say, whether that is new or not.

    ``found`` has a row per record, in their order; it is ``None`` if there is no record.
    """

    batch: Batch
    found: ArrowTable | None
    refused: Sequence[Unreadable]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class ValidatedBatch:
    """A batch and what was found in it.

    ``records`` were not refused. ``rows`` has a row per record, with ``content``, ``record`` and
    what the columns of ``raw`` are filled with; those to be stored are ``is_fresh``. It is ``None``
    if none of them is.
    """

    kind: Kind
    records: int
    rows: ArrowTable | None
    refused: Sequence[Unreadable]
    fields: frozenset[str]


class BatchValidator:
    """Judges batches for one transaction, whose rows it remembers: nobody sees them before."""

    def __init__(self, beside: Connection, readers: Sequence[Connection]) -> None:
        self._con = beside
        self._readers: SimpleQueue[Connection] = SimpleQueue()
        for reader in readers:
            self._readers.put(reader)
        beside.execute(
            "create temporary table passed"
            " (kind text, id text, timestamp timestamptz, content_hash ubigint)"
        )

    def read(self, now: datetime, batch: Batch) -> ParsedBatch:
        """Say what a batch holds that came at that time; threads may ask at the same time."""
        if not batch.rows:
            return ParsedBatch(batch, None, batch.unreadable, frozenset())
        con = self._readers.get()
        try:
            return _read(con, now, batch)
        finally:
            self._readers.put(con)

    def judge(self, reading: ParsedBatch) -> ValidatedBatch:
        """Say what of a batch is new: nothing in the batches before, in whose order to ask."""
        batch, found, refused = reading.batch, reading.found, reading.refused
        rows = None if found is None else self._rows(reading, found)
        records = batch.rows - (len(refused) - len(batch.unreadable))
        return ValidatedBatch(batch.kind, records, rows, refused, reading.fields)

    def _rows(self, reading: ParsedBatch, found: ArrowTable) -> ArrowTable | None:
        is_fresh = self._is_fresh(reading.batch, found)
        if not is_fresh.any():
            return None
        found = found.append_column("is_fresh", pa.array(is_fresh))
        for name in ("content", "record"):
            column = pa.chunked_array([reading.batch.columns[name]])
            found = found.append_column(name, column)
        return found

    def _is_fresh(self, batch: Batch, found: ArrowTable) -> NDArray[np.bool_]:
        """Tell of each record whether it is to be stored, and remember those that are."""
        is_fresh = np.zeros(batch.rows, np.bool_)
        times = pc.call_function("min_max", [found.column("timestamp")]).as_py()
        if times["min"] is None:
            return is_fresh
        within = {"earliest": times["min"], "latest": times["max"]}
        with warehouse.present(self._con, "found", found):
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
    """Give a judge for a transaction of ``con`` that is about to begin or has just begun."""
    with ExitStack() as open_ones:
        beside, *readers = (
            open_ones.enter_context(warehouse.beside(con)) for _ in range(1 + READERS)
        )
        yield BatchValidator(beside, readers)


def _read(con: Connection, now: datetime, batch: Batch) -> ParsedBatch:
    latest_seconds = (now + TOLERANCE).timestamp()
    with warehouse.present(con, "lines", batch.columns, READ_TOGETHER):
        found = warehouse.table(con, f"temp/{batch.kind}", latest_seconds=latest_seconds)
        step = max(1, batch.rows // CHECKED_ROWS)
        shapes = warehouse.select(con, "temp/shapes", step=step)
        if batch.kind == "interactions":
            found = found.append_column("objection", _objections(con, batch, found, latest_seconds))
    refused = _refused(batch, found)
    return ParsedBatch(batch, found, [*refused, *batch.unreadable], _fields(shapes))


def _objections(con: Connection, batch: Batch, found: ArrowTable, latest_seconds: float) -> object:
    """Give a column of what there is to object to each interaction, null where nothing is."""
    is_plain = np.asarray(found.column("is_plain"))
    if is_plain.all():
        return pa.nulls(len(is_plain), pa.string())
    odd = np.flatnonzero(~is_plain).tolist()
    # Handed over as plain strings: DuckDB 1.5 has Arrow filter what it reads, and Arrow can't
    # filter views of strings.
    written = {
        "ordinal": pa.array([place + 1 for place in odd]),
        "written": pa.array([_written(batch, place) for place in odd], pa.large_string()),
    }
    with warehouse.present(con, "found", found), warehouse.present(con, "odd_lines", written):
        model = "temp/refused_interactions"
        return warehouse.table(con, model, latest_seconds=latest_seconds).column("objection")


def _written(batch: Batch, place: int) -> str:
    """Return the canonical JSON text of a record; it is the line itself where that is canonical."""
    record, content = (pa.chunked_array([batch.columns[name]]) for name in ("record", "content"))
    return str(record[place].as_py() or content[place].as_py())


def _fields(shapes: Sequence[warehouse.Row]) -> frozenset[str]:
    """Name the fields of the payload, and those of its request and response."""
    fields: set[str] = set()
    for shape in shapes:
        keys = cast("Sequence[Sequence[str] | None]", shape["shape"] or ())
        for within, names in zip(("", "request.", "response."), keys, strict=False):
            fields.update(f"{within}{name}" for name in names or ())
    return frozenset(fields)


def _refused(batch: Batch, found: ArrowTable) -> list[Unreadable]:
    """Give the records that DuckDB objected to, with what stood there."""
    objections = found.column("objection")
    if objections.null_count == batch.rows:
        return []
    content = pa.chunked_array([batch.columns["content"]])
    reasons = zip(found.column("line").to_pylist(), objections.to_pylist(), strict=True)
    return [
        Unreadable(line, content[place].as_py().encode(), reason)
        for place, (line, reason) in enumerate(reasons)
        if reason is not None
    ]
