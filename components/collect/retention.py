"""Move old raw rows that nothing references from the warehouse to Parquet.

Rows stay if the current examples or any finished snapshot name them, so every example of a training
set or holdout can be traced to raw. Feedback on such interactions stays too, and so do rows without
a time (0, as in fine-tuning files). The ids of moved rows are kept: loading their file again
changes nothing.
"""

from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from components.collect.source import Kind
from components.store import archived_files, manifest, output_folders, warehouse
from components.store.manifest import SnapshotManifest
from components.store.warehouse import Connection

IDS: dict[Kind, str] = {"interactions": "interaction_id", "feedback": "feedback_id"}


class SnapshotGoneError(FileNotFoundError):
    """Raised when a recorded snapshot can't be read, so the rows it needs are unknown."""


class IncompleteArchiveError(RuntimeError):
    """Raised when a file in an object store lacks rows that were written to it."""


def archive(
    con: Connection,
    root: str,
    workload_id: str,
    *,
    snapshots: Path,
    days: int,
    now: datetime,
) -> int:
    """Archive the workload's rows older than ``days``; return their number.

    A month's rows of a kind become ``<kind>/<workload>/<month>/<digest>.parquet`` in ``root``, a
    folder or a shared address, and are there before they are deleted. Recorded snapshots are
    looked for in this home's folder of them, ``snapshots``, as another machine may have frozen
    them, and then where they were frozen. Raise ``SnapshotGoneError``, and delete nothing, if one
    is in neither.
    """
    before = now - timedelta(days=days)
    with warehouse.transaction(con, "raw"):
        needed = _needed(con, workload_id, snapshots)
        with warehouse.present(con, "needed", {"id": pa.array(needed, pa.string())}):
            values = {"workload_id": workload_id, "before": before}
            warehouse.build(con, "temp/old_interactions", **values)
            warehouse.build(con, "temp/old_feedback", **values)
        return sum(_archive(con, root, kind, workload_id) for kind in IDS)


def _archive(con: Connection, root: str, kind: Kind, workload_id: str) -> int:
    moved = 0
    is_remote = archived_files.is_remote(root)
    for (month,) in con.table(f"temp.old_{kind}").unique("month").order("month").fetchall():
        folder = f"{root}/{kind}/{quote(workload_id, safe='')}/{month}"
        path = (_export_to_store if is_remote else _export)(con, folder, kind, month)
        rows = warehouse.append(con, "raw/archived", kind=kind, month=month, place=path)
        if is_remote and (written := warehouse.count_parquet_rows(con, path)) < rows:
            raise IncompleteArchiveError(
                f"archiving: {path} has {written:,} rows, expected {rows:,}; nothing was deleted"
            )
        moved += rows
    con.execute(
        f"delete from raw.{kind} using temp.old_{kind} as old"  # noqa: S608 - names of ours
        f" where {kind}.{IDS[kind]} = old.id and {kind}.timestamp = old.timestamp"
    )
    return moved


def _export_to_store(con: Connection, folder: str, kind: Kind, month: str) -> str:
    path = archived_files.new_name(folder)
    warehouse.export(con, f"marts/old_{kind}", path, month=month)
    return path


def _export(con: Connection, place: str, kind: Kind, month: str) -> str:
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".partial"
    warehouse.export(con, f"marts/old_{kind}", partial, month=month)
    return str(archived_files.put_in_place(partial))


def _needed(con: Connection, workload_id: str, snapshots: Path) -> list[str]:
    rows = warehouse.select(con, "marts/curated_row_ids", workload_id=workload_id)
    needed = {str(row["id"]) for row in rows}
    for snapshot in warehouse.select(con, "marts/snapshot_paths", workload_id=workload_id):
        frozen = Path(str(snapshot["path"]))
        here = snapshots / frozen.parent.name / frozen.name
        for path in _tables(here if output_folders.fetch(here) else frozen):
            rows = warehouse.select(con, "marts/snapshot_row_ids", path=str(path))
            needed.update(str(row["id"]) for row in rows)
    return sorted(needed)


def _tables(snapshot: Path) -> list[Path]:
    paths = [snapshot / manifest.NAME]
    if output_folders.fetch(snapshot):
        paths = [snapshot / f"{side}.parquet" for side in SnapshotManifest.read(snapshot).rows]
    for path in paths:
        if not path.exists():
            of_snapshot = f"kind = 'snapshot' and key = '{snapshot.name}'"
            remedy = f"delete from raw.manifests where {of_snapshot}"  # noqa: S608 - for people
            raise SnapshotGoneError(
                f"archiving: the snapshot's {path} is gone, so what it needs is unknown; put it "
                "back, or, if nothing will be trained on it again, run in the warehouse: " + remedy
            )
    return paths
