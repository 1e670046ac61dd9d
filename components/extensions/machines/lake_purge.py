"""Keep a lake small, and leave nothing of deleted rows: its files, earlier states, its catalog."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.extensions.machines import lake_connection, object_store
from components.extensions.machines.lake import CATALOG
from components.store import archived_files, lock, warehouse
from components.store.lock import WarehouseBusyError
from components.store.warehouse_port import Connection, Group, WarehouseError

if TYPE_CHECKING:
    from components.extensions.machines.lake_warehouse import Lake

GROUPS: tuple[Group, ...] = ("raw", "curated")

KEPT = timedelta(days=1)
"""How long old states and files without a table stay: a reader may still be at one, and a load may
still be writing the other."""

COMPACTIONS = (
    "call ducklake_rewrite_data_files('lake')",
    "call ducklake_merge_adjacent_files('lake')",
)
CLEANUPS = ("ducklake_cleanup_old_files", "ducklake_delete_orphaned_files")

REWRITES = (
    "call ducklake_flush_inlined_data('lake')",
    "call ducklake_rewrite_data_files('lake', delete_threshold => 0)",
)
FORGETTING = (
    # By a time that no clock shows: that of the machine that wrote a state may be ahead.
    "call ducklake_expire_snapshots('lake', older_than => timestamptz '9999-01-01')",
    "call ducklake_cleanup_old_files('lake', cleanup_all => true)",
)

SCHEMAS = (CATALOG, "raw", "curated")

TIGHTEN = f"""
    update {CATALOG}.ducklake_table_column_stats as stats
    set min_value = files.min_value, max_value = files.max_value
    from (
        select
            columns.table_id,
            columns.column_id,
            min(values.min_value collate "C") as min_value,
            max(values.max_value collate "C") as max_value
        from {CATALOG}.ducklake_column as columns
        left join (
            select in_files.*
            from {CATALOG}.ducklake_file_column_stats as in_files
            inner join {CATALOG}.ducklake_data_file as of_files using (data_file_id)
            where of_files.end_snapshot is null
        ) as values
            on columns.table_id = values.table_id and columns.column_id = values.column_id
        where columns.end_snapshot is null and columns.column_type in ('varchar', 'json', 'blob')
        group by columns.table_id, columns.column_id
    ) as files
    where stats.table_id = files.table_id and stats.column_id = files.column_id
"""
"""DuckLake widens the least and the greatest value of a table's column, but narrows them only where
it writes a file anew: not if all rows of a file are deleted, as in a load of one person."""

FILES = f"""
    select path from {CATALOG}.ducklake_data_file
    union all select path from {CATALOG}.ducklake_delete_file
    union all select path from {CATALOG}.ducklake_files_scheduled_for_deletion
"""

WHOLE = f"""
    select path from {CATALOG}.ducklake_data_file as files
    where end_snapshot is null and not exists (
        select from {CATALOG}.ducklake_delete_file as deletes
        where deletes.data_file_id = files.data_file_id and deletes.end_snapshot is null
    )
"""
"""Files that hold rows of the present state only."""

SEEN = """
    select coalesce(application_name, '') || ' (process ' || pid || ')'
    from pg_stat_activity
    where
        pid <> pg_backend_pid() and coalesce(datname, current_database()) = current_database()
        and greatest(age(backend_xmin), age(backend_xid)) > age(%(xid)s::text::xid)
    union all
    select 'the replication slot ' || slot_name
    from pg_replication_slots
    where greatest(age(xmin), age(catalog_xmin)) > age(%(xid)s::text::xid)
    union all
    select 'the prepared transaction ' || gid
    from pg_prepared_xacts
    where database = current_database() and age(transaction) > age(%(xid)s::text::xid)
"""
"""Who may see rows that were deleted before a transaction; PostgreSQL keeps these for them."""

GATE = "/gate/"  # in the path of files that hold a number, of which each load writes one

POLL_SECONDS = 0.5

STATISTICS = "pg_catalog.pg_statistic"
"""Values that are frequent in a column, and its histogram."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How many files were written anew, states forgotten, and files deleted."""

    rewritten: int
    forgotten: int
    deleted: int


def is_due(place: "Lake", now: datetime, kept: timedelta = KEPT) -> bool:
    """Return whether a lake has states that are twice as old as they need be."""
    sql = "select count(*), min(snapshot_time) from ducklake_snapshots('lake')"
    with warehouse.reading(place) as con:
        ((states, oldest),) = con.execute(sql).fetchall()
    return states > 1 and oldest < now - 2 * kept


def maintain(place: "Lake", now: datetime, kept: timedelta = KEPT) -> Upkeep:
    """Merge small files and those with many deleted rows; delete what is older than ``kept``.

    Nobody loads or curates meanwhile. A kill leaves files that the next call deletes.

    Raises:
        WarehouseBusyError: A load or a curation held the lake for too long.
        WarehouseConflictError: The session of a lock was cut.
    """
    before = {"before": now - kept}
    with warehouse.connect(place, writes=GROUPS) as con, lake_connection.bulk(con):
        rewritten = sum(compact(con, place, call) for call in COMPACTIONS)
        expire = "call ducklake_expire_snapshots('lake', older_than => $before)"
        forgotten = len(con.execute(expire, before).fetchall())
        deleted = 0
        for name in CLEANUPS:
            place.require_locks(GROUPS)
            call = f"call {name}('lake', older_than => $before)"
            deleted += len(con.execute(call, before).fetchall())
    return Upkeep(rewritten, forgotten, deleted)


def compact(con: Connection, place: "Lake", call: str) -> int:
    """Commit a function of DuckLake that writes files anew; return their number.

    Raises:
        WarehouseConflictError: The session of a lock was cut.
    """
    # DuckLake takes no change of a gate's row beside a compaction, so the locks alone protect it.
    with warehouse.plain_transaction(con, by="commit"):
        tables = con.execute(call).fetchall()
        place.require_locks(GROUPS)
    return sum(int(row[2]) for row in tables)


def purge(place: "Lake", wait_seconds: float = lock.PATIENCE_SECONDS) -> None:
    """Write files with deleted rows anew, forget all earlier states, and vacuum the catalog.

    Nobody loads or merges a curation meanwhile; who reads an earlier state loses its files. A kill
    leaves what the next call deletes.

    Raises:
        WarehouseError: PostgreSQL does not let this user vacuum a table.
        WarehouseBusyError: A lock was held, or a transaction that sees deleted rows was open, for
            longer than ``wait_seconds``.
        WarehouseConflictError: The session of a lock was cut.
    """
    with warehouse.connect(place, wait_seconds, writes=GROUPS) as con:
        for call in REWRITES:
            compact(con, place, call)
        for call in FORGETTING:
            place.require_locks(GROUPS)
            con.execute(call)
        _delete_strays(con, place)
    _vacuum(place, wait_seconds)


def _delete_strays(con: Connection, place: "Lake") -> None:
    """Delete the files that the catalog does not name, such as those of killed loads."""
    files = stored_files(place)
    with place.session() as session:
        session.execute(TIGHTEN)
        # After this a transaction that wrote one of the files is committed, or will conflict. And
        # processes read the narrowed statistics again, which they would put back else.
        with warehouse.transaction(con, *GROUPS):
            pass
        known = _names(session, FILES)
    strays = [file for file in files if _name(file) not in known]
    if not place.data.startswith("s3://"):
        for file in strays:
            (Path(place.data) / file).unlink(missing_ok=True)
        return
    store, folder = object_store.located(place.data)
    for file in strays:
        store.remove_file(f"{folder}/{file}")
    with suppress(OSError):  # not allowed: what is left is named where it is searched for
        store.forget_uploads(f"{folder}/")
        store.forget_versions(f"{folder}/")


def stored_files(place: "Lake") -> list[str]:
    """List the files of a lake, relative to its folder."""
    if place.data.startswith("s3://"):
        store, folder = object_store.located(place.data)
        return store.files(folder)
    folder = Path(place.data)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def earlier_files(place: "Lake", scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that hold more than rows of the present state, with their address.

    Those of a bucket are copied to ``scratch``, in all versions, one after another, and after them
    the earlier versions of what retention put beside the lake.

    Raises:
        OSError: The versions of objects can't be listed; all files were yielded.
    """
    with place.session() as session:
        whole = _names(session, WHOLE)
    listed = [file for file in stored_files(place) if GATE not in file]
    earlier = [file for file in listed if _name(file) not in whole]
    if not place.data.startswith("s3://"):
        yield from ((f"{place.data}/{file}", Path(place.data) / file) for file in earlier)
        return
    copy = scratch / "earlier"
    for file in earlier:
        if archived_files.fetch(f"{place.data}/{file}", copy):
            yield f"{place.data}/{file}", copy
            copy.unlink()  # else it is searched once more, as a file of the home
    for address in filter(None, (place.data, place.archive)):
        store, folder = object_store.located(address)
        for key, version in store.old_versions(f"{folder}/"):
            if GATE in key:
                continue
            store.get_version(key, version, copy)
            yield f"{store.url}/{key} in its version {version}", copy
            copy.unlink()


def _name(file: str) -> str:
    return file.rpartition("/")[2]  # DuckLake draws it, so no two files have the same


def _names(session: Any, sql: str) -> set[str]:  # noqa: ANN401 - psycopg is not installed everywhere
    return {_name(path) for (path,) in session.execute(sql).fetchall()}


def _vacuum(place: "Lake", wait_seconds: float) -> None:
    """Write the tables of the catalog and of the book anew, without deleted rows."""
    refused = list[str]()

    def note(notice: Any) -> None:  # noqa: ANN401 - as above
        refused.append(str(notice.message_primary))

    with place.session() as session:
        session.add_notice_handler(note)
        _wait_for_readers(place, session, time.monotonic() + wait_seconds)
        tables = session.execute(
            "select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables"
            " where schemaname = any(%s) order by 1",
            ([*SCHEMAS],),
        ).fetchall()
        for (table,) in tables:
            place.patiently(session, f"vacuum (full, analyze) {table}", wait_seconds)
        # Whoever came meanwhile may see the statistics that these have replaced.
        _wait_for_readers(place, session, time.monotonic() + wait_seconds)
        place.patiently(session, f"vacuum (full) {STATISTICS}", wait_seconds)
    if refused:
        raise WarehouseError(
            f"vacuuming {place}: {'; '.join(refused)}; expected a user that owns the database"
        )


def _wait_for_readers(place: "Lake", session: Any, until: float) -> None:  # noqa: ANN401 - as above
    ((xid,),) = session.execute("select pg_current_xact_id()::xid::text").fetchall()
    while seen := session.execute(SEEN, {"xid": xid}).fetchall():
        if time.monotonic() >= until:
            raise WarehouseBusyError(
                f"vacuuming {place}: {', '.join(name for (name,) in seen)} may still see what was "
                "deleted, so PostgreSQL keeps it; end that, and do the same again"
            )
        time.sleep(POLL_SECONDS)
