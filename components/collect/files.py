"""Find files (also ``s3://``), read records from any container format, detect their source."""

import errno
import glob
import json
import os
import re
import socket
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from components import validation_messages
from components.collect import json_arrays, lines, parquet_rows
from components.collect.field_map import FieldMap
from components.collect.lines import BEGINNING, Line, LineStart, Unreadable
from components.collect.source import Defaults, Kind, Source, SourceRecord, SourceRow
from components.collect.sources import (
    bedrock,
    braintrust,
    feedback,
    fields,
    fivekey,
    helicone,
    kong,
    langfuse,
    langsmith,
    litellm,
    mapped,
    mlflow_traces,
    openai_finetuning,
    openai_logs,
    openpipe,
    otlp,
    otlp_encoding,
    sharegpt,
    tensorzero,
    vertex,
    weave,
)
from components.collect.sources.mapped import Mapped
from components.schema import Json
from components.store import file_locks
from components.store.addresses import without_secrets
from components.store.unpacked_file import UnpackedFile

REMOTE = "://"

_RECURSIVE = re.compile(r"(?:(?<=/)|^)(?:\*\*(?:/+|$))+")  # "**" as a part of a path, or several

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

SOURCES: tuple[Source, ...] = (
    fivekey,
    feedback,
    otlp,
    mlflow_traces,
    langfuse,
    langsmith,
    litellm,
    tensorzero,
    openpipe,
    openai_logs,
    openai_finetuning,
    sharegpt,
    bedrock,
    vertex,
    helicone,
    braintrust,
    weave,
    kong,
)
"""All sources; the first wins when several claim equally many records."""

CANONICAL: dict[str, Kind] = {fivekey.NAME: "interactions", feedback.NAME: "feedback"}
"""Sources whose records are already canonical, and the kind of their records."""

JOINING = frozenset({otlp.NAME, weave.NAME})
"""Sources that join rows of one file, so the file is always read whole."""


class UnreachableError(OSError):
    """Raised when a remote path can't be listed or read, such as one of an unknown protocol."""


class UnreadableError(UnreachableError):
    """Raised when a remote path is gone, refused or answered by an error: others may be read."""


class AwayError(UnreadableError):
    """Raised when the server of a remote path doesn't answer: nor will it for its other paths."""


class UnknownSourceError(ValueError):
    """Raised when no source has the name."""


def matching_files(pattern: str) -> list[str]:
    """Return the sorted files of a path, a folder (recursively) or a glob.

    Raise ``ImportError`` if fsspec's package for a remote path is missing (``s3fs`` for ``s3://``).
    """
    if REMOTE in pattern:
        return _remote(pattern)[0]
    if Path(pattern).is_dir():
        return sorted(map(str, _files_in(Path(pattern))))
    if Path(pattern).is_file():  # its name may have brackets
        return [pattern]
    return sorted(name for name in _glob(pattern) if Path(name).is_file())


def matching_folders(pattern: str) -> list[str]:
    """Return the sorted folders with files that a glob matches; the files are not the glob's.

    A path, of a folder too, is no glob.
    """
    if REMOTE in pattern:
        return _remote(pattern)[1]
    if Path(pattern).exists():
        return []
    folders = (name for name in _glob(pattern) if Path(name).is_dir())
    return sorted(name for name in folders if any(True for _ in _files_in(Path(name))))


def _files_in(folder: Path) -> Iterator[Path]:
    names = (folder + entry.name for folder, entries in _walk([f"{folder}/"]) for entry in entries)
    return (path for path in map(Path, names) if path.is_file())


def _glob(pattern: str) -> list[str]:
    """Return what a glob matches; its ``**`` follows links to folders, but to none twice.

    The standard library's follows a link to a folder above it again and again.
    """
    recursive = _RECURSIVE.search(pattern)
    if recursive is None:
        return glob.glob(pattern)  # noqa: PTH207 - the pattern may be absolute
    head, tail = pattern[: recursive.start()], pattern[recursive.end() :]
    roots = glob.glob(head) if head else [""]  # noqa: PTH207 - as above
    matches: dict[str, None] = {}
    for folder, entries in _walk(roots):
        if tail:
            matches |= dict.fromkeys(_glob(glob.escape(folder) + tail))
            continue
        matches |= {folder: None} if folder else {}
        if not pattern.endswith("/"):
            matches |= {folder + entry.name: None for entry in entries}
    return [*matches]


def _walk(roots: Iterable[str]) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield folders, each with a final slash, and those below them, each once with its entries.

    Hidden ones are left out: editors and uploads write unfinished files under such names, or into
    folders of such names.
    """
    seen: set[tuple[int, int]] = set()
    below, linked = [*roots], list[str]()
    while below or linked:  # links last: a folder is found under its own name if it has one
        folder = (below or linked).pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            with os.scandir(folder or ".") as listed:
                entries = [entry for entry in listed if not entry.name.startswith(".")]
        except OSError:  # a file, a link to nothing, or a folder that may not be read
            continue
        seen.add((status.st_dev, status.st_ino))
        yield folder, entries
        below += [f"{folder}{each.name}/" for each in entries if each.is_dir(follow_symlinks=False)]
        linked += [f"{folder}{each.name}/" for each in entries if each.is_symlink()]


@contextmanager
def local_copy(place: str, scratch: Path) -> Generator[Path]:
    """Yield a local path of the file; a remote file is copied for the duration of the block.

    The copy is in a temporary folder in ``scratch``. Raise ``UnreachableError``, mostly its
    ``UnreadableError``.
    """
    if REMOTE not in place:
        yield Path(place)
        return
    with file_locks.temporary_folder(scratch, "fetched-") as folder:
        copy = folder / "copy"  # an address may be longer than a file's name
        with _named(place, UnreachableError):
            system, path = _system(place)
        with _named(place):
            system.get_file(path, str(copy))
        yield copy


def server_of(place: str) -> str:
    """Return the server or bucket of a remote path."""
    scheme, _, rest = without_secrets(place).partition(REMOTE)
    return f"{scheme}{REMOTE}{rest.partition('/')[0]}"


def _system(place: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # noqa: PLC0415 - few have remote files

    return url_to_fs(place)


@contextmanager
def _named(place: str, kind: type[UnreachableError] | None = None) -> Generator[None]:
    """Name the place in errors, which become this ``kind``, or what of ``UnreadableError`` fits."""
    try:
        yield
    except ImportError:  # names the package to install
        raise
    except Exception as error:  # botocore's errors share no narrower base class
        reason = str(error) or type(error).__name__
        message = f"reaching {place}: {reason}"
        kind = kind or _kind(error)
        if (shown := without_secrets(message)) != message:
            raise kind(shown) from None  # a traceback would show the cause's text
        raise kind(message) from error


def _kind(error: Exception) -> type[UnreachableError]:
    if getattr(error, "errno", None) == errno.ENOSPC:  # here, so of no other file either
        return UnreachableError
    if isinstance(error, FileNotFoundError | PermissionError):
        return UnreadableError
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    away = ConnectionError | TimeoutError | socket.gaierror
    return AwayError if any(isinstance(cause, away) for cause in causes) else UnreadableError


def _remote(pattern: str) -> tuple[list[str], list[str]]:
    """Return the files of a path, a folder or a glob, and the folders that a glob matches."""
    with _named(pattern, UnreachableError):
        system, path = _system(pattern)
    with _named(pattern):
        system.invalidate_cache()  # otherwise listings are cached for the life of the process
        names, folders = [path], list[str]()
        if system.isdir(path):
            names = system.find(path)
        elif glob.has_magic(path):
            matches = system.glob(path, detail=True)
            names = [name for name, entry in matches.items() if entry["type"] != "directory"]
            folders = [*matches.keys() - names]
            if not matches:
                _require_bucket(system, path)
    unstrip = system.unstrip_protocol
    return sorted(map(unstrip, names)), sorted(map(unstrip, folders))


def _require_bucket(system: Any, pattern: str) -> None:  # noqa: ANN401 - fsspec has no types
    """Raise the server's error for a bucket that does not exist: a glob takes it for empty."""
    folder = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    try:
        system.ls(folder)
    except FileNotFoundError as error:
        if error.__cause__ is not None:  # the server says so; else the folder may yet come
            raise


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
        yield Unreadable(number + 1, content[: lines.MOST_KEPT], str(error))


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        stream = UnpackedFile(file)
        content = stream.read(LARGEST)
    if stream.damage is not None or len(content) == LARGEST:
        raise ValueError(f"{path} is damaged, or has more than {LARGEST} bytes")
    return bytes(content)


def source_named(name: str) -> Source:
    """Return the source with this name, which may be a map; or raise ``UnknownSourceError``."""
    if name.startswith(mapped.PREFIX):
        return _mapped(name)
    sources = {source.NAME: source for source in SOURCES}
    if name not in sources:
        known = ", ".join(sources)
        raise UnknownSourceError(f"no source is called {name!r}; there are {known}")
    return sources[name]


@lru_cache
def _mapped(name: str) -> Source:
    source, raw = Mapped(name), fields.loads(name.removeprefix(mapped.PREFIX))
    try:
        FieldMap.model_validate(raw)
    except ValidationError as error:
        wrong = validation_messages.every_mistake(error, FieldMap, raw)
        raise UnknownSourceError(f"the map can't be used: {'; '.join(wrong)}") from error
    return source


def detect_source(values: Iterable[dict[str, Json]]) -> Source | None:
    """Return the source that claims the most records; ``None`` if no source claims any."""
    sample = list(values)
    claims = {source: sum(map(source.claims, sample)) for source in SOURCES}
    best = max(SOURCES, key=lambda source: claims[source])  # the first wins a tie
    return best if claims[best] else None
