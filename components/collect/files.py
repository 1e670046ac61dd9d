"""Find files (also ``s3://``), read records from any container format, detect their source."""

import glob
import json
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from components.collect import formats, lines
from components.collect.lines import BEGINNING, Line, LineStart, UnpackedFile, Unreadable
from components.collect.source import Kind, Source, SourceRow
from components.collect.sources import (
    feedback,
    fivekey,
    langfuse,
    mlflow_traces,
    openai_finetuning,
    openai_logs,
    openpipe,
    otlp,
    otlp_encoding,
    sharegpt,
    tensorzero,
)
from components.schema import Json

REMOTE = "://"


class UnreachableError(OSError):
    """A remote place can't be listed or read."""


def matching_files(pattern: str) -> list[str]:
    """List the files of a path, a folder (with those below it) or a glob, sorted.

    Raises:
        UnreachableError: A remote place can't be reached.
        ImportError: The package that reaches it (``s3fs`` for ``s3://``) is not installed.
    """
    if REMOTE in pattern:
        return _remote(pattern)
    if Path(pattern).is_dir():
        return sorted(str(path) for path in Path(pattern).rglob("*") if _is_readable(path))
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the pattern may be absolute
    return sorted(name for name in names if Path(name).is_file())


@contextmanager
def local_copy(place: str) -> Generator[Path]:
    """Give a file as one of this machine; a remote one is copied for as long as the block runs."""
    if REMOTE not in place:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="flywheel-") as folder:
        copy = Path(folder) / place.rpartition("/")[2]
        with _connect(place):
            from fsspec.core import url_to_fs  # noqa: PLC0415 - few have remote files

            system, path = url_to_fs(place)
            system.get_file(path, str(copy))
        yield copy


@contextmanager
def _connect(place: str) -> Generator[None]:
    """Say which place it was; each file system raises what its own library does."""
    try:
        yield
    except ImportError:  # says what to install
        raise
    except Exception as error:  # botocore's are of no common kind, but for this one
        said = str(error) or type(error).__name__
        raise UnreachableError(f"reaching {place}: {said}") from error


def _is_readable(path: Path) -> bool:
    """Leave out folders, and what is hidden: editors and uploads name unfinished files so."""
    return path.is_file() and not path.name.startswith(".")


def _remote(pattern: str) -> list[str]:
    with _connect(pattern):
        from fsspec.core import url_to_fs  # noqa: PLC0415 - as above

        system, path = url_to_fs(pattern)
        system.invalidate_cache()  # listings are kept for as long as the process lives
        if system.isdir(path):
            found = system.find(path)
        else:
            found = system.glob(path) if glob.has_magic(path) else [path]
    return sorted(system.unstrip_protocol(name) for name in found)


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


def detect_form(path: Path) -> Form:
    """Tell by its first bytes what a file is."""
    with path.open("rb") as file:
        head = bytes(UnpackedFile(file).after(bytearray(), HEAD))
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    text = head.removeprefix(lines.BYTE_ORDER_MARK).lstrip()
    if any(byte < TEXT_BEGINS_AT for byte in head) and _begins_with_request(path):
        return "protobuf"
    if text.startswith(b"["):
        return "array"
    may_be_one = text.startswith(b"{") and _is_first_of_one(text)
    return "document" if may_be_one and _document(path) is not None else "lines"


def read_pieces(
    path: Path, form: Form, start: LineStart = BEGINNING
) -> Iterator[Line | Unreadable]:
    """Go through the records of a file as JSON text, numbered from 1; of lines from ``start``."""
    match form:
        case "lines":
            yield from lines.read_lines(path, start)
        case "array":
            yield from formats.read_array(path)
        case "parquet":
            yield from formats.read_parquet(path)
        case "document":
            yield Line(1, _document(path) or "")
        case "protobuf":
            yield from _requests(path)


def read_rows(
    pieces: Iterator[Line | Unreadable], unreadable: list[Unreadable] | None = None
) -> Iterator[SourceRow]:
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
            yield from read_rows(formats.read_entries(piece.text, "data"), refused)
        else:
            yield SourceRow(piece.number, piece.text, value)


def first_rows(path: Path, form: Form, count: int) -> list[SourceRow]:
    """Read the first records of a file."""
    return list(islice(read_rows(read_pieces(path, form)), count))


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
        return next(otlp_encoding.decode_file(_whole(path)), None) is not None
    except ValueError:
        return False


def _requests(path: Path) -> Iterator[Line | Unreadable]:
    """Go through the OTLP requests of a protobuf file; where it is damaged, it ends."""
    content, number = _whole(path), 0
    try:
        for number, request in enumerate(otlp_encoding.decode_file(content), start=1):
            yield Line(number, json.dumps(request, ensure_ascii=False))
    except ValueError as error:
        yield Unreadable(number + 1, content[: lines.MOST_KEPT], str(error))


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        stream = UnpackedFile(file)
        content = stream.after(bytearray(), LARGEST)
    if stream.damage is not None or len(content) == LARGEST:
        raise ValueError(f"{path} is damaged, or has more than {LARGEST} bytes")
    return bytes(content)


SOURCES: tuple[Source, ...] = (
    fivekey,
    feedback,
    otlp,
    mlflow_traces,
    langfuse,
    tensorzero,
    openpipe,
    openai_logs,
    openai_finetuning,
    sharegpt,
)
"""All there are; where two claim equally many records, the first of them has it."""

CANONICAL: dict[str, Kind] = {fivekey.NAME: "interactions", feedback.NAME: "feedback"}
"""Sources whose records are canonical as they stand, and the one kind that each holds."""

JOINING = frozenset({otlp.NAME})
"""Sources that join rows of one file, so that it is always read whole."""

SAMPLED_ROWS = 20


class UnknownSourceError(ValueError):
    """A source that does not exist was named."""


def source_named(name: str) -> Source:
    """Give the source of that name.

    Raises:
        UnknownSourceError: There is none.
    """
    sources = {source.NAME: source for source in SOURCES}
    if name not in sources:
        known = ", ".join(sources)
        raise UnknownSourceError(f"no source is called {name!r}; there are {known}")
    return sources[name]


def detect_source(values: Iterable[dict[str, Json]]) -> Source | None:
    """Give the source that claims most of the records; ``None`` if none claims any."""
    looked_at = list(values)
    claims = {source: sum(map(source.claims, looked_at)) for source in SOURCES}
    best = max(SOURCES, key=lambda source: claims[source])  # the first of equal ones
    return best if claims[best] else None
