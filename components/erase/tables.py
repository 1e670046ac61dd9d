"""Walk all tables of the warehouse, and rewrite it so that deleted bytes are gone."""

import re
import shutil
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from components.store import home_files, lock, warehouse, warehouse_port
from components.store.warehouse import Connection, Location
from components.store.warehouse_port import BOOK, SharedWarehouse

BATCH_ROWS = 4096

SPILLED = ".tmp"  # DuckDB's suffix of the folder beside a file for what does not fit into memory

_WITHOUT_TEXT = re.compile(
    r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|BOOLEAN|DATE|TIME.*|INTERVAL|UUID"
    r"|DECIMAL\(.*\))(\[\d*\])*"
)


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column; ``type`` in DuckDB's notation."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class WarehouseTable:
    """A table with its columns; not a view or a temporary table."""

    database: str
    schema: str
    name: str
    columns: tuple[TableColumn, ...]

    @property
    def full_name(self) -> str:
        """The name with its schema."""
        return f"{self.schema}.{self.name}"

    @property
    def is_in_book(self) -> bool:
        """Whether it is of the book of a shared warehouse."""
        return self.database == BOOK

    @property
    def texts(self) -> tuple[TableColumn, ...]:
        """The columns that may hold anything but numbers, booleans and times, at any depth."""
        return tuple(c for c in self.columns if not _WITHOUT_TEXT.fullmatch(c.type))


def tables(con: Connection) -> list[WarehouseTable]:
    """List every table of the warehouse, by name."""
    listed = tables_of(con, "current_database()")
    if warehouse_port.shared(con) is not None:
        of_book = f"tables.database_name = '{BOOK}'"
        listed += _tables(con, f"{of_book} and tables.schema_name in ('raw', 'curated')")
    return sorted(listed, key=lambda table: table.full_name)


def tables_of(con: Connection, database: str) -> list[WarehouseTable]:
    """List the tables of a database, by name; it is an expression of SQL."""
    return _tables(con, f"tables.database_name = {database}")


def catalog_tables(con: Connection, place: SharedWarehouse) -> list[WarehouseTable]:
    """List the tables in which a catalog describes the files, and keeps small changes."""
    schema = place.catalog_schema(con)
    return _tables(con, f"tables.database_name = '{BOOK}' and tables.schema_name = '{schema}'")


def _tables(con: Connection, condition: str) -> list[WarehouseTable]:
    rows = con.execute(
        f"""
        select
            tables.database_name,
            tables.schema_name,
            tables.table_name,
            list(columns.column_name order by columns.column_index),
            list(columns.data_type order by columns.column_index)
        from duckdb_tables() as tables
        inner join duckdb_columns() as columns using (database_oid, table_oid)
        where {condition} and not tables.temporary
        group by tables.database_name, tables.schema_name, tables.table_name
        order by tables.schema_name, tables.table_name
        """
    ).fetchall()
    return [
        WarehouseTable(database, schema, name, tuple(map(TableColumn, columns, types)))
        for database, schema, name, columns, types in rows
    ]


def values(
    con: Connection, table: WarehouseTable, columns: tuple[TableColumn, ...]
) -> Iterator[tuple[object, ...]]:
    """Yield the values of some columns of a table, row by row."""
    listed = ", ".join(_quoted(column.name) for column in columns)
    cursor = con.execute(f"select {listed} from {_named(table)}")
    while rows := cursor.fetchmany(BATCH_ROWS):
        yield from rows


def delete_naming(
    con: Connection,
    table: WarehouseTable,
    names: str,
    within: Mapping[str, str],
    passing_over: AbstractSet[str] = frozenset(),
) -> int:
    """Delete the rows of a table whose texts hold one of the ``names`` as a separate word.

    Args:
        con: The warehouse.
        table: Any table.
        names: A table with the column ``name``: digests of 16 or 32 hexadecimal digits, or values
            that equal a whole column or list element.
        within: Required values of columns, for those that the table has.
        passing_over: Columns whose texts are not looked at.
    """
    searched = [column for column in table.texts if column.name not in passing_over]
    # Planning the search takes several times as long as to find a table empty, as half of them are.
    if not searched or not con.execute(f"select 1 from {_named(table)} limit 1").fetchall():
        return 0
    texts = ", ".join(f"{_quoted(column.name)}::varchar" for column in searched)
    words = " || ".join(map(_words, searched))
    columns = {column.name for column in table.columns}
    scope = {name: value for name, value in within.items() if name in columns}
    narrowed = "".join(f" and {_quoted(name)} = ${name}" for name in scope)
    sql = f"""
        delete from {_named(table)}
        where rowid in (
            select found.row_id
            from (
                select
                    rowid as row_id,
                    unnest({words} || regexp_extract_all(concat_ws(' ', {texts}), $digests)) as name
                from {_named(table)}
            ) as found
            semi join {names} as names on found.name = names.name
        ){narrowed}
    """
    digests = r"\b[0-9a-f]{16}(?:[0-9a-f]{16})?\b"
    return int(con.execute(sql, {"digests": digests, **scope}).fetchall()[0][0])


def _words(column: TableColumn) -> str:
    name = _quoted(column.name)
    return name if column.type == "VARCHAR[]" else f"[{name}::varchar]"


def _named(table: WarehouseTable) -> str:
    return f"{_quoted(table.database)}.{_quoted(table.schema)}.{_quoted(table.name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class WarehouseCopyError(RuntimeError):
    """Raised when the copy of the file is incomplete; it does not replace the file."""


def rewrite(place: Location) -> None:
    """Rewrite the warehouse, so that no byte of deleted rows is left in it.

    Raises:
        WarehouseBusyError: Another process used it for too long.
        WarehouseCopyError: The copy of a file is incomplete.
        WarehouseConflictError: The session of a lock was cut.
        WarehouseError: This user may not rewrite it.
    """
    if isinstance(place, Path):
        rewrite_file(place)
    else:
        place.purge()


def rewrite_file(path: Path, wait_seconds: float = lock.PATIENCE_SECONDS) -> None:
    """Rewrite the file, so that no byte of deleted rows is left in it.

    DuckDB keeps the blocks of deleted rows, even after a checkpoint. All rows are copied into a new
    file, which replaces the old one in one rename; a process that waits for the old file opens the
    new one. Raise ``WarehouseBusyError`` if the file is still held after ``wait_seconds``.
    """
    file = path.resolve()  # a link would be replaced, and the old file stay where it leads
    with warehouse.connect(path, wait_seconds) as con:
        # What killed processes had no memory for; no other one has the file open now.
        shutil.rmtree(path.with_name(path.name + SPILLED), ignore_errors=True)
        con.execute("checkpoint")
    copy = file.with_name(file.name + ".rewritten")
    for stale in (copy, copy.with_name(copy.name + ".wal")):
        stale.unlink(missing_ok=True)
    with warehouse.attached(path, wait_seconds) as con:
        con.execute("set force_compression = 'zstd'")
        con.execute(
            f"attach '{warehouse.escaped(copy)}' as copy (storage_version '{lock.STORAGE}')"
        )
        con.execute("copy from database original to copy")
        if (copied := _inventory(con, "copy")) != (original := _inventory(con, "original")):
            raise WarehouseCopyError(
                f"rewriting {path}: the copy has {copied}, expected {original}"
            )
        con.execute("detach copy")
        home_files.give_to_owner(copy, file)
        copy.replace(file)


def _inventory(con: Connection, database: str) -> list[tuple[str, str, int]]:
    """List a database's tables with their row counts, its views and its constraints."""
    sql = "select schema_name, table_name from duckdb_tables() where database_name = $name"
    tables = con.execute(f"{sql} order by all", {"name": database}).fetchall()
    counted: list[tuple[str, str, int]] = []
    for schema, name in tables:
        sql = f'select count(*) from "{database}"."{schema}"."{name}"'
        ((rows,),) = con.execute(sql).fetchall()
        counted.append((schema, name, rows))
    others = con.execute(
        "select schema_name, view_name, 0 from duckdb_views()"
        " where database_name = $name and not internal"
        " union all select schema_name, table_name || ' ' || constraint_text, 0"
        " from duckdb_constraints() where database_name = $name order by all",
        {"name": database},
    ).fetchall()
    return counted + others
