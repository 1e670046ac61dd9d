"""Batches of records as columns that DuckDB can read.

A block of ordinary lines becomes a column without touching a line in Python: the strings are views
into the block's bytes. Any other block is read line by line.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.collect import lines
from components.collect.lines import BEGINNING, Block, Line, Start, Unreadable
from components.collect.record import Found, Kind, Refused

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


def of_lines(kind: Kind, path: Path, start: Start = BEGINNING) -> Iterator[Batch]:
    """Go through a file whose lines are canonical records, from a place in it."""
    for block in lines.blocks(path, start):
        if isinstance(block, Unreadable):
            yield from of_pieces(kind, [block])
        elif (columns := _columns(block)) is not None:
            yield Batch(kind, columns, len(columns["line"]))
        else:
            yield from of_pieces(kind, lines.split(block))


def of_pieces(kind: Kind, pieces: Iterable[Line | Unreadable]) -> Iterator[Batch]:
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


def of_found(found: Iterable[Found | Refused | Unreadable]) -> Iterator[Batch]:
    """Make batches of what a source read, of interactions and of feedback apart."""
    waiting: dict[Kind, _Records] = {"interactions": _Records(), "feedback": _Records()}
    unreadable: list[Unreadable] = []
    for one in map(_written, found):
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


def _written(
    one: Found | Refused | Unreadable,
) -> tuple[Kind, int, str, str | None] | Unreadable:
    """Write a record as its columns: place, what stood there and, where it differs, the record."""
    if isinstance(one, Unreadable):
        return one
    place, text = one.row.place, one.row.text
    if isinstance(one, Refused):
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
