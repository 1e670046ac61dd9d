"""Store much at once, as DuckDB does it fastest."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain

from components import warehouse
from components.shown import Stream, Table
from components.warehouse import Connection, Value

LOGGED = 16 * 2**20
"""Bytes of DuckDB's write-ahead log at which it writes what is in it to the file."""


@contextmanager
def expecting(con: Connection, size: int) -> Generator[None]:
    """Let what the block commits, about that many bytes, go straight to the file if it is much.

    DuckDB does so by itself, but estimates a commit by its rows, whatever they hold: 100,000 of 2.3
    KB would all go into the write-ahead log first, uncompressed.
    """
    if size < LOGGED:
        yield
        return
    con.execute("set checkpoint_threshold = '1KB'")
    try:
        yield
    finally:
        con.execute("reset checkpoint_threshold")


def append(con: Connection, model: str, name: str, tables: Iterator[Table], **values: Value) -> int:
    """Add what the select of ``model`` gives, which reads the tables, made meanwhile, as ``name``.

    All have the schema of the first. What they raise while they are made is raised here. The rows
    are stored in no order: to keep one, DuckDB copies many of them once more, and one thread
    compresses the last row groups alone.
    """
    first = next(tables, None)
    if first is None:
        return 0
    stream = Stream(first.schema, chain([first], tables))
    con.register(name, stream)
    try:
        with _unordered(con):
            added = warehouse.append(con, model, **values)
    finally:
        con.unregister(name)
    if stream.error is not None:
        raise stream.error
    return added


@contextmanager
def _unordered(con: Connection) -> Generator[None]:
    """Let all connections to the file give and store rows in any order that none asks for.

    It is set on one beside: in a transaction that failed nothing can be set back.
    """
    with warehouse.beside(con) as second:
        second.execute("set preserve_insertion_order = false")
        try:
            yield
        finally:
            second.execute("reset preserve_insertion_order")
