"""Read JSON arrays and Parquet files as JSON objects."""

import base64
import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.collect.lines import LONGEST, MOST_KEPT, Line, UnpackedFile, Unreadable
from components.collect.sources import fields
from components.schema import Json

PIECE = 2**20
BLANK = " \t\r\n"
ROWS = 1024
BATCH_BYTES = 16 * PIECE
OPENINGS = ("{", "[")
TEXTS = ("NONE", "STRING")  # Parquet's logical types of bytes that Arrow can read as dictionaries

CELL_ERRORS = (ValueError, OverflowError, LookupError, NotImplementedError)
"""What Arrow raises for a cell that Python has no value for: a time beyond the year 9999, an
unknown time zone, text that is not UTF-8."""

_DECODER = json.JSONDecoder()

_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{}\]]|,(?=[ \t\r\n]*\{)', re.DOTALL)
"""Matches texts, brackets, and the commas before an object."""


def read_array(path: Path) -> Iterator[Line | Unreadable]:
    """Yield the elements of a file that is one array, numbered from 1.

    An element that can't be read is unreadable by itself where its brackets show its end; otherwise
    the rest is: the next element's start is unknown.
    """
    with path.open("rb") as file:
        yield from _elements(_Text(UnpackedFile(file)))


def read_entries(text: str, key: str) -> Iterator[Line | Unreadable]:
    """Yield the elements of the first array under ``key`` of the JSON object ``text``."""
    at = text.index("{") + 1
    while True:
        name, at = _DECODER.raw_decode(text, _after_blank(text, at, ","))
        at = _after_blank(text, at, ":")
        if name == key and text[at] == "[":
            yield from _elements(_Text(None, text[at:]), stands_alone=False)
            return
        _, at = _DECODER.raw_decode(text, at)


def _after_blank(text: str, at: int, mark: str) -> int:
    while text[at] in BLANK or text[at] == mark:
        at += 1
    return at


class _Text:
    """Text that is read as needed."""

    def __init__(self, stream: UnpackedFile | None, text: str = "") -> None:
        self.at = 0
        self._stream = stream
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")

    def skip_blank(self) -> str:
        """Move to the next character that is not blank and return it; "" at the end."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in BLANK:
                self.at += 1
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def value(self) -> str:
        """Return the JSON value here and move behind it; raise ``ValueError`` if there is none."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self.at)
            except (ValueError, RecursionError) as error:
                if len(self._text) - self.at > LONGEST or not self._more():
                    raise ValueError(f"{error} of element") from error
                continue
            if end < len(self._text) or not self._more():  # a number may have further digits
                element = self._text[self.at : end]
                self.at = end
                return element

    def damaged_value(self) -> str | None:
        """Return the text of a value that isn't JSON and move behind it; ``None`` if it is endless.

        Its brackets show its end: a comma and an object, or the end of the array, follow it.
        """
        while (end := self._end_of_value()) is None:
            if len(self._text) - self.at > MOST_KEPT or not self._more():
                return None
        value = self._text[self.at : end]
        self.at = end
        return value

    def _end_of_value(self) -> int | None:
        depth = 0
        for match in _STRUCTURE.finditer(self._text, self.at):
            mark = match.group()
            if depth == 0 and mark in (",", "]"):
                return match.start()
            depth += (mark in OPENINGS) - (mark in ("]", "}"))
            if depth < 0:
                return None
        return None

    def rest(self) -> bytes:
        """Return the remaining text, up to ``MOST_KEPT`` bytes."""
        while len(self._text) - self.at < MOST_KEPT and self._more():
            pass
        return _bytes(self._text[self.at :])[:MOST_KEPT]

    def _more(self) -> bool:
        if self._stream is None:
            return False
        self._text = self._text[self.at :]
        self.at = 0
        # At least double the text, so that a long value is parsed only a few times.
        piece = self._stream.read(max(PIECE, len(self._text)))
        self._text += self._decoder.decode(bytes(piece), final=not piece)
        return bool(piece)


def _elements(text: _Text, *, stands_alone: bool = True) -> Iterator[Line | Unreadable]:
    text.skip_blank()
    text.at += 1
    number = 0
    while (character := text.skip_blank()) not in ("]", ""):
        if character == "," and number:
            text.at += 1
            text.skip_blank()
        number += 1
        try:
            yield _element(number, text.value())
        except ValueError as error:
            damaged = text.damaged_value()
            if damaged is None:
                reason = f"the array is damaged from here on: {error}"
                yield Unreadable(number, text.rest(), reason)
                return
            yield Unreadable(number, _bytes(damaged), f"the element is not JSON: {error}")
    if character == "":
        yield Unreadable(number + 1, b"", "the array ends without its ]")
        return
    text.at += 1
    if stands_alone and text.skip_blank():
        yield Unreadable(number + 1, text.rest(), "text follows the array; expected its end")


def _element(number: int, text: str) -> Line | Unreadable:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        content = _bytes(text)
        return Unreadable(
            number, content, f"the element is not UTF-8: byte 0x{ord(text[error.start]) & 0xFF:02x}"
        )
    return Line(number, text)


def _bytes(text: str) -> bytes:
    """Return the bytes that were decoded, those that are not UTF-8 too."""
    return text.encode(errors="surrogateescape")


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
            content = file.read(MOST_KEPT) if number == 0 else b""
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
                first = row + 1
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
        ends = np.append(0, np.cumsum(_text_bytes(cells.values)))
        return np.diff(ends[cells.offsets.to_numpy()])
    if kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return pc.call_function("binary_length", [cells]).fill_null(0).to_numpy().astype(np.int64)
    return np.zeros(len(cells), np.int64)


def _rows_at_once(metadata: Any) -> int:  # noqa: ANN401 - as above
    """Return the rows of a batch: fewer where they are large."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    largest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(ROWS, BATCH_BYTES // max(1, largest)))


def _batch_rows(batch: Any, before: int) -> Iterator[dict[str, object] | Unreadable]:  # noqa: ANN401 - as above
    """Yield the rows of a batch; one with a cell that Python can't hold as Arrow's IPC stream."""
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
