"""Find the subject's rows in raw, in the archive and in quarantine; rewrite the archive."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.erase.subject import Subject, content_texts, keyed_digest
from components.store import manifest, warehouse
from components.store.warehouse import Connection

IDS = {"interactions": "interaction_id", "feedback": "feedback_id"}


def rewrite_archive(con: Connection) -> dict[str, int]:
    """Rewrite each archive file without its erased rows; return how many were removed, by kind.

    Runs within the open transaction; the old files stay until ``drop_unnamed``.
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
    """Delete the archive files that ``raw.archived`` does not name; return them."""
    named = {row[0] for row in con.execute("select distinct path from raw.archived").fetchall()}
    dropped = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    dropped = [path for path in dropped if str(path) not in named]
    for path in dropped:
        path.unlink()
    return dropped


def _affected(con: Connection, kind: str) -> dict[str, set[str]]:
    rows = warehouse.rows(con, _AFFECTED[kind])
    affected: dict[str, set[str]] = {}
    for row in rows:
        affected.setdefault(str(row["path"]), set()).add(str(row["id"]))
    return affected


def _without(path: Path, column: str, erased: AbstractSet[str]) -> Path:
    """Write the remaining rows of a file next to it, named by their digest."""
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


BATCH = 4096


class ArchiveGoneError(FileNotFoundError):
    """A retention file is missing, so it is unknown whether it holds the subject."""


@dataclass(frozen=True, slots=True)
class Matched:
    """A subject's rows.

    ``rows`` counts them by place and reason; ``mentions`` counts other people's rows whose text
    holds the id; ``quarantine`` are the ids of refused lines; ``sources`` the rows' source files.
    """

    rows: dict[tuple[str, str], int]
    mentions: dict[str, int]
    quarantine: tuple[str, ...]
    workloads: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def total(self) -> int:
        """The number of rows and lines."""
        return sum(self.rows.values()) + len(self.quarantine)


def match_rows(con: Connection, subject: Subject) -> Matched:
    """Find the rows of a subject and list them in ``temp.erased_interactions`` and ``_feedback``.

    Raises:
        ArchiveGoneError: A retention file is missing.
    """
    show_archive(con)
    values: dict[str, warehouse.Value] = {
        "subject": subject.id,
        "workload_id": subject.workload_id,
        "client_id": subject.client_id,
        "mentions": subject.mentions,
        "pattern": subject.pattern,
    }
    warehouse.build(con, "temp/erased_interactions", **values)
    warehouse.build(con, "temp/erased_feedback", **values)
    counts = con.execute(_COUNTS).fetchall()
    return Matched(
        rows={(place, reason): count for place, reason, count in counts if reason is not None},
        mentions=dict(
            sum((Counter({place: n}) for place, reason, n in counts if reason is None), Counter())
        ),
        quarantine=tuple(_refused(con, subject)),
        workloads=tuple(name for (name,) in con.execute(_WORKLOADS).fetchall()),
        sources=tuple(path for (path,) in con.execute(_SOURCES).fetchall()),
    )


def show_archive(con: Connection) -> None:
    """Create the views ``archived_interactions`` and ``archived_feedback`` over the archive."""
    for kind in ("interactions", "feedback"):
        sql = "select distinct path from raw.archived where kind = $kind order by path"
        paths = [Path(str(row["path"])) for row in warehouse.rows(con, sql, kind=kind)]
        for path in paths:
            if not path.exists():
                raise ArchiveGoneError(
                    f"erasing: {path}, where retention put old rows, is gone, so nobody knows "
                    "whether it holds the subject; put it back"
                )
        warehouse.show_files(con, f"archived_{kind}", paths, like=f"raw.{kind}")


def own_texts(con: Connection, key: str) -> set[str]:
    """Digest the texts that only matched rows hold."""
    own = {keyed_digest(key, text) for text in _contents(con, is_erased=True)}
    if own:
        own.difference_update(keyed_digest(key, text) for text in _contents(con, is_erased=False))
    return own


@dataclass(frozen=True, slots=True)
class _Record:
    record: str


def _contents(con: Connection, *, is_erased: bool) -> Iterator[str]:
    for row in warehouse.read(con, "marts/subject_records", _Record, is_erased=is_erased):
        yield from content_texts(row.record)


def _refused(con: Connection, subject: Subject) -> Iterator[str]:
    """Yield the refused lines that hold the subject's id or an erased response's."""
    named = con.execute(
        "select distinct response_id from temp.erased_interactions"
        " where reason is not null and response_id is not null"
    ).fetchall()
    answers = {json.dumps(id).encode() for (id,) in named}
    pattern = re.compile(subject.pattern.encode(), re.ASCII)
    quoted = re.compile(rb'"(?:[^"\\]|\\.)*"')
    cursor = con.execute(
        "select quarantine_id, content from raw.quarantine"
        " where ($client::varchar is null or client_id in ('', $client))"
        " and ($workload::varchar is null or workload_id in ('', $workload))"
        " order by quarantine_id",
        {"client": subject.client_id, "workload": subject.workload_id},
    )
    while rows := cursor.fetchmany(BATCH):
        for quarantine_id, content in rows:
            if pattern.search(content) or answers.intersection(quoted.findall(content)):
                yield quarantine_id


_COUNTS = """
    select
        if(is_archived, 'archive of ', 'raw.') || 'interactions' as place,
        reason,
        count(*) as found
    from temp.erased_interactions
    group by all
    union all
    select
        if(is_archived, 'archive of ', 'raw.') || 'feedback' as place,
        reason,
        count(*) as found
    from temp.erased_feedback
    group by all
    order by place, reason
"""
_WORKLOADS = """
    select workload_id
    from temp.erased_interactions
    where reason is not null
    union
    select workload_id
    from temp.erased_feedback
    where reason is not null
    order by workload_id
"""
_SOURCES = """
    select distinct files.path
    from (
        select file_digest
        from temp.erased_interactions
        where reason is not null
        union
        select file_digest
        from temp.erased_feedback
        where reason is not null
    ) as found
    inner join raw.files as files on found.file_digest = files.digest
    order by files.path
"""
