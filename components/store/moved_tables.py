"""Copy a warehouse between a home's DuckDB file and a lake, each table compared afterwards.

The files of retention go with it where they are elsewhere then, in the home or in a lake's bucket.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.store import archived_files, lake, lock, warehouse
from components.store.lake import GROUPS, Group, Lake, Table
from components.store.warehouse import Connection

FILE = "home"  # the name under which the DuckDB file is attached
ASIDE = ".migrated"  # ends the name of a file whose tables are in a lake

ARCHIVED = "raw.archived"  # the table whose `path` names the files of retention


class MovedTablesError(RuntimeError):
    """The target holds other rows already, or a copy differs; the message names the table.

    Or a file of retention is gone.
    """


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

    def renamed(self, column: str) -> str:
        """Return the SQL of a path as the target names it."""
        source, target = lake.quoted(f"{self.source}/"), lake.quoted(self.target)
        return (
            f"case when starts_with({column}, {source})"
            f" then {target} || substr({column}, {len(self.source) + 1}) else {column} end"
        )


def copy_to_lake(
    file: Path, target: Lake, report: Callable[[MovedTable], None], wait_seconds: float
) -> Path:
    """Copy all tables of a file into a lake; nobody writes either meanwhile.

    A table at a time: what a killed copy had finished is compared only. Then the file is renamed,
    so that no process goes on with it by mistake; return its new path. Its files of retention are
    copied to the lake's object store, if it has one.

    Raises:
        MovedTablesError: A table of the lake has rows that differ, or a copy does.
        WarehouseBusyError: Another process still holds the file or the lake after
            ``wait_seconds``.
    """
    with warehouse.connect(file, wait_seconds):
        pass  # brings its schema up to date
    archives = _Archives(_folder(file), target.archive) if target.archive else None
    with (
        warehouse.connect(target, wait_seconds, writes=GROUPS) as con,
        lake.bulk(con),
        _attached(con, file, wait_seconds, is_read_only=True),
    ):
        if archives:
            archives.move(con, f"{FILE}.{ARCHIVED}")
        for table in warehouse.schema().tables:
            source, name = f"{FILE}.{table.full_name}", _in_lake(table)
            with warehouse.transaction(con, _group(table)):
                report(_copy(con, table, source, name, archives))
        return file.rename(file.with_name(file.name + ASIDE))


def copy_to_file(
    source: Lake, file: Path, report: Callable[[MovedTable], None], wait_seconds: float
) -> None:
    """Copy all tables of a lake into a file, in one transaction; nobody writes either meanwhile.

    The files of retention in its object store are copied to the file's home.

    Raises:
        MovedTablesError: A table of the file has rows that differ, or a copy does.
        WarehouseBusyError: As of ``copy_to_lake``.
    """
    archives = _Archives(source.archive, _folder(file)) if source.archive else None
    with warehouse.connect(source, wait_seconds, writes=GROUPS) as con:
        if archives:
            archives.move(con, f"lake.{ARCHIVED}")
        _copy_all(con, file, report, wait_seconds, begin=lambda: None, archives=archives)


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

        def begin() -> None:
            # The transaction sees of each database what is there when it reads it first.
            with warehouse.connect(source, wait_seconds, writes=GROUPS):
                for gate in lake.GATES.values():
                    con.execute(f"from {gate}").fetchall()
            if archives:
                archives.move(con, f"lake.{ARCHIVED}", copies=_folder(file))

        _copy_all(con, file, lambda _: None, wait_seconds, begin, archives)


def _copy_all(
    con: Connection,
    file: Path,
    report: Callable[[MovedTable], None],
    wait_seconds: float,
    begin: Callable[[], None],
    archives: _Archives | None,
) -> None:
    with warehouse.connect(file, wait_seconds):
        pass  # creates it
    with lake.bulk(con), _attached(con, file, wait_seconds, is_read_only=False):
        con.execute("begin transaction")  # of the file alone, so without the lake's gates
        try:
            begin()
            for table in warehouse.schema().tables:
                report(_copy(con, table, _in_lake(table), f"{FILE}.{table.full_name}", archives))
        except BaseException:
            con.execute("rollback")
            raise
        con.execute("commit")
        con.execute(f"checkpoint {FILE}")


def _copy(
    con: Connection, table: Table, source: str, target: str, archives: _Archives | None
) -> MovedTable:
    copied = [f'"{column.name}"' for column in table.columns]
    if archives and table.full_name == ARCHIVED:
        copied = [archives.renamed(name) if name == '"path"' else name for name in copied]
    expected, before = _content(con, table, source, copied), _content(con, table, target)
    if before == expected:
        return MovedTable(table.full_name, expected.rows, was_there=True)
    if before.rows > len(table.rows):
        raise MovedTablesError(
            f"copying {table.full_name}: the target has {before.rows:,} rows that are not the "
            f"{expected.rows:,} of the source; expected a warehouse without data"
        )
    if before.rows:  # what the migrations put there
        con.execute(f"delete from {target}")
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    con.execute(f"insert into {target} ({names}) select {', '.join(copied)} from {source}")
    after = _content(con, table, target)
    if after != expected:
        raise MovedTablesError(
            f"copying {table.full_name}: {after.rows:,} rows arrived with the digest "
            f"{after.hashes:x}, expected {expected.rows:,} with {expected.hashes:x}; nothing of "
            "this table was kept"
        )
    return MovedTable(table.full_name, expected.rows, was_there=False)


def _content(
    con: Connection, table: Table, name: str, values: Sequence[str] | None = None
) -> _Content:
    values = values or [f'"{column.name}"' for column in table.columns]
    typed = zip(values, table.columns, strict=True)
    texts = ", ".join(f"({value})::{column.type}::varchar" for value, column in typed)
    ((rows, hashes),) = con.execute(
        f"select count(*), coalesce(sum(hash([{texts}])::hugeint), 0) from {name}"
    ).fetchall()
    return _Content(int(rows), int(hashes))


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
