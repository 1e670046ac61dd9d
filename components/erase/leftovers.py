"""Search the whole home for leftovers of a subject."""

import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from components.erase import subject_rows, tables
from components.erase.subject import Kind, SearchTerms, find_in_bytes, find_terms, held_ids
from components.erase.tables import WarehouseTable
from components.models import machine
from components.store import home_files, warehouse, warehouse_port
from components.store.unpacked_file import UnpackedFile
from components.store.warehouse import Connection
from components.store.warehouse_port import ENGINE_ERRORS, SharedWarehouse

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LOG = ".wal"  # ends the name of a DuckDB file's log, which is read with the file

WITH_ID: frozenset[Kind] = frozenset({"id", "mention"})
IN_WAREHOUSE = "warehouse "  # prefix of tables among the places
WITHOUT_TEXT = frozenset({".safetensors"})  # their adapters are listed instead

NamedFile: TypeAlias = tuple[str, Path]
"""A Parquet file, and how it is named to people."""

MAX_MEMORY = 2**31  # bytes that searching a table's file may take
ROWS = 512  # of a Parquet file, read at once
MAX_UNPACKED, MAX_RATIO = 2**32, 10_000
"""A Parquet file is read until its rows take so many bytes, or so many times those of the file."""

PIECE, OVERLAP = 2**26, 2**12  # bytes of the warehouse's file, or of a line, searched at once

DUCKDB, DUCKDB_AT = b"DUCK", 8  # how its files begin, and after how many bytes
DAMAGED = (
    pa.ArrowException,
    sqlite3.Error,
    *ENGINE_ERRORS,
    zstandard.ZstdError,
    EOFError,
    zlib.error,
    OSError,
    ValueError,
    ArithmeticError,
    LookupError,
    MemoryError,
)
"""What is raised for a file that is not whole, has values that Python has not, or unpacks into very
much. Whoever may write to MLflow or to the store can put one into the home."""

_SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True)
class Left:
    """A leftover: its place, kind and count, never its text."""

    where: str
    kind: Kind
    count: int


@dataclass(frozen=True, slots=True)
class Searched:
    """The searched places with their rows, columns or lines, and what is left."""

    places: dict[str, int]
    left: tuple[Left, ...]
    passed_over: tuple[str, ...]

    def is_clean(self, *, allow_mentions: bool) -> bool:
        """Return whether nothing is left, except mentions in other people's texts if allowed."""
        return all(allow_mentions and leftover.kind == "mention" for leftover in self.left)


@dataclass(slots=True)
class _Notes:
    places: Counter[str]
    left: Counter[tuple[str, Kind]]
    passed_over: set[str]

    def add(self, where: str, kinds: Iterable[Kind]) -> None:
        self.left.update((where, kind) for kind in set(kinds))


def search(
    con: Connection,
    home: Path,
    terms: SearchTerms,
    skip: Iterable[Path] = (),
    opened: AbstractSet[Path] = frozenset(),
    shared_files: tuple[Path, Iterable[NamedFile]] | None = None,
    archived: Iterable[NamedFile] = (),
) -> Searched:
    """Search the warehouse and every file under ``home``, which holds its file.

    Skip the folders of downloads (``skip``), which are never made from rows, and the DuckDB files
    that ``con`` has or is a copy of (``opened``): closing one drops all locks of this process on
    it. ``shared_files`` are the
    folder of a shared warehouse's, which is not searched else, and those with more than its rows;
    ``archived`` the files of retention that are elsewhere.
    """
    notes = _Notes(Counter(), Counter(), set())
    left = terms.without_texts(_held_by_others(con, terms))
    for table in tables.tables(con):
        _search_table(con, table, IN_WAREHOUSE, left, notes)
    shared_folder = None
    if shared_files is not None and (place := warehouse_port.shared(con)) is not None:
        shared_folder, earlier = shared_files[0].resolve(), shared_files[1]
        _search_earlier(con, place, earlier, left, notes)
    for name, path in archived:
        _search_parquet(path, name, left, notes)
    passed = [path.resolve() for path in skip]
    for path in home_files.files(home):
        if path.is_symlink() or not path.is_file() or path.suffix == LOG or path in opened:
            continue
        if shared_folder in path.resolve().parents:
            continue
        if path.suffix in WITHOUT_TEXT or any(p in path.resolve().parents for p in passed):
            notes.passed_over.add(str(path.relative_to(home).parts[0]) + f"/**{path.suffix}")
            continue
        with suppress(FileNotFoundError):  # a receiver or a server has just deleted it
            _search_readable(path, str(path.relative_to(home)), left, notes)
    return Searched(
        dict(sorted(notes.places.items())),
        tuple(Left(where, kind, count) for (where, kind), count in sorted(notes.left.items())),
        tuple(sorted(notes.passed_over)),
    )


def _search_earlier(
    con: Connection,
    shared: SharedWarehouse,
    files: Iterable[NamedFile],
    terms: SearchTerms,
    notes: _Notes,
) -> None:
    """Search what a shared warehouse has besides rows: values in its catalog, and earlier states.

    What is in rows as well is no leftover of a deletion.
    """
    in_rows = {kind for _, kind in notes.left}
    is_narrowed = terms.subject is not None and terms.subject.is_narrowed
    passed = in_rows | WITH_ID if is_narrowed or in_rows & WITH_ID else in_rows
    of_earlier = _Notes(notes.places, Counter(), notes.passed_over)
    for table in tables.catalog_tables(con, shared):
        _search_table(con, table, IN_WAREHOUSE, terms, of_earlier)
    for place, values in shared.frequent_values(con):
        notes.places[place] += 1
        of_earlier.add(place, find_terms(terms, None, values))
    try:
        for name, path in files:
            try:
                _search_parquet(path, name, terms, of_earlier)
            except pa.ArrowInvalid:
                notes.passed_over.add(f"{name}, which is not finished")
            except MemoryError:
                notes.passed_over.add(f"{name}, which unpacks into too much to be searched")
            except FileNotFoundError:  # deleted meanwhile
                continue
    except OSError as error:
        notes.passed_over.add(f"earlier versions of the warehouse's files: {error}")
    for (where, kind), count in of_earlier.left.items():
        if kind not in passed:
            notes.left[where, "freed bytes"] += count


def with_bytes(searched: Searched, warehouse_file: Path, terms: SearchTerms) -> Searched:
    """Search the bytes of the warehouse's file as well; no connection of this process may hold it.

    Terms that are in the bytes and in no row are in blocks that DuckDB has freed, not overwritten.
    """
    in_rows = {left.kind for left in searched.left if left.where.startswith(IN_WAREHOUSE)}
    files = sorted(warehouse_file.parent.glob(warehouse_file.name + "*"))
    files = [path for path in files if path.is_file() and path.stat().st_size]
    freed = [path for path in files if _in_bytes(path, terms, in_rows)]
    return replace(
        searched,
        places=searched.places | {path.name: 1 for path in files},
        left=(*searched.left, *(Left(path.name, "freed bytes", 1) for path in freed)),
    )


def _in_bytes(path: Path, terms: SearchTerms, in_rows: AbstractSet[str]) -> bool:
    is_theirs = terms.subject is not None and terms.subject.is_narrowed
    with_id = not is_theirs and not in_rows & WITH_ID
    sought = replace(terms, rows=frozenset()) if "erased row" in in_rows else terms
    with path.open("rb") as file:
        pieces = _overlapping(iter(partial(file.read, PIECE), b""))
        return any(find_in_bytes(piece, sought, with_id=with_id) for piece in pieces)


def _overlapping(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces with the end of the one before, so that no term is cut in two."""
    rest = b""
    for piece in pieces:
        yield rest + piece
        rest = piece[-OVERLAP:]


def _held_by_others(con: Connection, terms: SearchTerms) -> set[str]:
    """Return the erased texts that are also in other people's rows."""
    if not terms.texts:
        return set()
    subject_rows.show_archive(con)
    records = warehouse.read(con, "marts/stored_records", dict[str, str])
    return {digest for row in records for digest in held_ids(terms, row["record"])}


def _search_table(
    con: Connection, table: WarehouseTable, within: str, terms: SearchTerms, notes: _Notes
) -> None:
    place = within + table.full_name
    names = [column.name for column in table.texts]
    if not names:
        return
    for row in tables.values(con, table, table.texts):
        notes.places[place] += 1
        _search_row(dict(zip(names, row, strict=True)), place, terms, notes)
    notes.places[place] += 0


def _search_row(row: dict[str, object], place: str, terms: SearchTerms, notes: _Notes) -> None:
    within = terms.subject.within if terms.subject else {}
    is_theirs = all(row.get(name) in (None, "", value) for name, value in within.items())
    for name, value in row.items():
        kinds = set(find_terms(terms, name, value))
        if not is_theirs:  # the same id, of another client or workload
            kinds -= {"id", "mention"}
        notes.add(f"{place}.{name}", kinds)


def _search_readable(path: Path, name: str, terms: SearchTerms, notes: _Notes) -> None:
    """Search a file; of a damaged one, such as killed processes leave, its bytes."""
    try:
        _search_file(path, name, terms, notes)
    except FileNotFoundError:
        raise
    except DAMAGED:
        notes.passed_over.add(f"{name}, which can't be read, but for its bytes")
        with path.open("rb") as file:
            _search_lines(file, name, terms, notes)


def _search_file(path: Path, name: str, terms: SearchTerms, notes: _Notes) -> None:
    with path.open("rb") as file:
        head = file.read(len(_SQLITE))
    if path.suffix == ".parquet":
        _search_parquet(path, name, terms, notes)
    elif head[DUCKDB_AT:].startswith(DUCKDB):  # such as a copy from before an upgrade
        with warehouse.attached(path, wait_seconds=0) as con:
            for table in tables.tables_of(con, "'original'"):
                _search_table(con, table, f"{name} ", terms, notes)
    elif head == _SQLITE:
        _search_sqlite(path, name, terms, notes)
    else:
        with path.open("rb") as file:
            unpacked = UnpackedFile(file)
            _search_lines(BufferedReader(_Bytes(unpacked), 2**20), name, terms, notes)
            if unpacked.damage:
                raise EOFError(unpacked.damage)


def _search_parquet(path: Path, name: str, terms: SearchTerms, notes: _Notes) -> None:
    left = max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size)
    with machine.limited_memory(MAX_MEMORY), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, use_threads=False):
            for row in batch.to_pylist():
                left -= _size(row)
                if left < 0:
                    raise MemoryError(f"searching {name}: it unpacks into too many bytes")
                notes.places[name] += 1
                _search_row(row, name, terms, notes)
    notes.places[name] += 0


def _size(value: object) -> int:
    """Return roughly how many bytes of a value are searched; Arrow counts equal ones once."""
    match value:
        case str() | bytes():
            return len(value)
        case dict():
            return sum(map(_size, value.values()))
        case list():
            return sum(map(_size, value))
        case _:
            return 1


def _search_sqlite(path: Path, name: str, terms: SearchTerms, notes: _Notes) -> None:
    with (
        machine.limited_memory(MAX_MEMORY),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database,
    ):
        database.text_factory = bytes
        sql = "select name from sqlite_master where type = 'table' order by name"
        for (table,) in database.execute(sql).fetchall():
            quoted = '"' + table.decode().replace('"', '""') + '"'
            cursor = database.execute(f"select * from {quoted}")  # noqa: S608 - of its own schema
            names = [column[0] for column in cursor.description]
            for row in cursor:
                notes.places[name] += 1
                named = dict(zip(names, row, strict=True))
                _search_row(named, f"{name}.{table.decode()}", terms, notes)


class _Bytes(RawIOBase):
    """What a file holds, to be read by lines."""

    def __init__(self, file: UnpackedFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        return self._file.fill(memoryview(buffer))


def _search_lines(file: IO[bytes], name: str, terms: SearchTerms, notes: _Notes) -> None:
    while line := file.readline(PIECE):
        notes.places[name] += 1
        if len(line) < PIECE:
            notes.add(name, find_terms(terms, None, line.rstrip(b"\r\n")))
        else:
            _search_long_line(line, file, name, terms, notes)
    notes.places[name] += 0


def _search_long_line(
    first: bytes, file: IO[bytes], name: str, terms: SearchTerms, notes: _Notes
) -> None:
    """Search the bytes of a line that may not fit into memory, whatever its form."""
    for piece in _overlapping(_pieces_of_line(first, file)):
        if find_in_bytes(piece, replace(terms, rows=frozenset()), with_id=True):
            notes.add(name, ["mention"])
        if find_in_bytes(piece, terms, with_id=False):
            notes.add(name, ["erased row"])


def _pieces_of_line(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    piece = first
    while piece:
        yield piece
        piece = file.readline(PIECE) if len(piece) == PIECE else b""
