"""Read the rows of Parquet files as JSON objects."""

import base64
import json
import math
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.collect.lines import LONGEST, MAX_KEPT, Line, Unreadable
from components.collect.sources import fields
from components.schema import Json

ROWS = 1024
BATCH_BYTES = 16 * 2**20
OPENINGS = ("{", "[")
TEXTS = ("NONE", "STRING")  # Parquet's logical types of bytes that Arrow can read as dictionaries

CELL_ERRORS = (ValueError, OverflowError, LookupError, NotImplementedError)
"""What Arrow raises for a cell that Python has no value for: a time beyond the year 9999, an
unknown time zone, text that is not UTF-8."""


def read_parquet(path: Path) -> Iterator[Line | Unreadable]:
    """Yield the rows of a Parquet file as JSON objects, numbered from 1.

    Text cells that hold a JSON object or array are parsed: many tables store nested values as text.
    """
    number = 0
    try:
        for piece in _parquet_pieces(path):
            if isinstance(piece, str):
                number += 1
                yield Unreadable(number, b"", piece)
                continue
            for row in _batch_rows(piece, number):
                number += 1
                yield row if isinstance(row, Unreadable) else _row_line(number, row)
    except (pa.ArrowException, OSError) as error:
        with path.open("rb") as file:
            content = file.read(MAX_KEPT) if number == 0 else b""
        yield Unreadable(number + 1, content, f"the Parquet file is damaged from here on: {error}")


def _parquet_pieces(path: Path) -> Iterator[Any]:
    """Yield a file's rows in batches of about ``BATCH_BYTES``; for a longer one why it is left out.

    A text that is stored once and in many rows is read as Arrow's dictionary. Plain Arrow would
    have it once a row, so that some megabytes of a file could fill the memory.
    """
    file = pq.ParquetFile(path)
    metadata, schema = file.metadata, file.schema_arrow
    coded = [
        column.path
        for column in map(file.schema.column, range(metadata.num_columns))
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type in TEXTS
    ]
    file = pq.ParquetFile(path, read_dictionary=coded, metadata=metadata)
    for batch in file.iter_batches(_rows_at_once(metadata)):
        columns = (_text_bytes(column).tolist() for column in batch.columns)
        sizes = [sum(cells) for cells in zip(*columns, strict=True)]
        first, size = 0, 0
        for row, length in enumerate(sizes):
            if row > first and size + length > BATCH_BYTES:
                yield _decoded(batch.slice(first, row - first), schema)
                first, size = row, 0
            if length > LONGEST:
                yield f"the row has {length} bytes, expected at most {LONGEST}; they are not kept"
                first, size = row + 1, 0
            else:
                size += length
        if first < batch.num_rows:
            yield _decoded(batch.slice(first), schema)


def _decoded(batch: Any, schema: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    try:
        return batch.cast(schema)
    except pa.ArrowNotImplementedError:  # of views; Python reads dictionaries too, if slower
        return batch


def _text_bytes(cells: Any) -> Any:  # noqa: ANN401 - as above
    """Return the bytes of each cell's texts; those that a dictionary has once count each time."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        lengths = np.append(_text_bytes(cells.dictionary), 0)  # the last is a missing cell's
        return lengths[cells.indices.fill_null(-1).to_numpy()]
    if pa.types.is_struct(kind):
        fields = (_text_bytes(field) for field in cells.flatten())
        return sum(fields, np.zeros(len(cells), np.int64))
    if pa.types.is_nested(kind):
        if not (pa.types.is_list(kind) or pa.types.is_map(kind)):
            cells = cells.cast(pa.large_list(kind.value_type))
        offsets = cells.offsets.to_numpy()
        elements = np.diff(offsets)
        # Stored in runs, an element takes next to nothing of the file; in JSON a byte or more.
        if pa.types.is_primitive(cells.values.type) or elements.max(initial=0) > LONGEST:
            return elements
        ends = np.append(0, np.cumsum(_text_bytes(cells.values)))
        return np.diff(ends[offsets])
    if kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return pc.call_function("binary_length", [cells]).fill_null(0).to_numpy().astype(np.int64)
    return np.zeros(len(cells), np.int64)


def _rows_at_once(metadata: Any) -> int:  # noqa: ANN401 - as above
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    largest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(ROWS, BATCH_BYTES // max(1, largest)))


def _batch_rows(batch: Any, before: int) -> Iterator[dict[str, object] | Unreadable]:  # noqa: ANN401 - as above
    names: list[str] = batch.schema.names
    is_ambiguous = len({*names}) < len(names)
    # Of columns with one name, a row has the last one's cell alone.
    unique = batch.rename_columns([*map(str, range(len(names)))]) if is_ambiguous else batch
    try:
        rows = unique.to_pylist(maps_as_pydicts="lossy")
    except CELL_ERRORS as error:
        if batch.num_rows > 1:
            for index in range(batch.num_rows):
                yield from _batch_rows(batch.slice(index, 1), before + index)
            return
        yield _unreadable(batch, before + 1, f"the row has a cell that can't be read: {error}")
        return
    if not is_ambiguous:
        yield from rows
        return
    for index, row in enumerate(rows):
        cells, differing = _merge_columns(names, row.values())
        if differing is None:
            yield cells
        else:
            reason = f"the column {differing} is there twice, with different cells"
            yield _unreadable(batch.slice(index, 1), before + index + 1, reason)


def _merge_columns(
    names: Iterable[str], values: Iterable[object]
) -> tuple[dict[str, object], str | None]:
    """Return the cells by name, and the name of a column with two different ones."""
    cells: dict[str, object] = {}
    for name, value in zip(names, values, strict=True):
        known = cells.setdefault(name, value)
        if known is None:
            cells[name] = value
        elif value is not None and value != known:
            return cells, name
    return cells, None


def _unreadable(row: Any, number: int, reason: str) -> Unreadable:  # noqa: ANN401 - as above
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, row.schema) as stream:
        stream.write_batch(row)
    return Unreadable(number, content.getvalue().to_pybytes(), reason)


def _row_line(number: int, row: dict[str, object]) -> Line:
    cells = {name: _nested(_plain(cell)) for name, cell in row.items()}
    value = {name: cell for name, cell in cells.items() if cell is not None}
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON in a cell may spell
        text = json.dumps(value)
    return Line(number, text)


def _plain(cell: object) -> Json:
    match cell:
        case dict():
            # A struct has every field of its column, as nulls where a row doesn't use them: drop
            # these, except ``content``, which is null where an assistant only calls tools.
            fields = {str(name): _plain(field) for name, field in cell.items()}
            return {n: field for n, field in fields.items() if field is not None or n == "content"}
        case list():
            return [_plain(element) for element in cell]
        case float():
            return cell if math.isfinite(cell) else None
        case None | bool() | int() | str():
            return cell
        case datetime() | date() | time():
            return cell.isoformat()
        case Decimal():
            # One without places may be an id, whose digits a float would round.
            return int(cell) if cell.as_tuple().exponent == 0 else float(cell)
        case bytes():
            try:
                return cell.decode()
            except UnicodeDecodeError:
                return base64.b64encode(cell).decode()
        case _:
            return str(cell)


def _nested(cell: Json) -> Json:
    if not isinstance(cell, str) or not cell.startswith(OPENINGS):
        return cell
    try:
        value: Json = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return cell if fields.is_deep(value) else value
