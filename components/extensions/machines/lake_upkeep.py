"""Keep a lake small: merge its files, forget old states, and delete what no table lists."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from components.extensions.machines import lake_connection, lake_locks
from components.store import transactions, warehouse
from components.store.warehouse_port import Connection, Group

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


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How many files were written anew, states forgotten, and files deleted."""

    rewritten: int
    forgotten: int
    deleted: int


def is_due(place: "Lake", now: datetime, kept: timedelta = KEPT) -> bool:
    """Return whether a lake has states that are twice as old as they need be."""
    sql = "select count(*), min(snapshot_time) from ducklake_snapshots('lake')"
    with warehouse.connect(place, writes=()) as con:
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
            lake_locks.require_locks(place, GROUPS)
            call = f"call {name}('lake', older_than => $before)"
            deleted += len(con.execute(call, before).fetchall())
    return Upkeep(rewritten, forgotten, deleted)


def compact(con: Connection, place: "Lake", call: str) -> int:
    """Commit a function of DuckLake that writes files anew; return their number.

    Raises:
        WarehouseConflictError: The session of a lock was cut.
    """
    # DuckLake takes no change of a gate's row beside a compaction, so the locks alone protect it.
    with transactions.ended(con, by="commit"):
        tables = con.execute(call).fetchall()
        lake_locks.require_locks(place, GROUPS)
    return sum(int(row[2]) for row in tables)
