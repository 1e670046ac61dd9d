"""Move old raw rows that nothing references from the warehouse to Parquet.

Rows stay if the current examples or any finished snapshot name them, so every example of a training
set or holdout can be traced to raw. Feedback on such interactions stays too, and so do rows without
a time (0, as in fine-tuning files). The ids of moved rows are kept: loading their file again
changes nothing.
"""

import os
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from components.collect.source import Kind
from components.store import manifest, warehouse
from components.store.manifest import SnapshotManifest
from components.store.warehouse import Connection

KINDS: tuple[Kind, ...] = ("interactions", "feedback")


class SnapshotGoneError(FileNotFoundError):
    """Raised when a recorded snapshot can't be read, so the rows it needs are unknown."""


def archive(con: Connection, folder: Path, workload_id: str, *, days: int, now: datetime) -> int:
    """Archive the workload's rows older than ``days``; return their number.

    A month's rows of a kind become ``<kind>/<workload>/<month>/<digest>.parquet`` in ``folder``,
    which is on disk before the rows are deleted.

    Raises:
        SnapshotGoneError: A recorded snapshot's folder is missing; nothing is deleted.
    """
    before = now - timedelta(days=days)
    with warehouse.transaction(con):
        needed = _needed(con, workload_id)
        with warehouse.present(con, "needed", {"id": pa.array(needed, pa.string())}):
            values = {"workload_id": workload_id, "before": before}
            warehouse.build(con, "temp/old_interactions", **values)
            warehouse.build(con, "temp/old_feedback", **values)
        return sum(_archive(con, folder, kind, workload_id) for kind in KINDS)


def _archive(con: Connection, folder: Path, kind: Kind, workload_id: str) -> int:
    moved = 0
    for (month,) in con.execute(_MONTHS[kind]).fetchall():
        path = _export(con, folder / kind / quote(workload_id, safe="") / month, kind, month)
        moved += warehouse.append(con, "raw/archived", kind=kind, month=month, place=str(path))
    con.execute(_DROP[kind])
    return moved


def _export(con: Connection, folder: Path, kind: Kind, month: str) -> Path:
    """Write a month's rows to a file named by their digest, in one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".partial"
    warehouse.export(con, f"marts/old_{kind}", partial, month=month)
    _sync(partial)
    path = folder / f"{manifest.file_digest(partial)[:16]}.parquet"
    partial.replace(path)
    _sync(folder)
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _needed(con: Connection, workload_id: str) -> list[str]:
    rows = warehouse.rows(con, _NAMED, workload_id=workload_id)
    needed = {str(row["id"]) for row in rows}
    for row in warehouse.rows(con, _SNAPSHOTS, workload_id=workload_id):
        for path in _tables(Path(str(row["path"]))):
            needed |= _named_in(con, path)
    return sorted(needed)


def _tables(snapshot: Path) -> list[Path]:
    try:
        rows = SnapshotManifest.read(snapshot).rows
    except FileNotFoundError as error:
        raise _gone(snapshot / manifest.NAME) from error
    return [snapshot / f"{side}.parquet" for side in rows]


def _gone(path: Path) -> SnapshotGoneError:
    return SnapshotGoneError(
        f"archiving: the snapshot's {path} is gone, so what it needs is unknown; put it back, "
        "or take the snapshot out of raw.manifests"
    )


def _named_in(con: Connection, path: Path) -> set[str]:
    if not path.exists():
        raise _gone(path)
    rows = warehouse.rows(con, _NAMED_IN_SNAPSHOT, path=str(path))
    return {str(row["id"]) for row in rows}


_MONTHS: dict[Kind, str] = {
    "interactions": "select distinct month from temp.old_interactions order by month",
    "feedback": "select distinct month from temp.old_feedback order by month",
}
_DROP: dict[Kind, str] = {
    "interactions": """
        delete from raw.interactions using temp.old_interactions as old
        where interaction_id = old.id and interactions.timestamp = old.timestamp
    """,
    "feedback": """
        delete from raw.feedback using temp.old_feedback as old
        where feedback_id = old.id and feedback.timestamp = old.timestamp
    """,
}
_NAMED = """
    with named as (
        select workload_id, interaction_ids || feedback_ids as ids from curated.examples
        union all
        select workload_id, interaction_ids || feedback_ids as ids from curated.preferences
        union all
        select workload_id, interaction_ids || feedback_ids as ids from curated.labels
    )

    select unnest(ids) as id
    from named
    where workload_id = $workload_id
"""
_SNAPSHOTS = """
    select path
    from raw.manifests
    where workload_id = $workload_id and kind = 'snapshot'
    order by path
"""
_NAMED_IN_SNAPSHOT = """
    select unnest(interaction_ids || feedback_ids) as id
    from read_parquet($path)
"""
