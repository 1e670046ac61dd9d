"""Walk all tables of the warehouse, and rewrite its file so that deleted bytes are gone."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from components.store import lock, warehouse
from components.store.warehouse import Connection

BATCH_ROWS = 4096

_WITHOUT_TEXT = re.compile(
    r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|BOOLEAN|DATE|TIME.*|INTERVAL|UUID"
    r"|DECIMAL\(.*\))(\[\d*\])*"
)


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table; ``type`` as DuckDB writes it."""

    name: str
    type: str

    @property
    def may_hold_text(self) -> bool:
        """Whether anything but numbers, truth values and times can stand in it."""
        return _WITHOUT_TEXT.fullmatch(self.type) is None


@dataclass(frozen=True, slots=True)
class WarehouseTable:
    """A table with its columns; views and temporary tables are none."""

    schema: str
    name: str
    columns: tuple[TableColumn, ...]

    @property
    def full_name(self) -> str:
        """The name as people write it."""
        return f"{self.schema}.{self.name}"

    @property
    def texts(self) -> tuple[TableColumn, ...]:
        """The columns that may hold text, however deep."""
        return tuple(column for column in self.columns if column.may_hold_text)


def tables(con: Connection) -> list[WarehouseTable]:
    """List every table of the warehouse, by name."""
    rows = con.execute(
        """
        select
            tables.schema_name,
            tables.table_name,
            list(columns.column_name order by columns.column_index),
            list(columns.data_type order by columns.column_index)
        from duckdb_tables() as tables
        inner join duckdb_columns() as columns using (database_oid, table_oid)
        where tables.database_name = current_database() and not tables.temporary
        group by tables.schema_name, tables.table_name
        order by tables.schema_name, tables.table_name
        """
    ).fetchall()
    return [
        WarehouseTable(schema, name, tuple(map(TableColumn, columns, types)))
        for schema, name, columns, types in rows
    ]


def values(
    con: Connection, table: WarehouseTable, columns: tuple[TableColumn, ...]
) -> Iterator[tuple[object, ...]]:
    """Go through the values of some columns of a table, row by row."""
    listed = ", ".join(_quoted(column.name) for column in columns)
    cursor = con.execute(f"select {listed} from {_named(table)}")
    while rows := cursor.fetchmany(BATCH_ROWS):
        yield from rows


def delete_naming(
    con: Connection, table: WarehouseTable, names: str, within: Mapping[str, str] | None = None
) -> int:
    """Delete the rows of a table in whose texts one of the ``names`` stands, as a word of its own.

    Args:
        con: The warehouse.
        table: Any table.
        names: A table with the column ``name``: digests of 16 or 32 hexadecimal digits, or else
            values that fill a column or an element of a list.
        within: Values that columns must have, where the table has them.
    """
    if not table.texts:
        return 0
    texts = ", ".join(f"{_quoted(column.name)}::varchar" for column in table.texts)
    words = " || ".join(_words(column) for column in table.texts)
    here = {column.name for column in table.columns}
    wanted = {name: value for name, value in (within or {}).items() if name in here}
    narrowed = "".join(f" and {_quoted(name)} = ${name}" for name in wanted)
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
    return int(con.execute(sql, {"digests": digests, **wanted}).fetchall()[0][0])


def delete_all(con: Connection, full_name: str) -> int:
    """Delete every row of a table that is only a memory of what was computed before."""
    schema, name = full_name.split(".")
    return int(con.execute(f"delete from {_quoted(schema)}.{_quoted(name)}").fetchall()[0][0])


def _words(column: TableColumn) -> str:
    name = _quoted(column.name)
    return name if column.type == "VARCHAR[]" else f"[{name}::varchar]"


def _named(table: WarehouseTable) -> str:
    return f"{_quoted(table.schema)}.{_quoted(table.name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class WarehouseCopyError(RuntimeError):
    """A copy of the file lacks something; it is not put in the file's place."""


def rewrite_file(path: Path, wait_seconds: float = lock.PATIENCE_SECONDS) -> None:
    """Write the file anew, so that no byte of what was deleted is left in it.

    DuckDB keeps the blocks of deleted rows, also after a checkpoint. All it holds is copied into a
    new file, which takes the old one's place in one rename; a process that waits for the old file
    finds the new one. What a killed rewrite left is written over.

    Raises:
        WarehouseBusyError: The file was still held after ``wait_seconds``.
        WarehouseCopyError: The copy has not all that the file has; the file is as it was.
    """
    with warehouse.connect(path, wait_seconds) as con:
        con.execute("checkpoint")
    copy = path.with_name(path.name + ".rewritten")
    for stale in (copy, copy.with_name(copy.name + ".wal")):
        stale.unlink(missing_ok=True)
    with warehouse.attached(path, wait_seconds) as con:
        con.execute("set force_compression = 'zstd'")
        con.execute(
            f"attach '{warehouse.escaped(copy)}' as copy (storage_version '{lock.STORAGE}')"
        )
        con.execute("copy from database original to copy")
        if (found := _inventory(con, "copy")) != (wanted := _inventory(con, "original")):
            raise WarehouseCopyError(f"rewriting {path}: the copy has {found}, wants {wanted}")
        con.execute("detach copy")
        copy.replace(path)


def _inventory(con: Connection, database: str) -> list[tuple[str, str, int]]:
    """List a database's tables with their rows, its views and its constraints."""
    tables = con.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = $name"
        " order by all",
        {"name": database},
    ).fetchall()
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
