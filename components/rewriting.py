"""Write the warehouse's file anew, so that no byte of what was deleted is left in it.

DuckDB keeps the blocks of deleted rows, also after a checkpoint.
"""

from pathlib import Path

from components import opening, warehouse
from components.warehouse import Connection


class WarehouseCopyError(RuntimeError):
    """A copy of the file lacks something; it is not put in the file's place."""


def rewrite(path: Path, wait_seconds: float = opening.PATIENCE_SECONDS) -> None:
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
            f"attach '{warehouse.escaped(copy)}' as copy (storage_version '{opening.STORAGE}')"
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
