"""Read records from any container format, and detect their source."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from components.collect import importers, json_arrays, lines, parquet_rows
from components.collect.field_map import PREFIX
from components.collect.lines import BEGINNING, Line, LineStart, Unreadable
from components.collect.source import Defaults, Kind, Source, SourceRecord, SourceRow
from components.collect.sources import feedback, fivekey, otlp_encoding
from components.schema import Json
from components.store.unpacked_file import UnpackedFile

Form: TypeAlias = Literal["lines", "array", "document", "parquet", "protobuf"]

HEAD = 64 * 2**10
LARGEST = 256 * 2**20  # maximum bytes of a document or protobuf file, which is held in memory whole
SAMPLED_ROWS = 20  # records by which a source is detected

PARQUET_MAGIC = b"PAR1"
TEXT_BEGINS_AT = 9  # the tab: text has no bytes below it, protobuf messages are full of them

_MAY_BE_PAGE = b'"data"'

KINDS: dict[type, str] = {
    str: "VARCHAR",
    bool: "BOOLEAN",
    int: "BIGINT",
    float: "DOUBLE",
    list: "ARRAY",
    type(None): "NULL",
}
"""JSON types by DuckDB's names."""

CANONICAL: dict[str, Kind] = {fivekey.NAME: "interactions", feedback.NAME: "feedback"}
"""Sources whose records are already canonical, and the kind of their records."""


def detect_form(path: Path) -> Form:
    """Return a file's container format, by its first bytes."""
    with path.open("rb") as file:
        head = bytes(UnpackedFile(file).read(HEAD))
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    text = head.removeprefix(lines.BYTE_ORDER_MARK).lstrip()
    if any(byte < TEXT_BEGINS_AT for byte in head) and _begins_with_request(path):
        return "protobuf"
    if text.startswith(b"["):
        return "lines" if _begins_with_other_line(text) else "array"
    is_document = text.startswith(b"{") and _may_be_document(text) and _document(path) is not None
    return "document" if is_document else "lines"


def read_pieces(
    path: Path, form: Form, start: LineStart = BEGINNING
) -> Iterator[Line | Unreadable]:
    """Yield a file's records as JSON text, numbered from 1; a file of lines from ``start`` on."""
    match form:
        case "lines":
            yield from lines.read_lines(path, start)
        case "array":
            yield from json_arrays.read_array(path)
        case "parquet":
            yield from parquet_rows.read_parquet(path)
        case "document":
            yield Line(1, _document(path) or "")
        case "protobuf":
            yield from _requests(path)


def read_rows(
    pieces: Iterator[Line | Unreadable], unreadable: list[Unreadable]
) -> Iterator[SourceRow]:
    """Parse records; append those that are not JSON objects to ``unreadable``.

    An API page yields its entries: ``{"data": [...]}`` with ``object: list`` (OpenAI) or ``meta``
    (Langfuse).
    """
    for piece in pieces:
        if isinstance(piece, Unreadable):
            unreadable.append(piece)
            continue
        try:
            value: Json = json.loads(piece.text)
            objection = f"the line is a JSON {KINDS.get(type(value))}, expected an object"
        except (ValueError, RecursionError) as error:
            value, objection = None, f"the line is not JSON: {error}"
        if not isinstance(value, dict):
            unreadable.append(Unreadable(piece.number, piece.text.encode(), objection))
        elif _is_page(value):
            yield from read_rows(json_arrays.read_entries(piece.text, "data"), unreadable)
        else:
            yield SourceRow(piece.number, piece.text, value)


def read_records(
    source: Source, pieces: Iterator[Line | Unreadable], defaults: Defaults
) -> Iterator[SourceRecord | Unreadable]:
    """Yield a source's records of a file, with what is unreadable among them."""
    unreadable: list[Unreadable] = []
    for record in source.read(read_rows(pieces, unreadable), defaults):
        yield record
        yield from unreadable
        unreadable.clear()
    yield from unreadable


def first_rows(path: Path, form: Form) -> list[SourceRow]:
    """Return the records at the beginning of a file, by which its source is detected."""
    rows: list[SourceRow] = []
    for piece in read_pieces(path, form):
        # Piece by piece: what is unreadable is not collected, a file may consist of nothing else.
        rows += islice(read_rows(iter([piece]), []), SAMPLED_ROWS - len(rows))
        if len(rows) == SAMPLED_ROWS:
            break
    return rows


def _is_page(value: dict[str, Json]) -> bool:
    is_listing = value.get("object") == "list" or isinstance(value.get("meta"), dict)
    return is_listing and isinstance(value.get("data"), list)


def _may_be_document(text: bytes) -> bool:
    """Return whether the first line's object continues on the next line, or is an API page."""
    line = text.partition(b"\n")[0].rstrip()
    try:
        value: Json = json.loads(line)
    except json.JSONDecodeError as error:
        is_whole_line = len(line) < len(text)
        return error.pos >= len(error.doc) - 1 if is_whole_line else _MAY_BE_PAGE in line
    except (ValueError, RecursionError):  # not UTF-8, too many digits, nested too deeply
        return False
    return isinstance(value, dict) and _is_page(value)


def _begins_with_other_line(text: bytes) -> bool:
    """Return whether lines of objects follow a first line that only begins like an array."""
    first, _, rest = text.partition(b"\n")
    try:
        json.loads(first)
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) - 1:  # an array that continues on the next line
            return False
    except (ValueError, RecursionError):
        return False
    return any(map(_is_object, rest.split(b"\n")))


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _document(path: Path) -> str | None:
    """Return the text of a file that is one JSON object; ``None`` if it isn't."""
    try:
        return object_text(_whole(path))
    except ValueError:
        return None


def object_text(content: bytes) -> str | None:
    """Return the text of bytes that are one JSON object; ``None`` if they aren't."""
    try:
        text = content.decode("utf-8-sig")
        return text if isinstance(json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None


def _begins_with_request(path: Path) -> bool:
    try:
        # An empty request is none: zeros, too, which a truncated log may begin with, would be one.
        return bool(next(otlp_encoding.decode_file(_whole(path)), None))
    except ValueError:
        return False


def _requests(path: Path) -> Iterator[Line | Unreadable]:
    """Yield the OTLP requests of a protobuf file, up to the first damage."""
    content, number = _whole(path), 0
    try:
        for number, request in enumerate(otlp_encoding.decode_file(content), start=1):
            yield Line(number, json.dumps(request, ensure_ascii=False))
    except ValueError as error:
        yield Unreadable(number + 1, content[: lines.MAX_KEPT], str(error))


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        stream = UnpackedFile(file)
        content = stream.read(LARGEST)
    if stream.damage is not None or len(content) == LARGEST:
        raise ValueError(f"{path} is damaged, or has more than {LARGEST} bytes")
    return bytes(content)


def source_named(name: str) -> Source:
    """Return the source with this name, which may be a map; or raise ``UnknownSourceError``."""
    importers.require_known(name)
    return importers.mapped(name) if name.startswith(PREFIX) else importers.imported(name)


def detect_source(values: Iterable[dict[str, Json]]) -> Source | None:
    """Return the source that claims the most records; ``None`` if no source claims any."""
    sample = list(values)
    claims = {name: sum(map(importers.imported(name).claims, sample)) for name in importers.MODULES}
    best = max(claims, key=claims.__getitem__)  # the first wins a tie
    return importers.imported(best) if claims[best] else None
