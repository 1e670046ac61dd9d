"""Copy databases that other processes are writing to."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from components import opening, warehouse

SQLITE = b"SQLite format 3\x00"
"""How an SQLite database begins (https://www.sqlite.org/fileformat.html, 1.3)."""

BESIDE = ("-wal", "-shm", "-journal", opening.QUEUE)
"""What is kept beside a database while it is used; a copy has all that counts inside."""


def of_warehouse(path: Path, to: Path) -> None:
    """Copy the DuckDB file while nobody else can open it.

    Raises:
        WarehouseBusyError: Another process held it for too long.
    """
    with warehouse.connect(path) as con:
        con.execute("checkpoint")
        shutil.copyfile(path, to)


def of_sqlite(path: Path, to: Path) -> None:
    """Copy a database by SQLite's own online backup, whoever writes to it meanwhile."""
    source = f"file:{path}?mode=ro"
    with (
        closing(sqlite3.connect(source, uri=True)) as open_one,
        closing(sqlite3.connect(to)) as new,
    ):
        open_one.backup(new)


def is_sqlite(path: Path) -> bool:
    """Tell whether a file is an SQLite database."""
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE
