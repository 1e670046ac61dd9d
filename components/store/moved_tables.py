"""Copy a warehouse between a home's DuckDB file and a lake, each table compared afterwards.

It may be copied ahead while others write; the last copy, while nobody does, changes the rows that
differ by then. Until that, and after the way back, a lake says whose its rows are, and nobody else
opens it. The files of retention go with the tables where they are elsewhere then, in the home or in
a lake's bucket.
"""

import shutil
import socket
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

from components.schema import Config
from components.store import (
    archived_files,
    file_locks,
    lake,
    lake_connection,
    lake_owner,
    lake_purge,
    lock,
    manifest,
    warehouse,
)
from components.store.lake import BOOK, GROUPS, Group, Lake
from components.store.lake_schema import Table
from components.store.warehouse import ASIDE, Connection

FILE = "home"  # the name under which the DuckDB file is attached
FILLING = ".filling"  # ends the name of a file that lacks tables of a lake
COPIES = ".lake"  # ends the name of the file that says which lake has copies of a file's rows

WHOLE = "the copy of"

ARCHIVED = "raw.archived"  # the table whose `path` names the files of retention
ERASED = "raw.erasures"

Report: TypeAlias = Callable[["MovedTable"], None]


class MovedTablesError(RuntimeError):
    """The target holds other rows already, or a copy differs; the message names the table.

    Or a file of retention is gone.
    """


class Copies(Config):
    """The lake that has copies of a file's rows, since when, and the name of these copies."""

    lake: str
    at: datetime
    name: str

    @classmethod
    def of(cls, file: Path) -> "Copies | None":
        """Read what is known of a file's copies."""
        with suppress(FileNotFoundError):
            return cls.model_validate_json(_beside(file, COPIES).read_text())
        return None

    @classmethod
    def begin(cls, file: Path, target: Lake) -> "Copies":
        """Note that a lake gets copies of a file's rows."""
        copies = cls(lake=str(target), at=datetime.now(UTC), name=uuid.uuid4().hex)
        manifest.write_atomically(_beside(file, COPIES), copies.model_dump_json())
        return copies

    def text(self, file: Path, *, is_whole: bool) -> str:
        """Return what the lake says of itself."""
        begin = WHOLE if is_whole else "being filled from"
        return f"{begin} {socket.gethostname()}:{file} ({self.name})"

    def are_whole(self, moved: str) -> bool:
        """Return whether a lake says that it has all of them, whatever their machine and path."""
        return moved.startswith(WHOLE) and self.name in moved


@dataclass(frozen=True, slots=True)
class MovedTable:
    """A table after the copy, and whether its rows were there before."""

    name: str
    rows: int
    was_there: bool


@dataclass(frozen=True, slots=True)
class _Content:
    """A table's rows and the sum of their hashes, which does not depend on their order."""

    rows: int
    hashes: int


@dataclass(frozen=True, slots=True)
class _Archives:
    """The roots of the files of retention in a source and in its target."""

    source: str
    target: str

    def move(self, con: Connection, table: str, copies: str | None = None) -> None:
        """Copy the files that a table names to the target, or to another root."""
        sql = f"select distinct path from {table} where starts_with(path, $root) order by path"
        for path in warehouse.texts(con, sql, root=f"{self.source}/"):
            copy = (copies or self.target) + path.removeprefix(self.source)
            if not archived_files.move(path, copy):
                raise MovedTablesError(
                    f"copying {path}, where retention put old rows: it is gone; put it back, or "
                    "do the same again if rows were erased meanwhile"
                )

    def remove_others(self, con: Connection) -> None:
        """Delete the files of the target that its table does not name, since they were copied."""
        named = {*warehouse.texts(con, f"select distinct path from lake.{ARCHIVED}")}
        for file in archived_files.listed(self.target):
            if file not in named:
                archived_files.remove(file)

    def renamed(self, column: str) -> str:
        """Return the SQL of a path as the target names it."""
        source, target = lake.quoted(f"{self.source}/"), lake.quoted(self.target)
        return (
            f"case when starts_with({column}, {source})"
            f" then {target} || substr({column}, {len(self.source) + 1}) else {column} end"
        )


def copy_file(file: Path, to: Path, wait_seconds: float) -> None:
    """Copy a DuckDB file while no other process can open it.

    Raises:
        WarehouseBusyError: Another process held it for longer than ``wait_seconds``.
    """
    with warehouse.connect(file, wait_seconds) as con:
        con.execute("checkpoint")
        shutil.copyfile(file, to)


def copy_to_lake(file: Path, target: Lake, report: Report, wait_seconds: float) -> Path:
    """Copy all tables of a file into a lake; nobody writes either meanwhile.

    A table at a time: what an earlier copy had finished is compared, and the rows that differ are
    changed. Then the file is renamed, so that no process goes on with it by mistake; return its new
    path. Its files of retention are copied to the lake's object store, if it has one.

    Raises:
        MovedTablesError: A table of the lake has rows that are not copies of this file's, or a copy
            differs.
        WarehouseBusyError: Another process still holds the file or the lake after
            ``wait_seconds``.
    """
    with warehouse.connect(file, wait_seconds):
        pass  # brings its schema up to date
    with _filled(file, file, target, report, wait_seconds) as copies:
        if copies:
            lake_owner.set_moved(target, copies.text(file, is_whole=True))
        kept = file.rename(_beside(file, ASIDE))
    complete(file, target)
    return kept


def copy_ahead_to_lake(
    file: Path, target: Lake, scratch: Path, report: Report, wait_seconds: float
) -> None:
    """Copy all tables of a file, as they are now, into a lake, while others go on with the file.

    It is held only while a copy of it is made in the folder ``scratch``.

    Raises:
        MovedTablesError, WarehouseBusyError: As of ``copy_to_lake``.
    """
    with file_locks.temporary_folder(scratch, "migrate-") as folder:
        copy = folder / file.name
        copy_file(file, copy, wait_seconds)
        with _filled(file, copy, target, report, wait_seconds):
            pass


def complete(file: Path, target: Lake) -> bool:
    """Let others open a lake that has all tables of a file which was set aside, or is gone.

    Return whether it is such a lake; a killed copy may have left it.
    """
    copies = Copies.of(file)
    if copies is None or copies.lake != str(target) or file.exists() or lake_owner.is_new(target):
        return False
    moved = lake_owner.moved(target)
    if moved is not None and not copies.are_whole(moved):
        return False
    lake_owner.set_moved(target, None)
    _beside(file, COPIES).unlink()
    return True


@contextmanager
def _filled(
    file: Path, copy: Path, target: Lake, report: Report, wait_seconds: float
) -> Generator[Copies | None]:
    """Copy all tables of a file, or of a copy of it, into a lake; hold both meanwhile.

    Yield what the lake's copies are known by, or ``None`` if it had rows that were compared only.
    """
    with (
        warehouse.connect(target, wait_seconds, writes=GROUPS, moving=True) as con,
        lake_connection.bulk(con),
        _attached(con, copy, wait_seconds, is_read_only=True),
    ):
        was_filled = lake_owner.moved(target) is not None
        copies = _claim(con, file, target)
        archives = _Archives(_folder(file), target.archive) if target.archive else None
        if archives:
            archives.move(con, f"{FILE}.{ARCHIVED}")
        is_erased = was_filled and _erasures(con, BOOK) != _erasures(con, FILE)
        # Last come the erasures: until all is done, a killed copy must show that some were missing.
        for table in sorted(warehouse.schema().tables, key=lambda table: table.full_name == ERASED):
            if table.full_name == ERASED and is_erased:
                lake_purge.purge(target, wait_seconds, moving=True)
                if archives:
                    archives.remove_others(con)
            source, name = f"{FILE}.{table.full_name}", _in_lake(table)
            with warehouse.transaction(con, _group(table)):
                report(_copy(con, table, source, name, archives, may_change=copies is not None))
        yield copies


def _claim(con: Connection, file: Path, target: Lake) -> Copies | None:
    """Let a lake say that its rows are a file's; ``None`` if it has rows that are its own.

    Raises:
        MovedTablesError: They are another file's.
    """
    copies, moved = Copies.of(file), lake_owner.moved(target)
    if moved is not None:
        if copies is None or copies.name not in moved:
            raise MovedTablesError(
                f"copying {file} to {target}: it is {moved}; expected a new database, or drop that "
                "one and its files"
            )
    elif any(_rows(con, _in_lake(table)) > len(table.rows) for table in warehouse.schema().tables):
        return None
    else:
        copies = Copies.begin(file, target)
    lake_owner.set_moved(target, copies.text(file, is_whole=False))
    return copies


def copy_to_file(source: Lake, file: Path, report: Report, wait_seconds: float) -> None:
    """Copy all tables of a lake into a file; nobody writes either meanwhile.

    The file appears when it has all of them. Then the lake says that its rows are the file's, so
    that no process goes on with it by mistake. The files of retention in its object store are
    copied to the file's home.

    Raises:
        MovedTablesError: A table of the file has rows that differ, or a copy does.
        WarehouseBusyError: As of ``copy_to_lake``.
    """
    archives = _Archives(source.archive, _folder(file)) if source.archive else None
    filling = _beside(file, FILLING)
    with warehouse.connect(source, wait_seconds, writes=GROUPS, moving=True) as con:
        copies, moved = Copies.of(file), lake_owner.moved(source)
        if moved is not None and not (copies and copies.are_whole(moved)):
            raise MovedTablesError(
                f"copying {source} to {file}: it is {moved}; expected a lake that was migrated to"
            )
        if archives:
            archives.move(con, f"lake.{ARCHIVED}")
        if file.exists():
            _copy_all(con, file, report, wait_seconds, archives=archives)
        else:
            _drop_before_erasures(con, filling, wait_seconds)
            _copy_all(con, filling, report, wait_seconds, archives=archives, may_change=True)
            filling.rename(file)
        if moved is None:
            lake_owner.set_moved(source, Copies.begin(file, source).text(file, is_whole=True))


def copy_ahead_to_file(source: Lake, file: Path, report: Report, wait_seconds: float) -> None:
    """Copy all tables of a lake, as they are at one moment, while others go on with it.

    They are beside ``file``, which ``copy_to_file`` then makes of them.

    Raises:
        MovedTablesError: There is such a file, or a copy differs.
        WarehouseBusyError: As of ``copy_to_lake``.
    """
    if file.exists():
        raise MovedTablesError(f"copying {source} to {file}: it exists; expected none")
    filling = _beside(file, FILLING)
    archives = _Archives(source.archive, _folder(file)) if source.archive else None
    with warehouse.connect(source, wait_seconds, writes=()) as con:
        _drop_before_erasures(con, filling, wait_seconds)
        begin = partial(_begin_at_one_moment, con, source, wait_seconds, archives)
        _copy_all(con, filling, report, wait_seconds, archives, begin, may_change=True)


def save_to_file(source: Lake, file: Path, home: Path, wait_seconds: float) -> None:
    """Copy all tables of a lake into a new file, as they are at one moment; nobody waits longer.

    The files of retention in its object store are copied beside the file, which names them as
    those of the ``home`` that it is for.

    Raises:
        MovedTablesError: A copy differs.
        WarehouseBusyError: Another process still writes the lake after ``wait_seconds``.
    """
    archives = None
    if source.archive:
        archives = _Archives(source.archive, str(home / archived_files.ROOT))
    with warehouse.connect(source, wait_seconds, writes=()) as con:
        begin = partial(_begin_at_one_moment, con, source, wait_seconds, archives, _folder(file))
        _copy_all(con, file, lambda _: None, wait_seconds, archives, begin)


def _begin_at_one_moment(
    con: Connection,
    source: Lake,
    wait_seconds: float,
    archives: _Archives | None,
    copies: str | None = None,
) -> None:
    # The transaction sees of each database what is there when it reads it first.
    with warehouse.connect(source, wait_seconds, writes=GROUPS):
        for gate in lake_connection.GATES.values():
            con.execute(f"from {gate}").fetchall()
    if archives:
        archives.move(con, f"lake.{ARCHIVED}", copies)


def _drop_before_erasures(con: Connection, filling: Path, wait_seconds: float) -> None:
    """Delete a file that was filled before rows were erased; DuckDB keeps what is deleted in it."""
    if not filling.exists():
        return
    with warehouse.connect(filling, wait_seconds) as before:
        is_erased = _erasures(before) != _erasures(con, BOOK)
    if is_erased:
        filling.unlink()


def _copy_all(
    con: Connection,
    file: Path,
    report: Report,
    wait_seconds: float,
    archives: _Archives | None,
    begin: Callable[[], None] = lambda: None,
    *,
    may_change: bool = False,
) -> None:
    with warehouse.connect(file, wait_seconds):
        pass  # creates it
    with lake_connection.bulk(con), _attached(con, file, wait_seconds, is_read_only=False):
        con.execute("begin transaction")  # of the file alone, so without the lake's gates
        try:
            begin()
            for table in warehouse.schema().tables:
                source, name = _in_lake(table), f"{FILE}.{table.full_name}"
                report(_copy(con, table, source, name, archives, may_change=may_change))
        except BaseException:
            con.execute("rollback")
            raise
        con.execute("commit")
        con.execute(f"checkpoint {FILE}")


def _copy(
    con: Connection,
    table: Table,
    source: str,
    target: str,
    archives: _Archives | None,
    *,
    may_change: bool,
) -> MovedTable:
    copied = [f'"{column.name}"' for column in table.columns]
    if archives and table.full_name == ARCHIVED:
        copied = [archives.renamed(name) if name == '"path"' else name for name in copied]
    expected, before = _content(con, table, source, copied), _content(con, table, target)
    if before == expected:
        return MovedTable(table.full_name, expected.rows, was_there=True)
    is_initial = before.rows <= len(table.rows)  # what the migrations put there
    if not is_initial and not may_change:
        raise MovedTablesError(
            f"copying {table.full_name}: the target has {before.rows:,} rows that are not the "
            f"{expected.rows:,} of the source; expected a warehouse without data"
        )
    if is_initial or not table.is_in_lake:
        con.execute(f"delete from {target}")
        _insert(con, table, source, target, copied)
    else:
        _change(con, table, source, target, copied)
    after = _content(con, table, target)
    if after != expected:
        raise MovedTablesError(
            f"copying {table.full_name}: {after.rows:,} rows arrived with the digest "
            f"{after.hashes:x}, expected {expected.rows:,} with {expected.hashes:x}; nothing of "
            "this table was kept"
        )
    return MovedTable(table.full_name, expected.rows, was_there=False)


def _insert(
    con: Connection,
    table: Table,
    source: str,
    target: str,
    copied: Sequence[str],
    where: str = "true",
) -> None:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(copied)
    con.execute(f"insert into {target} ({names}) select {values} from {source} where {where}")


def _change(con: Connection, table: Table, source: str, target: str, copied: Sequence[str]) -> None:
    """Delete and insert only the rows that differ."""
    for listing, name, values in (("wanted", source, copied), ("had", target, None)):
        con.execute(
            f"create or replace temporary table {listing} as"
            f" select rowid as place, {_hash(table, values)} as digest from {name}"
        )
    # Rows may be equal, so it counts how many of them there are on each side.
    con.execute(
        "create or replace temporary table changed as select digest from ("
        "select digest, 1 as copies from wanted union all select digest, -1 as copies from had"
        ") group by digest having sum(copies) <> 0"
    )
    places = "rowid in (select place from {} semi join changed using (digest))"
    con.execute(f"delete from {target} where {places.format('had')}")
    _insert(con, table, source, target, copied, places.format("wanted"))
    for listing in ("wanted", "had", "changed"):
        con.execute(f"drop table {listing}")


def _content(
    con: Connection, table: Table, name: str, values: Sequence[str] | None = None
) -> _Content:
    ((rows, hashes),) = con.execute(
        f"select count(*), coalesce(sum({_hash(table, values)}::hugeint), 0) from {name}"
    ).fetchall()
    return _Content(int(rows), int(hashes))


def _hash(table: Table, values: Sequence[str] | None) -> str:
    """Return the SQL of a row's hash, of its columns or of other ``values`` in their order."""
    values = values or [f'"{column.name}"' for column in table.columns]
    typed = zip(values, table.columns, strict=True)
    texts = ", ".join(f"({value})::{column.type}::varchar" for value, column in typed)
    return f"hash([{texts}])"


def _rows(con: Connection, name: str) -> int:
    ((rows,),) = con.execute(f"select count(*) from {name}").fetchall()
    return int(rows)


def _erasures(con: Connection, database: str | None = None) -> list[tuple[int, int]]:
    """Return how many erasures there were, and how many are finished."""
    name = f"{database}.{ERASED}" if database else ERASED
    return con.execute(f"select count(*), count(finished_at) from {name}").fetchall()


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _folder(file: Path) -> str:
    return str(file.parent / archived_files.ROOT)


def _in_lake(table: Table) -> str:
    return f"{'lake' if table.is_in_lake else 'book'}.{table.full_name}"


def _group(table: Table) -> Group:
    if not table.is_in_lake:
        return "book"
    return "raw" if table.schema == "raw" else "curated"


@contextmanager
def _attached(
    con: Connection, file: Path, wait_seconds: float, *, is_read_only: bool
) -> Generator[None]:
    options = " (read_only)" if is_read_only else ""

    def attach() -> Connection:
        return con.execute(f"attach {lake.quoted(str(file))} as {FILE}{options}")

    lock.open_read_only(file, wait_seconds, attach)
    try:
        yield
    finally:
        con.execute(f"detach {FILE}")
