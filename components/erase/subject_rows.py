"""Find the subject's rows in raw, in the archive and in quarantine; rewrite the archive."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.erase.subject import NOBODY, Subject, content_texts, keyed_digest
from components.store import archived_files, home_files, warehouse
from components.store.warehouse import Connection

IDS = {"interactions": "interaction_id", "feedback": "feedback_id"}
BATCH = 4096


class ArchiveGoneError(FileNotFoundError):
    """A retention file is missing, so it is unknown whether it holds the subject."""


def rewrite_archive(con: Connection) -> dict[str, int]:
    """Rewrite each archive file without its erased rows; return how many were removed, by kind.

    Runs within the open transaction; the old files stay until ``drop_unnamed``.
    """
    gone: Counter[str] = Counter()
    for kind, column in IDS.items():
        for file in warehouse.records(con, "marts/erased_archived", _ArchiveFile, kind=kind):
            kept = _without(con, file.path, column, file.ids)
            con.execute(
                "delete from raw.archived"
                " where kind = $kind and path = $path and list_contains($ids, id)",
                {"kind": kind, "path": file.path, "ids": file.ids},
            )
            con.execute(
                "update raw.archived set path = $kept where kind = $kind and path = $path",
                {"kind": kind, "path": file.path, "kept": kept},
            )
            gone[f"archive of {kind}"] += len(file.ids)
    return gone


def drop_unnamed(con: Connection, roots: Collection[str]) -> None:
    """Delete the archive files below some roots that ``raw.archived`` does not name."""
    files = [file for root in roots for file in archived_files.listed(root)]
    with warehouse.transaction(con, "raw"):
        pass  # whoever archived one of them elsewhere has committed by now, or will conflict
    paths = warehouse.texts(con, "select distinct path from raw.archived")
    named = {archived_files.resolved(path) for path in paths}
    for file in files:
        if archived_files.resolved(file) not in named:
            archived_files.remove(file)
    for root in roots:
        archived_files.forget_uploads(root)


@dataclass(frozen=True, slots=True)
class _ArchiveFile:
    path: str
    ids: list[str]


def _without(con: Connection, file: str, column: str, ids: list[str]) -> str:
    """Write the remaining rows of a file next to it, named by their digest or anew."""
    if archived_files.is_remote(file):
        remote = archived_files.new_name(file.rpartition("/")[0])
        con.execute(
            f"copy (from read_parquet('{warehouse.escaped(file)}')"
            f" where not list_contains($ids, {column}))"
            f" to '{warehouse.escaped(remote)}' (format parquet, compression zstd)",
            {"ids": ids},
        )
        return remote
    path = Path(file)
    partial = path.with_name(".erasing")
    is_kept = ~pc.field(column).isin(ids)
    source = pq.ParquetFile(path)
    with pq.ParquetWriter(partial, source.schema_arrow, compression="zstd") as writer:
        for batch in source.iter_batches():
            writer.write_table(pa.Table.from_batches([batch]).filter(is_kept))
    home_files.give_to_owner(partial, path)
    return str(archived_files.put_in_place(partial))


@dataclass(frozen=True, slots=True)
class Matched:
    """A subject's rows."""

    rows: dict[tuple[str, str], int]  # by place and reason
    mentions: dict[str, int]  # other people's rows whose text holds the id, by place
    quarantine: tuple[str, ...]  # the ids of refused lines
    workloads: tuple[str, ...]
    sources: tuple[str, ...]  # the rows' source files

    @property
    def total(self) -> int:
        """The number of rows and lines."""
        return sum(self.rows.values()) + len(self.quarantine)


def match_rows(con: Connection, subject: Subject) -> Matched:
    """Find the rows of a subject; list them in ``temp.erased_interactions`` and ``_feedback``."""
    show_archive(con)
    values: dict[str, warehouse.Value] = {
        "subject": subject.id,
        "workload_id": subject.workload_id,
        "client_id": subject.client_id,
        "mentions": subject.mentions,
        "pattern": subject.pattern,
    }
    warehouse.build(con, "temp/erased_interactions", **values, anonymous=[*NOBODY])
    warehouse.build(con, "temp/erased_feedback", **values)
    counts = warehouse.records(con, "marts/erased_counts", _PlaceCount)
    workloads = warehouse.select(con, "marts/erased_workloads")
    sources = warehouse.select(con, "marts/erased_sources")
    return Matched(
        rows={(c.place, c.reason): c.row_count for c in counts if c.reason is not None},
        mentions={c.place: c.row_count for c in counts if c.reason is None},
        quarantine=tuple(_refused(con, subject)),
        workloads=tuple(str(row["workload_id"]) for row in workloads),
        sources=tuple(str(row["path"]) for row in sources),
    )


@dataclass(frozen=True, slots=True)
class _PlaceCount:
    place: str
    reason: str | None
    row_count: int


def show_archive(con: Connection) -> None:
    """Create the views ``archived_interactions`` and ``archived_feedback`` over the archive."""
    for kind in ("interactions", "feedback"):
        sql = "select distinct path from raw.archived where kind = $kind order by path"
        paths = warehouse.texts(con, sql, kind=kind)
        for path in archived_files.missing(paths):
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


def _contents(con: Connection, *, is_erased: bool) -> Iterator[str]:
    for row in warehouse.read(con, "marts/subject_records", dict[str, str], is_erased=is_erased):
        yield from content_texts(row["record"])


def _refused(con: Connection, subject: Subject) -> Iterator[str]:
    """Yield the refused lines of the subject.

    Those hold its id, an erased response's, or a conversation's of which they name no other user.
    """
    responses = _quoted(con, "response_id", "reason is not null")
    conversations = _quoted(con, "unnest(conversations)", "reason != 'mention'")
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
            texts = set(quoted.findall(content))
            if (
                pattern.search(content)
                or responses & texts
                or (conversations & texts and not _names_user(content))
            ):
                yield quarantine_id


def _quoted(con: Connection, ids: str, condition: str) -> set[bytes]:
    """Return ids of matched rows as JSON has them; the arguments are expressions of SQL."""
    rows = con.execute(
        f"select distinct {ids} as id from temp.erased_interactions where {condition}"  # noqa: S608 - of ours
    ).fetchall()
    return {
        json.dumps(id, ensure_ascii=is_ascii).encode(errors="surrogatepass")
        for (id,) in rows
        if id is not None
        for is_ascii in (True, False)
    }


def _names_user(content: bytes) -> bool:
    names = re.findall(rb'"(?:user|user_id|safety_identifier)"\s*:\s*"([^"]*)"', content)
    return any(name.decode(errors="replace").strip().lower() not in NOBODY for name in names)
