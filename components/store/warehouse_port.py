"""The port to a warehouse that several machines share; a home alone has a DuckDB file.

An extension has one; ``flows.settings`` finds it, and ``warehouse`` asks it where it differs.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import duckdb

Connection: TypeAlias = duckdb.DuckDBPyConnection

Group: TypeAlias = Literal["raw", "curated", "book"]
"""Tables that have one writer at a time: telemetry, what curation makes of it, and the book."""

GROUPS: tuple[Group, ...] = ("raw", "curated", "book")

BOOK = "book"  # the name under which a connection has the database of the book's tables

ENGINE_ERRORS = (duckdb.Error,)  # for those that do not import DuckDB


class WarehouseError(RuntimeError):
    """The shared warehouse can't be opened, or can't do what was asked of it."""


class WarehouseConflictError(RuntimeError):
    """Another process wrote the same tables meanwhile; nothing of the transaction is kept.

    Or the connection was cut: nothing is kept unless that was amid the commit. Do the same again.
    """


class SharedWarehouse(Protocol):
    """A warehouse that several machines share; its text names it without a password."""

    @property
    def archive(self) -> str | None:
        """Where retention puts old rows, for all machines; ``None``: in their homes."""
        ...

    def opened(
        self, writes: Sequence[Group], wait_seconds: float, *, filling: bool
    ) -> AbstractContextManager[Connection]:
        """Open it, created or upgraded if necessary, with the groups locked."""
        ...

    def alone(self, doing: str, wait_seconds: float) -> AbstractContextManager[None]:
        """Let one process of all machines do something at a time.

        Raises:
            WarehouseBusyError: Another one still does it after ``wait_seconds``.
        """
        ...

    def show(self, con: Connection) -> None:
        """Let a further connection find the tables."""
        ...

    def bulk(self, con: Connection) -> AbstractContextManager[None]:
        """Use all processors in the block, which reads or writes much."""
        ...

    def fence(self, con: Connection, writes: Sequence[Group]) -> None:
        """Make the open transaction conflict with any other that writes the same groups."""
        ...

    def explained(self, error: duckdb.Error) -> Exception | None:
        """Return the error of this port that DuckDB's means, if it means one."""
        ...

    def storable(self, text: str) -> str:
        """Return a text as every table can store it."""
        ...

    def insertable(
        self, table: str, records: Sequence[Mapping[str, Any]]
    ) -> tuple[Sequence[Mapping[str, Any]], str, bool]:
        """Return records as the table can store them, without those that repeat a primary key.

        And a join that leaves out those whose key the table has; and whether it ignores them.
        """
        ...

    def empty_tables(self, con: Connection) -> frozenset[str]:
        """Return tables that had no rows when the transaction began; naming them takes long."""
        ...

    def catalog_schema(self, con: Connection) -> str:
        """Return the schema of the book's database that lists the warehouse's files."""
        ...

    def frequent_values(self, con: Connection) -> Iterator[tuple[str, str]]:
        """Yield the values that statistics of the tables hold, with their column."""
        ...

    def purge(self) -> None:
        """Leave no byte of deleted rows and no earlier state.

        Raises:
            WarehouseError: This user is not allowed to.
            WarehouseBusyError: Another process used it for too long.
            WarehouseConflictError: The session of a lock was cut.
        """
        ...

    def save_to_file(self, file: Path, home: Path, wait_seconds: float) -> None:
        """Copy all tables into a new DuckDB file for the ``home``, as they are at one moment.

        The files of retention that are not in the home are copied beside it.
        """
        ...


_shared: "weakref.WeakKeyDictionary[Connection, SharedWarehouse]" = weakref.WeakKeyDictionary()


def note(con: Connection, place: SharedWarehouse) -> None:
    """Note that a connection is to a shared warehouse."""
    _shared[con] = place


def shared(con: Connection) -> SharedWarehouse | None:
    """Return the shared warehouse that a connection is to; ``None`` for a DuckDB file."""
    return _shared.get(con)
