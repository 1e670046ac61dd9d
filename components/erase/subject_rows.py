"""Find the subject's rows in raw, in the archive and in quarantine, and what people wrote.

The archive is rewritten without them, and approvers' texts are blanked; their chain stays valid.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
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


APPROVER = "approver"  # the field of the approver's name
DOCUMENT = "document"  # the field of the signed statement or the rules, which also has the name

ERASED = "(erased)"  # replaces a note

OF_WORKLOAD = "($workload_id::varchar is null or workload_id = $workload_id)"

RELEASES = ("curated.releases", "curated.released_losses")  # what people let in, with their notes


def text_matcher(subject: Subject, names: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate: whether a text holds the subject's id or one of the ``names``."""
    known = set(names)
    pattern = None if subject.client_id else re.compile(subject.pattern, re.ASCII)

    def is_about(text: str) -> bool:
        if not known.isdisjoint(re.findall(r"\w+", text)):
            return True
        return pattern is not None and pattern.search(text) is not None

    return is_about


def blank_comments(con: Connection, subject: Subject, names: Iterable[str]) -> int:
    """Delete the texts that hold the subject's id, or one of the ``names``; return how many.

    With mentions this includes an approver with that name, and that approver's last code.
    """
    texts = _about(con, subject, names)
    for sequence, field in texts:
        con.execute(
            "delete from raw.decision_words where sequence = $sequence and field = $field",
            {"sequence": sequence, "field": field},
        )
    if subject.mentions and not subject.is_narrowed:
        con.execute("delete from raw.approver_codes where approver = $id", {"id": subject.id})
        con.execute("delete from raw.starters where started_by = $id", {"id": subject.id})
    return len(texts)


def count_comments(con: Connection, subject: Subject) -> int:
    """Count the texts that hold the subject's id, in decisions and notes."""
    return len(_about(con, subject, ())) + len(_notes(con, subject, ()))


def _about(con: Connection, subject: Subject, names: Iterable[str]) -> list[tuple[int, str]]:
    workload_id = subject.workload_id
    rows = warehouse.records(con, "marts/decision_texts", _Text, workload_id=workload_id)
    is_about = text_matcher(subject, names)
    texts = {
        (row.sequence, row.field)
        for row in rows
        if (row.field not in (APPROVER, DOCUMENT) or subject.mentions) and is_about(row.text)
    }
    # A signed statement has the digest of the text, against which a guess could be checked.
    decisions = {sequence for sequence, _ in texts}
    texts |= {
        (r.sequence, r.field) for r in rows if r.sequence in decisions and r.field == DOCUMENT
    }
    return sorted(texts)


@dataclass(frozen=True, slots=True)
class _Text:
    sequence: int
    field: str
    text: str


def blank_notes(con: Connection, subject: Subject, names: Iterable[str]) -> Mapping[str, int]:
    """Blank the notes about the subject on what people let in; return the row counts by table.

    The rows stay, because they are about other people's interactions, and else the next curation
    asks again. With mentions this includes an operator with that name.
    """
    blanked: Counter[str] = Counter()
    for table, column, text in _notes(con, subject, names):
        changed = con.execute(
            f"update {table} set {column} = $erased"  # noqa: S608 - of ours
            f" where {column} = $text and {OF_WORKLOAD}",
            {"erased": ERASED, "text": text, "workload_id": subject.workload_id},
        ).fetchall()
        blanked[table] += changed[0][0]
    return blanked


def _notes(con: Connection, subject: Subject, names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return the texts about the subject on what people let in, with their table and column."""
    is_about = text_matcher(subject, names)
    columns = ("note", "released_by") if subject.mentions else ("note",)
    return [
        (table, column, text)
        for table, column in product(RELEASES, columns)
        for text in warehouse.texts(
            con,
            f"select distinct {column} from {table} where {OF_WORKLOAD}",  # noqa: S608 - of ours
            workload_id=subject.workload_id,
        )
        if is_about(text)
    ]
