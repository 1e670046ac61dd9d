"""Open a file whatever holds its records: lines, a JSON array or document, Parquet, protobuf."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from components.collect import arrays, lines, tables
from components.collect.lines import BEGINNING, Line, Start, Unreadable
from components.collect.record import Row
from components.collect.sources import otlp_protobuf
from components.collect.unpacking import Unpacked
from components.schema import Json

Form: TypeAlias = Literal["lines", "array", "document", "parquet", "protobuf"]

HEAD = 64 * 2**10
LARGEST = 256 * 2**20
"""Bytes of the largest document or protobuf file that is read: it is held in memory whole."""

PARQUET_MAGIC = b"PAR1"
TEXT_BEGINS_AT = 9
"""No text holds bytes below the tabulator's; a protobuf message has them everywhere."""

_MAY_BE_PAGE = b'"data"'

KINDS: dict[type, str] = {
    str: "VARCHAR",
    bool: "BOOLEAN",
    int: "BIGINT",
    float: "DOUBLE",
    list: "ARRAY",
    type(None): "NULL",
}
"""Types of JSON values, called as DuckDB calls them."""


def form(path: Path) -> Form:
    """Tell by its first bytes what a file is."""
    with path.open("rb") as file:
        head = bytes(Unpacked(file).after(bytearray(), HEAD))
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    text = head.removeprefix(lines.BYTE_ORDER_MARK).lstrip()
    if any(byte < TEXT_BEGINS_AT for byte in head) and _begins_with_request(path):
        return "protobuf"
    if text.startswith(b"["):
        return "array"
    may_be_one = text.startswith(b"{") and _is_first_of_one(text)
    return "document" if may_be_one and _document(path) is not None else "lines"


def read(path: Path, form: Form, start: Start = BEGINNING) -> Iterator[Line | Unreadable]:
    """Go through the records of a file as JSON text, numbered from 1; of lines from ``start``."""
    match form:
        case "lines":
            yield from lines.read(path, start)
        case "array":
            yield from arrays.read(path)
        case "parquet":
            yield from tables.read(path)
        case "document":
            yield Line(1, _document(path) or "")
        case "protobuf":
            yield from _requests(path)


def rows(
    pieces: Iterator[Line | Unreadable], unreadable: list[Unreadable] | None = None
) -> Iterator[Row]:
    """Parse records; what is none is put into ``unreadable``. A page of an API gives its entries.

    Pages are ``{"data": [...]}`` with ``object: list`` (OpenAI) or ``meta`` (Langfuse) beside it.
    """
    refused: list[Unreadable] = [] if unreadable is None else unreadable
    for piece in pieces:
        if isinstance(piece, Unreadable):
            refused.append(piece)
            continue
        value, objection = _parsed(piece.text)
        if not isinstance(value, dict):
            refused.append(Unreadable(piece.number, piece.text.encode(), objection))
        elif _is_page(value):
            yield from rows(arrays.entries(piece.text, "data"), refused)
        else:
            yield Row(piece.number, piece.text, value)


def first(path: Path, form: Form, count: int) -> list[Row]:
    """Read the first records of a file."""
    return list(islice(rows(read(path, form)), count))


def _parsed(text: str) -> tuple[Json, str]:
    """Parse JSON; beside it, why it is no object if it is none."""
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        return None, f"the line is not JSON: {error}"
    return value, f"the line is a JSON {KINDS.get(type(value))}, wants an object"


def _is_page(value: dict[str, Json]) -> bool:
    is_listing = value.get("object") == "list" or isinstance(value.get("meta"), dict)
    return is_listing and isinstance(value.get("data"), list)


def _is_first_of_one(text: bytes) -> bool:
    """Tell whether an object goes on in the next line, or is a page of an API."""
    line = text.partition(b"\n")[0].rstrip()
    try:
        value: Json = json.loads(line)
    except json.JSONDecodeError as error:
        is_whole_line = len(line) < len(text)
        return error.pos >= len(error.doc) - 1 if is_whole_line else _MAY_BE_PAGE in line
    except (UnicodeDecodeError, RecursionError):
        return False
    return isinstance(value, dict) and _is_page(value)


def _document(path: Path) -> str | None:
    """Read a file that is one JSON object; ``None`` if it isn't."""
    try:
        text = _whole(path).decode("utf-8-sig")
        return text if isinstance(json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None


def _begins_with_request(path: Path) -> bool:
    """Tell whether a file holds OTLP requests in protobuf, or at least begins so."""
    try:
        return next(otlp_protobuf.decode(_whole(path)), None) is not None
    except ValueError:
        return False


def _requests(path: Path) -> Iterator[Line | Unreadable]:
    """Go through the OTLP requests of a protobuf file; where it is damaged, it ends."""
    content, number = _whole(path), 0
    try:
        for number, request in enumerate(otlp_protobuf.decode(content), start=1):
            yield Line(number, json.dumps(request, ensure_ascii=False))
    except ValueError as error:
        yield Unreadable(number + 1, content[: lines.MOST_KEPT], str(error))


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        stream = Unpacked(file)
        content = stream.after(bytearray(), LARGEST)
    if stream.damage is not None or len(content) == LARGEST:
        raise ValueError(f"{path} is damaged, or has more than {LARGEST} bytes")
    return bytes(content)
