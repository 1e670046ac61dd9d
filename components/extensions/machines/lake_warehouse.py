"""The lake as the port ``SharedWarehouse``, and its upkeep, erasure, filling and backup."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from components.extensions.machines import (
    lake_connection,
    lake_locks,
    lake_purge,
    lake_schema,
    moved_tables,
)
from components.extensions.machines.lake import CATALOG, LakeAddress
from components.extensions.machines.lake_purge import Upkeep
from components.store import lock
from components.store.warehouse_port import BOOK, Connection, Group


@dataclass(frozen=True, slots=True)
class Lake(LakeAddress):
    """A warehouse of Parquet files, a DuckLake catalog and a book in PostgreSQL."""

    def opened(
        self, writes: Sequence[Group], wait_seconds: float, *, filling: bool = False
    ) -> AbstractContextManager[Connection]:
        """Hold the locks of the groups to write, and open a connection."""
        schema = lake_schema.schema()
        return lake_connection.opened(self, schema, writes, wait_seconds, filling=filling)

    def alone(self, doing: str, wait_seconds: float) -> AbstractContextManager[None]:
        """Let one process of all machines do something at a time."""
        return lake_locks.locked(self, [doing], wait_seconds)

    def show(self, con: Connection) -> None:
        """Let a further connection find the tables."""
        lake_connection.show(con, self)

    def bulk(self, con: Connection) -> AbstractContextManager[None]:
        """Use all processors in the block, which reads or writes much."""
        return lake_connection.bulk(con)

    def fence(self, con: Connection, writes: Sequence[Group]) -> None:
        """Make the open transaction conflict with any other that writes the same groups."""
        lake_connection.fence(con, writes)

    def explained(self, error: duckdb.Error) -> Exception | None:
        """Return what DuckDB's error means: a conflict, a refusal, or a bucket that is away."""
        return lake_connection.explained(self, error)

    def storable(self, text: str) -> str:
        """Return a text as PostgreSQL stores it, which has no character 0."""
        return lake_schema.storable(text)

    def insertable(
        self, table: str, records: Sequence[Mapping[str, Any]]
    ) -> tuple[Sequence[Mapping[str, Any]], str, bool]:
        """Return records for a table, a join without those that it has, whether it ignores them."""
        return lake_schema.insertable(table, records)

    def empty_tables(self, con: Connection) -> frozenset[str]:
        """Return tables that had no rows when the transaction began; naming them takes long."""
        return lake_connection.empty_tables(con)

    def catalog_schema(self, con: Connection) -> str:
        """Return the schema of DuckLake's own tables, some of which it makes when it needs them."""
        con.execute("call pg_clear_cache()")
        return CATALOG

    def frequent_values(self, con: Connection) -> Iterator[tuple[str, str]]:
        """Yield the values that PostgreSQL's statistics of the tables hold, with their column."""
        sql = (
            "select schemaname || ''.'' || tablename || ''.'' || attname, concat_ws('' '',"
            " most_common_vals::text, histogram_bounds::text, most_common_elems::text)"
            f" from pg_stats where schemaname in (''{CATALOG}'', ''raw'', ''curated'')"
        )
        rows = con.execute(f"from postgres_query('{BOOK}', '{sql}')").fetchall()
        yield from ((f"statistics of {column}", values) for column, values in rows)

    def purge(self, wait_seconds: float = lock.PATIENCE_SECONDS) -> None:
        """Write files with deleted rows anew, forget earlier states, and vacuum the catalog."""
        lake_purge.purge(self, wait_seconds)

    def earlier_files(self, scratch: Path) -> tuple[Path, Iterator[tuple[str, Path]]]:
        """Return the folder of the files, and those with more than rows of the present state."""
        return Path(self.data), lake_purge.earlier_files(self, scratch)

    def save_to_file(self, file: Path, home: Path, wait_seconds: float) -> None:
        """Copy all tables into a new DuckDB file for a home, as they are at one moment."""
        moved_tables.save_to_file(self, file, home, wait_seconds)

    def is_new(self) -> bool:
        """Return whether nobody has opened it yet, so that its database has no tables."""
        return moved_tables.is_new(self)

    def fill(self, file: Path, report: Callable[[str], None], wait_seconds: float) -> None:
        """Copy all tables of a DuckDB file into it; it must be new."""
        moved_tables.fill(file, self, report, wait_seconds)

    def is_due(self, now: datetime) -> bool:
        """Return whether it has states that are twice as old as they need be."""
        return lake_purge.is_due(self, now)

    def maintain(self, now: datetime, kept: timedelta = lake_purge.KEPT) -> Upkeep:
        """Merge small files; delete what is older than ``kept``."""
        return lake_purge.maintain(self, now, kept)
