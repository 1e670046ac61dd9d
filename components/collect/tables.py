"""Read the rows of a Parquet file as JSON objects."""

import base64
import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.collect.lines import MOST_KEPT, Line, Unreadable
from components.schema import Json

ROWS = 1024
OPENINGS = ("{", "[")


def read(path: Path) -> Iterator[Line | Unreadable]:
    """Go through the rows of a Parquet file, each as the JSON object that it stands for.

    Text that is a JSON object or array becomes one: many tables keep nested values so.
    """
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(ROWS):
            for row in batch.to_pylist(maps_as_pydicts="lossy"):
                number += 1
                cells = {name: _nested(_plain(cell)) for name, cell in row.items()}
                said = {name: cell for name, cell in cells.items() if cell is not None}
                yield Line(number, json.dumps(said, ensure_ascii=False))
    except (pa.ArrowInvalid, OSError) as error:
        with path.open("rb") as file:
            content = file.read(MOST_KEPT) if number == 0 else b""
        yield Unreadable(number + 1, content, f"the Parquet file is damaged from here on: {error}")


def _plain(cell: object) -> Json:
    """Write an Arrow value as JSON.

    A struct has every field of its column, those that a row doesn't use as nulls: they are left
    out, but for ``content``, which is null where an assistant only calls tools.
    """
    match cell:
        case dict():
            fields = {str(name): _plain(field) for name, field in cell.items()}
            return {n: field for n, field in fields.items() if field is not None or n == "content"}
        case list():
            return [_plain(one) for one in cell]
        case float():
            return cell if math.isfinite(cell) else None
        case None | bool() | int() | str():
            return cell
        case datetime() | date() | time():
            return cell.isoformat()
        case Decimal():
            return float(cell)
        case bytes():
            return _text(cell)
        case _:
            return str(cell)


def _nested(cell: Json) -> Json:
    if not isinstance(cell, str) or not cell.startswith(OPENINGS):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return base64.b64encode(content).decode()
