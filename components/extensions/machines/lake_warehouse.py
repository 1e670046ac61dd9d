"""The lake as the port ``SharedWarehouse``, and its upkeep, erasure, filling and backup."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from components.extensions.machines import (
    lake_connection,
    lake_purge,
    lake_schema,
    moved_tables,
)
from components.extensions.machines.lake import CATALOG, LakeAddress
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

    show = lake_connection.show
    bulk = staticmethod(lake_connection.bulk)
    fence = staticmethod(lake_connection.fence)
    explained = lake_connection.explained
    storable = staticmethod(lake_schema.storable)
    insertable = staticmethod(lake_schema.insertable)
    empty_tables = staticmethod(lake_connection.empty_tables)

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

    is_due = lake_purge.is_due
    maintain = lake_purge.maintain
    is_new = moved_tables.is_new
    fill = moved_tables.fill
    save_to_file = moved_tables.save_to_file
