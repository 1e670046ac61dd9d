"""Copy a warehouse out of a lake into a DuckDB file, for a backup, and fill a new lake from one.

Each table is compared afterwards. The files of retention go with the tables where they are
elsewhere then, in the home or in a lake's bucket.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.extensions.machines import lake_connection, lake_schema
from components.extensions.machines.lake import quoted
from components.extensions.machines.lake_schema import OWNER_ROW, Table
from components.store import archived_files, lock, warehouse
from components.store.warehouse_port import GROUPS, Connection, Group

if TYPE_CHECKING:
    from components.extensions.machines.lake_warehouse import Lake

FILE = "home"  # the name under which the DuckDB file is attached

ARCHIVED = "raw.archived"  # the table whose `path` names the files of retention


class MovedTablesError(RuntimeError):
    """A copy differs, or a file of retention is gone; the message names it."""


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

    def renamed(self, table: Table) -> dict[str, str]:
        """Return the SQL of a table's column that names the files, as the target names them."""
        if table.full_name != ARCHIVED:
            return {}
        source, target = quoted(f"{self.source}/"), quoted(self.target)
        return {
            "path": f'case when starts_with("path", {source})'
            f' then {target} || substr("path", {len(self.source) + 1}) else "path" end'
        }


def is_new(lake: "Lake") -> bool:
    """Return whether nobody has opened a lake yet, so that its database has no tables."""
    with lake.session() as session:
        return session.execute("select to_regclass('raw.migrations')").fetchall() == [(None,)]


def fill(target: "Lake", file: Path, report: Callable[[str], None], wait_seconds: float) -> None:
    """Copy all tables of a file into a new lake, which nobody else can open before all are there.

    The files of retention are copied to the lake's object store, if it has one.

    Args:
        target: A lake whose database has no tables.
        file: The DuckDB file.
        report: Called with the name of each table that is there.
        wait_seconds: How long another process may hold one of both.

    Raises:
        MovedTablesError: A copy differs.
        WarehouseBusyError: Another process still holds the file or the lake.
    """
    with warehouse.connect(file, wait_seconds):
        pass  # brings its schema up to date
    with (
        warehouse.connect(target, wait_seconds, writes=GROUPS, filling=True) as con,
        lake_connection.bulk(con),
        _attached(con, file, wait_seconds, is_read_only=True),
    ):
        _set_owner(target, f"being filled from {file}")
        archives = _Archives(_folder(file), target.archive) if target.archive else None
        if archives:
            archives.move(con, f"{FILE}.{ARCHIVED}")
        for table in lake_schema.schema().tables:
            with warehouse.transaction(con, _group(table)):
                renamed = archives.renamed(table) if archives else {}
                _copy(con, table, f"{FILE}.{table.full_name}", _in_lake(table), renamed)
            report(table.full_name)
    _set_owner(target, None)


def save_to_file(source: "Lake", file: Path, home: Path, wait_seconds: float) -> None:
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
    with warehouse.connect(file, wait_seconds):
        pass  # creates it
    with (
        warehouse.reading(source, wait_seconds) as con,
        lake_connection.bulk(con),
        _attached(con, file, wait_seconds, is_read_only=False),
    ):
        # Of the file alone, so without the lake's gates.
        with warehouse.plain_transaction(con, by="commit"):
            # The transaction sees of each database what is there when it reads it first.
            with warehouse.connect(source, wait_seconds, writes=GROUPS):
                for gate in lake_connection.GATES.values():
                    con.execute(f"from {gate}").fetchall()
            if archives:
                archives.move(con, f"lake.{ARCHIVED}", _folder(file))
            for table in lake_schema.schema().tables:
                renamed = archives.renamed(table) if archives else {}
                _copy(con, table, _in_lake(table), f"{FILE}.{table.full_name}", renamed)
        con.execute(f"checkpoint {FILE}")


def _copy(
    con: Connection, table: Table, source: str, target: str, renamed: Mapping[str, str]
) -> None:
    """Copy a table to a new one, and compare them; ``renamed`` are columns that differ there."""
    copied = [renamed.get(column.name, f'"{column.name}"') for column in table.columns]
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    con.execute(f"delete from {target}")  # what the migrations put there
    con.execute(f"insert into {target} ({names}) select {', '.join(copied)} from {source}")
    expected, copy = _content(con, table, source, copied), _content(con, table, target)
    if copy != expected:
        raise MovedTablesError(
            f"copying {table.full_name}: {copy[0]:,} rows arrived with the digest {copy[1]:x}, "
            f"expected {expected[0]:,} with {expected[1]:x}; nothing of this table was kept"
        )


def _content(
    con: Connection, table: Table, name: str, values: Sequence[str] | None = None
) -> tuple[int, int]:
    """Return a table's rows and the sum of their hashes, which does not depend on their order."""
    values = values or [f'"{column.name}"' for column in table.columns]
    typed = zip(values, table.columns, strict=True)
    texts = ", ".join(f"({value})::{column.type}::varchar" for value, column in typed)
    ((rows, hashes),) = con.execute(
        f"select count(*), coalesce(sum(hash([{texts}])::hugeint), 0) from {name}"
    ).fetchall()
    return int(rows), int(hashes)


def _set_owner(lake: "Lake", text: str | None) -> None:
    """Keep others from opening a lake, and say why; ``None`` lets them."""
    with lake.session() as session, session.transaction():
        session.execute("delete from raw.migrations where number = %s", (OWNER_ROW,))
        if text is not None:
            session.execute("insert into raw.migrations values (%s, %s)", (OWNER_ROW, text))


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
