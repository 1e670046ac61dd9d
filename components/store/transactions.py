"""Transactions of a connection, rolled back on an error, which is then the one that is raised."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Literal

import duckdb


@contextmanager
def ended(con: duckdb.DuckDBPyConnection, by: Literal["commit", "rollback"]) -> Generator[None]:
    """Begin a transaction for the block, and end it; an error within it rolls it back."""
    con.execute("begin transaction")
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):  # ended by the error, or the connection was cut
            con.execute("rollback")
        raise
    con.execute(by)
