"""Search the whole home for anything left of a subject."""

import gzip
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

import pyarrow.parquet as pq
import zstandard

from components.erase import subject as finding
from components.erase import subject_rows, tables
from components.erase.subject import Kind, SearchTerms
from components.erase.tables import WarehouseTable
from components.store.warehouse import Connection

WAREHOUSE = frozenset({".duckdb", ".wal"})
"""Closing a file lets go of all locks that the process has on it: not while DuckDB has it open."""

WITH_ID: frozenset[Kind] = frozenset({"id", "mention"})

IN_WAREHOUSE = "warehouse "
"""What the names of tables begin with among the places."""

WITHOUT_TEXT = frozenset({".safetensors"})
"""Weights: what they have learned can't be searched; the adapters are listed instead."""

PIECE, OVERLAP = 2**26, 2**12
"""Bytes of the warehouse's file that are looked at in one piece."""

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

_SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True)
class Left:
    """Something that is left: where, what, and in how many places there. Never the words."""

    where: str
    kind: Kind
    count: int


@dataclass(frozen=True, slots=True)
class Searched:
    """What was searched, by place with its rows, columns or lines, and what is left."""

    places: dict[str, int]
    left: tuple[Left, ...]
    passed_over: tuple[str, ...]

    def is_clean(self, *, allow_mentions: bool) -> bool:
        """Whether nothing is left; mentions are others' texts, and may be left knowingly."""
        return all(allow_mentions and one.kind == "mention" for one in self.left)


@dataclass(slots=True)
class _Notes:
    places: Counter[str]
    left: Counter[tuple[str, Kind]]
    passed_over: set[str]

    def add(self, where: str, kinds: Iterable[Kind]) -> None:
        self.left.update((where, kind) for kind in set(kinds))


def search(
    con: Connection, home: Path, needles: SearchTerms, skip: Iterable[Path] = ()
) -> Searched:
    """Search the warehouse and every file under ``home``.

    Args:
        con: The warehouse; its file lies under ``home``.
        home: All that Flywheel keeps.
        needles: What to look for.
        skip: Folders of what is downloaded and never made from rows.
    """
    notes = _Notes(Counter(), Counter(), set())
    left = needles.without_texts(_held_by_others(con, needles))
    for table in tables.tables(con):
        _search_table(con, table, left, notes)
    passed = [path.resolve() for path in skip]
    for path in sorted(home.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.suffix in WAREHOUSE:
            continue
        if path.suffix in WITHOUT_TEXT or any(p in path.resolve().parents for p in passed):
            notes.passed_over.add(str(path.relative_to(home).parts[0]) + f"/**{path.suffix}")
            continue
        _search_file(path, path.relative_to(home), left, notes)
    return Searched(
        dict(sorted(notes.places.items())),
        tuple(Left(where, kind, count) for (where, kind), count in sorted(notes.left.items())),
        tuple(sorted(notes.passed_over)),
    )


def with_bytes(searched: Searched, warehouse_file: Path, needles: SearchTerms) -> Searched:
    """Look also at the bytes of the warehouse's file, which no connection of this process holds.

    What stands in them and in no row is in a block that DuckDB has freed and not written over.
    """
    in_rows: set[Kind] = {one.kind for one in searched.left if one.where.startswith(IN_WAREHOUSE)}
    files = [
        path
        for path in sorted(warehouse_file.parent.glob(warehouse_file.name + "*"))
        if path.is_file() and path.stat().st_size
    ]
    freed = [path for path in files if _in_bytes(path, needles, in_rows)]
    return replace(
        searched,
        places=searched.places | {path.name: 1 for path in files},
        left=(*searched.left, *(Left(path.name, "freed bytes", 1) for path in freed)),
    )


def _in_bytes(path: Path, needles: SearchTerms, in_rows: AbstractSet[Kind]) -> bool:
    """Look through a file piece by piece; pieces overlap, so that nothing is cut in two."""
    is_theirs = needles.subject is not None and needles.subject.is_narrowed
    with_id = not is_theirs and not in_rows & WITH_ID
    wanted = replace(needles, rows=frozenset()) if "erased row" in in_rows else needles
    with path.open("rb") as file:
        rest = b""
        while piece := file.read(PIECE):
            if finding.find_in_bytes(rest + piece, wanted, with_id=with_id):
                return True
            rest = piece[-OVERLAP:]
    return False


def _held_by_others(con: Connection, needles: SearchTerms) -> set[str]:
    """Find the erased texts that rows in raw hold: others have said the same."""
    if not needles.texts:
        return set()
    return {found for record in _records(con) for found in finding.held_ids(needles, record)}


def _records(con: Connection) -> Iterator[object]:
    subject_rows.show_archive(con)
    for table in ("raw.interactions", "raw.feedback", "archived_interactions", "archived_feedback"):
        cursor = con.execute(f"select coalesce(record, payload) from {table}")  # noqa: S608 - of ours
        while rows := cursor.fetchmany(tables.BATCH_ROWS):
            for (record,) in rows:
                yield record


def _search_table(
    con: Connection, table: WarehouseTable, needles: SearchTerms, notes: _Notes
) -> None:
    place = IN_WAREHOUSE + table.full_name
    names = [column.name for column in table.texts]
    if not names:
        return
    for row in tables.values(con, table, table.texts):
        notes.places[place] += 1
        _search_row(dict(zip(names, row, strict=True)), place, needles, notes)
    notes.places[place] += 0


def _search_row(row: dict[str, object], place: str, needles: SearchTerms, notes: _Notes) -> None:
    is_theirs = _is_within(row, needles)
    for name, value in row.items():
        kinds = set(finding.find_terms(needles, name, value))
        if not is_theirs:  # the same id, of another client or workload
            kinds -= {"id", "mention"}
        notes.add(f"{place}.{name}", kinds)


def _is_within(row: dict[str, object], needles: SearchTerms) -> bool:
    """Tell whether a row may be the subject's, where that was narrowed."""
    within = needles.subject.within if needles.subject else {}
    return all(row.get(name) in (None, "", wanted) for name, wanted in within.items())


def _search_file(path: Path, name: Path, needles: SearchTerms, notes: _Notes) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE))
        if path.suffix == ".parquet":
            _search_parquet(path, str(name), needles, notes)
        elif head == _SQLITE:
            _search_sqlite(path, str(name), needles, notes)
        else:
            _search_lines(path, str(name), needles, notes)
    except FileNotFoundError:  # a receiver or a server beside us has just taken it away
        return


def _search_parquet(path: Path, name: str, needles: SearchTerms, notes: _Notes) -> None:
    for batch in pq.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            notes.places[name] += 1
            _search_row(row, name, needles, notes)
    notes.places[name] += 0


def _search_sqlite(path: Path, name: str, needles: SearchTerms, notes: _Notes) -> None:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        database.text_factory = bytes
        for table in _sqlite_tables(database):
            for row in _sqlite_rows(database, table):
                notes.places[name] += 1
                _search_row(row, f"{name}.{table}", needles, notes)


def _sqlite_tables(database: sqlite3.Connection) -> list[str]:
    sql = "select name from sqlite_master where type = 'table' order by name"
    return [row[0].decode() for row in database.execute(sql).fetchall()]


def _sqlite_rows(database: sqlite3.Connection, table: str) -> Iterator[dict[str, object]]:
    quoted = '"' + table.replace('"', '""') + '"'
    cursor = database.execute(f"select * from {quoted}")  # noqa: S608 - a name of its own schema
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


def _unpacked(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        head = file.read(len(ZSTD))
    if head.startswith(GZIP):
        return cast("IO[bytes]", gzip.open(path))
    return zstandard.open(path) if head == ZSTD else path.open("rb")


def _search_lines(path: Path, name: str, needles: SearchTerms, notes: _Notes) -> None:
    with _unpacked(path) as file:
        for line in file:
            notes.places[name] += 1
            notes.add(name, finding.find_terms(needles, None, line.rstrip(b"\r\n")))
    notes.places[name] += 0
