"""Copy a warehouse between a home's DuckDB file and a lake, each table compared afterwards.

It may be copied ahead while others write; the last copy, while nobody does, changes the rows that
differ by then. Until that, and after the way back, a lake says whose its rows are, and nobody else
opens it. The files of retention go with the tables where they are elsewhere then, in the home or in
a lake's bucket.
"""

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from components.store import (
    archived_files,
    file_locks,
    lake_connection,
    lake_owner,
    lake_purge,
    lock,
    table_copy,
    transactions,
    warehouse,
)
from components.store.lake import BOOK, GROUPS, Group, Lake, quoted
from components.store.lake_owner import Copies
from components.store.lake_schema import Table
from components.store.table_copy import MovedTable, MovedTablesError
from components.store.warehouse import ASIDE, Connection

FILE = "home"  # the name under which the DuckDB file is attached
FILLING = ".filling"  # ends the name of a file that lacks tables of a lake

ARCHIVED = "raw.archived"  # the table whose `path` names the files of retention
ERASED = "raw.erasures"

Report: TypeAlias = Callable[[MovedTable], None]


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

    def renamed(self, table: Table) -> dict[str, str]:
        """Return the SQL of a table's column that names the files, as the target names them."""
        if table.full_name != ARCHIVED:
            return {}
        source, target = quoted(f"{self.source}/"), quoted(self.target)
        return {
            "path": f'case when starts_with("path", {source})'
            f' then {target} || substr("path", {len(self.source) + 1}) else "path" end'
        }


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
            lake_owner.set_owner(target, copies.text(file, is_whole=True))
        kept = file.rename(_beside(file, ASIDE))
    lake_owner.complete(file, target)
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
        was_filled = lake_owner.owner(target) is not None
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
                renamed = archives.renamed(table) if archives else {}
                report(
                    table_copy.copy(
                        con, table, source, name, renamed, may_change=copies is not None
                    )
                )
        yield copies


def _claim(con: Connection, file: Path, target: Lake) -> Copies | None:
    """Let a lake say that its rows are a file's; ``None`` if it has rows that are its own.

    Raises:
        MovedTablesError: They are another file's.
    """
    copies, owned = Copies.of(file), lake_owner.owner(target)
    if owned is not None:
        if copies is None or copies.name not in owned:
            raise MovedTablesError(
                f"copying {file} to {target}: it is {owned}; expected a new database, or drop that "
                "one and its files"
            )
    elif any(_rows(con, _in_lake(table)) > len(table.rows) for table in warehouse.schema().tables):
        return None
    else:
        copies = Copies.begin(file, target)
    lake_owner.set_owner(target, copies.text(file, is_whole=False))
    return copies


def copy_to_file(source: Lake, file: Path, report: Report, wait_seconds: float) -> None:
    """Copy all tables of a lake into a file; nobody writes either meanwhile.

    The file appears when it has all of them, and the lake says that its rows are the file's, so
    that no process goes on with it by mistake. The files of retention in its object store are
    copied to the file's home.

    Raises:
        MovedTablesError: A table of the file has rows that differ, or a copy does.
        WarehouseBusyError: As of ``copy_to_lake``.
    """
    archives = _Archives(source.archive, _folder(file)) if source.archive else None
    filling = _beside(file, FILLING)
    with warehouse.connect(source, wait_seconds, writes=GROUPS, moving=True) as con:
        copies, owned = Copies.of(file), lake_owner.owner(source)
        if owned is not None and not (copies and copies.are_whole(owned)):
            raise MovedTablesError(
                f"copying {source} to {file}: it is {owned}; expected a lake that was migrated to"
            )
        if archives:
            archives.move(con, f"lake.{ARCHIVED}")
        is_there = file.exists()
        if not is_there:
            _drop_before_erasures(con, filling, wait_seconds)
        _copy_all(
            con,
            file if is_there else filling,
            report,
            wait_seconds,
            archives=archives,
            may_change=not is_there,
        )
        # First: with the file there, and a lake that others open, both would be written.
        if owned is None:
            lake_owner.set_owner(source, Copies.begin(file, source).text(file, is_whole=True))
        if not is_there:
            filling.rename(file)


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
        # Of the file alone, so without the lake's gates.
        with transactions.ended(con, by="commit"):
            begin()
            for table in warehouse.schema().tables:
                source, name = _in_lake(table), f"{FILE}.{table.full_name}"
                renamed = archives.renamed(table) if archives else {}
                report(table_copy.copy(con, table, source, name, renamed, may_change=may_change))
        con.execute(f"checkpoint {FILE}")


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
        return con.execute(f"attach {quoted(str(file))} as {FILE}{options}")

    lock.open_read_only(file, wait_seconds, attach)
    try:
        yield
    finally:
        con.execute(f"detach {FILE}")
