"""Read JSON arrays and Parquet files as JSON objects."""

import base64
import codecs
import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.collect.lines import LONGEST, MOST_KEPT, Line, UnpackedFile, Unreadable
from components.schema import Json

PIECE = 2**20
BLANK = " \t\r\n"
ROWS = 1024
OPENINGS = ("{", "[")

_DECODER = json.JSONDecoder()


def read_array(path: Path) -> Iterator[Line | Unreadable]:
    """Yield the elements of a file that is one array, numbered from 1.

    The rest after a damaged place is unreadable: the next element's start is unknown.
    """
    with path.open("rb") as file:
        yield from _elements(_Text(UnpackedFile(file)))


def read_entries(text: str, key: str) -> Iterator[Line | Unreadable]:
    """Yield the elements of the array under ``key`` of the JSON object ``text``."""
    at = 0
    while True:
        at = text.index(f'"{key}"', at) + len(key) + 2
        begin = at + len(text[at:]) - len(text[at:].lstrip(BLANK + ":"))
        if text[begin] == "[":
            yield from _elements(_Text(None, text[begin:]), stands_alone=False)
            return


class _Text:
    """Text that is read as needed."""

    def __init__(self, stream: UnpackedFile | None, text: str = "") -> None:
        self.at = 0
        self._stream = stream
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()

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

    def rest(self) -> bytes:
        """Return the remaining text, up to ``MOST_KEPT`` bytes."""
        while len(self._text) - self.at < MOST_KEPT and self._more():
            pass
        return self._text[self.at :].encode()[:MOST_KEPT]

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
    try:
        while (character := text.skip_blank()) not in ("]", ""):
            if character == "," and number:
                text.at += 1
                text.skip_blank()
            number += 1
            yield Line(number, text.value())
        if character == "":
            yield Unreadable(number + 1, b"", "the array ends without its ]")
            return
        text.at += 1
        if stands_alone and text.skip_blank():
            yield Unreadable(number + 1, text.rest(), "text follows the array; expected its end")
    except ValueError as error:
        rest = b"" if isinstance(error, UnicodeDecodeError) else text.rest()
        yield Unreadable(number, rest, f"the array is damaged from here on: {error}")


def read_parquet(path: Path) -> Iterator[Line | Unreadable]:
    """Yield the rows of a Parquet file as JSON objects, numbered from 1.

    Text cells that hold a JSON object or array are parsed: many tables store nested values as text.
    """
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(ROWS):
            for row in batch.to_pylist(maps_as_pydicts="lossy"):
                number += 1
                cells = {name: _nested(_plain(cell)) for name, cell in row.items()}
                row_value = {name: cell for name, cell in cells.items() if cell is not None}
                yield Line(number, json.dumps(row_value, ensure_ascii=False))
    except (pa.ArrowInvalid, OSError) as error:
        with path.open("rb") as file:
            content = file.read(MOST_KEPT) if number == 0 else b""
        yield Unreadable(number + 1, content, f"the Parquet file is damaged from here on: {error}")


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
            return float(cell)
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
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell
