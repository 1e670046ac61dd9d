"""Write retention's files anew without the subject's rows.

The new file is on the disk before the books name it, the old one goes after that is committed; a
file that the books do not name is what a killed process left, and goes, too.
"""

from collections.abc import Set as AbstractSet
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import manifest, warehouse
from components.warehouse import Connection

IDS = {"interactions": "interaction_id", "feedback": "feedback_id"}


def rewrite(con: Connection) -> dict[str, int]:
    """Write each file of the archive that holds erased rows again; return how many went, by kind.

    Within the transaction that is open; the old files stay until ``drop_unnamed``.
    """
    gone: dict[str, int] = {}
    for kind, column in IDS.items():
        for path, erased in _affected(con, kind).items():
            kept = _without(Path(path), column, erased)
            values = {"kind": kind, "path": path, "ids": sorted(erased)}
            con.execute(
                "delete from raw.archived"
                " where kind = $kind and path = $path and list_contains($ids, id)",
                values,
            )
            con.execute(
                "update raw.archived set path = $kept where kind = $kind and path = $path",
                {"kind": kind, "path": path, "kept": str(kept)},
            )
            gone[f"archive of {kind}"] = gone.get(f"archive of {kind}", 0) + len(erased)
    return gone


def drop_unnamed(con: Connection, folder: Path) -> list[Path]:
    """Delete the files of the archive that the books do not name; return them."""
    named = {row[0] for row in con.execute("select distinct path from raw.archived").fetchall()}
    dropped = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    dropped = [path for path in dropped if str(path) not in named]
    for path in dropped:
        path.unlink()
    return dropped


def _affected(con: Connection, kind: str) -> dict[str, set[str]]:
    rows = warehouse.rows(con, _AFFECTED[kind])
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(str(row["path"]), set()).add(str(row["id"]))
    return found


def _without(path: Path, column: str, erased: AbstractSet[str]) -> Path:
    """Write what remains of a file beside it, under a name of its content."""
    partial = path.with_name(".erasing")
    is_kept = ~pc.field(column).isin(sorted(erased))
    source = pq.ParquetFile(path)
    with pq.ParquetWriter(partial, source.schema_arrow, compression="zstd") as writer:
        for batch in source.iter_batches():
            writer.write_table(pa.Table.from_batches([batch]).filter(is_kept))
    kept = path.with_name(f"{manifest.file_digest(partial)[:16]}.parquet")
    partial.replace(kept)
    return kept


_AFFECTED = {
    "interactions": """
        select archived.path, archived.id
        from raw.archived as archived
        semi join temp.erased_interactions as erased
            on archived.id = erased.id and erased.reason is not null and erased.is_archived
        where archived.kind = 'interactions'
    """,
    "feedback": """
        select archived.path, archived.id
        from raw.archived as archived
        semi join temp.erased_feedback as erased
            on archived.id = erased.id and erased.reason is not null and erased.is_archived
        where archived.kind = 'feedback'
    """,
}
