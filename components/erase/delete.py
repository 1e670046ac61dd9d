"""Delete a subject's rows and files: tombstones and deletions in one transaction."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from components.erase import affected_outputs, decision_comments, subject_rows, tables, tombstones
from components.erase.affected_outputs import Lineage, Output, Outputs
from components.erase.subject import Subject, keyed_digest
from components.erase.subject_rows import Matched
from components.erase.tombstones import Erasure, Kind
from components.store import manifest, record_identity, warehouse
from components.store.warehouse import Connection

PAGES = ("brief.md", "report.html")  # pages of evidence that show requests

ROWS = "samples.parquet"  # the file of evidence with all requests and both answers


def delete_outputs(outputs: Outputs, tainted: Iterable[Output], certificate_id: str) -> None:
    """Delete tainted snapshots and scorecards, unfinished adapters, and the logs of their jobs.

    A finished adapter stays, because it may be serving. Evidence keeps its verdict, whose figures
    name nobody; its pages are replaced by a line, and its samples are deleted.
    """
    for output in tainted:
        folder = outputs.root(output.kind) / output.workload / output.key
        match output.kind:
            case "snapshot" | "scorecard":
                _remove(folder)
            case "adapter":
                if not manifest.is_finished(folder):
                    _remove(folder)
                for job in outputs.jobs.glob(f"*-{output.key}"):
                    _remove(job)
            case "evidence":
                _blank(folder, certificate_id)


def jobs_on(outputs: Outputs, tainted: Iterable[Output]) -> list[Path]:
    """List the jobs whose specification names a tainted snapshot."""
    snapshots = {output.key for output in tainted if output.kind == "snapshot"}
    return [
        spec.parent
        for spec in sorted(outputs.jobs.glob("*/spec.json"))
        if any(f"/{key}" in spec.read_text() for key in snapshots)
    ]


def remove_jobs(folders: Iterable[Path]) -> None:
    """Delete jobs, whose logs show requests that failed."""
    for folder in folders:
        _remove(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        (folder / manifest.NAME).unlink(missing_ok=True)  # half a folder must not look finished
        shutil.rmtree(folder)


def _blank(folder: Path, certificate_id: str) -> None:
    """Replace the pages of finished evidence, and finish it again under its old date."""
    if not manifest.is_finished(folder):
        _remove(folder)
        return
    notice = f"Erased: this page showed requests of {certificate_id}.\n"
    body = manifest.read(folder)
    files = body["files"]
    assert isinstance(files, dict)
    pages = [folder / name for name in PAGES if name in files]
    blanked = all(
        page.read_text() == notice and files[page.name] == manifest.file_digest(page)
        for page in pages
    )
    if blanked and ROWS not in files:
        return
    (folder / ROWS).unlink(missing_ok=True)
    for page in pages:
        manifest.write_atomically(page, notice)
    rest = {k: v for k, v in body.items() if k not in ("kind", "key", "created_at", "files")}
    made = datetime.fromisoformat(str(body["created_at"]))
    manifest.write(folder, kind="evidence", now=made, body=rest)


CACHES = ("curated.token_counts",)
"""Unkeyed digests of texts, against which a guess could be checked; rebuilt when needed."""

AS_THEY_CAME = "raw"  # the schema of source tables; all other schemas are rebuilt from it


def row_ids(con: Connection) -> frozenset[str]:
    """Return the ids of the matched interactions and feedback."""
    return frozenset(id for kind in _IDS for id in _ids(con, kind))


def row_digests(con: Connection, key: str) -> dict[Kind, list[str]]:
    """Digest the ids of the matched rows by kind, so that they are not loaded again."""
    return {kind: [keyed_digest(key, id) for id in _ids(con, kind)] for kind in _IDS}


def content_digests(con: Connection, key: str) -> dict[Kind, list[str]]:
    """Digest contents and times of the matched interactions, so that no other form is loaded.

    The times select the loaded rows that have to be compared.
    """
    digests: dict[Kind, list[str]] = {"contents": [], "times": []}
    for row in warehouse.read(con, "marts/erased_contents", _Content):
        digests["contents"].append(_content_digest(key, row.record))
        digests["times"].append(keyed_digest(key, row.microseconds))
    return digests


def _content_digest(key: str, text: str) -> str:
    try:
        return record_identity.erased_digest(key, record_identity.read(text))
    except RecursionError:
        return record_identity.erased_deep_digest(key, text)


@dataclass(frozen=True, slots=True)
class _Content:
    record: str
    microseconds: str


def refused_digests(con: Connection, key: str, quarantine_ids: Iterable[str]) -> list[str]:
    """Digest the bytes of refused lines."""
    rows = con.execute(
        "select content from raw.quarantine where list_contains($ids, quarantine_id)",
        {"ids": list(quarantine_ids)},
    ).fetchall()
    return [keyed_digest(key, content) for (content,) in rows]


def delete_rows(
    con: Connection, subject: Subject, quarantine_ids: Iterable[str], names: Iterable[str]
) -> Mapping[str, int]:
    """Delete the matched rows from raw, and the rows that name them from all other tables.

    The next curation rebuilds those tables, so deleting too many rows there does no harm.

    Args:
        con: The warehouse, in a transaction, after ``subject_rows.match_rows``.
        subject: Whose rows; within its scope its id counts as a name.
        quarantine_ids: The refused lines to delete.
        names: Further names of the subject in built tables, besides the ids of its rows.

    Returns:
        The number of deleted rows by table.
    """
    gone: dict[str, int] = {}
    known_as = _names(con, subject, names)
    gone["raw.decision_words"] = decision_comments.blank_comments(con, subject, known_as)
    gone["raw.champion_journal"] = decision_comments.blank_reasons(con, subject, known_as)
    for searched, within in ((_names(con, subject, names), {}), ([subject.id], subject.within)):
        with warehouse.present(con, "erased_names", {"name": pa.array(searched, pa.string())}):
            for table in tables.tables(con):
                if table.schema != AS_THEY_CAME:
                    count = tables.delete_naming(con, table, "erased_names", within)
                    gone[table.full_name] = gone.get(table.full_name, 0) + count
    for table, sql in _DELETE.items():
        gone[table] = _count(con, sql)
    for table in CACHES:
        gone[table] = tables.delete_all(con, table)
    gone["raw.quarantine"] = _count(
        con,
        "delete from raw.quarantine where list_contains($ids, quarantine_id)",
        ids=list(quarantine_ids),
    )
    return {place: count for place, count in gone.items() if count}


def forget_outputs(con: Connection, tainted: Iterable[Output]) -> None:
    """Delete the records of outputs whose folders are deleted."""
    for output in tainted:
        if output.kind in ("snapshot", "scorecard"):
            con.execute(
                "delete from raw.manifests where kind = $kind and key = $key",
                {"kind": output.kind, "key": output.key},
            )


def _names(con: Connection, subject: Subject, names: Iterable[str]) -> list[str]:
    """Return all names of the erased rows in built tables."""
    only = [str(row["tie"]) for row in warehouse.select(con, "marts/only_erased")]
    return sorted({*row_ids(con), *names, *only, *_actors(con, subject)})


def _actors(con: Connection, subject: Subject) -> list[str]:
    """Return the subject's names as an actor in curation: client and id."""
    rows = con.execute(
        "select distinct client_id from temp.erased_feedback where reason is not null order by all"
    ).fetchall()
    return [f"{client_id} {subject.id}" for (client_id,) in rows]


def _ids(con: Connection, kind: Kind) -> list[str]:
    return [id for (id,) in con.execute(_IDS[kind]).fetchall()]


def _count(con: Connection, sql: str, **values: warehouse.Value) -> int:
    return int(con.execute(sql, values or None).fetchall()[0][0])


_IDS: dict[Kind, str] = {
    "interactions": (
        "select distinct id from temp.erased_interactions where reason is not null order by id"
    ),
    "feedback": "select distinct id from temp.erased_feedback where reason is not null order by id",
}
_DELETE = {
    "raw.interactions": """
        delete from raw.interactions using temp.erased_interactions as erased
        where interaction_id = erased.id and erased.reason is not null
    """,
    "raw.feedback": """
        delete from raw.feedback using temp.erased_feedback as erased
        where feedback_id = erased.id and erased.reason is not null
    """,
}


@dataclass(frozen=True, slots=True)
class SubjectMatch:
    """A subject's rows, and the outputs made from them."""

    matched: Matched
    lineage: Lineage
    words: int = 0
    """Approvers' texts about the subject."""

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to erase."""
        return not self.matched.total and not self.words


def find_subject(con: Connection, subject: Subject, outputs: Outputs) -> SubjectMatch:
    """Find a subject's rows and the outputs made from them, without changing anything.

    Raises:
        ArchiveGoneError: A file of retention is gone.
    """
    matched = subject_rows.match_rows(con, subject)
    traced = affected_outputs.trace(outputs, row_ids(con))
    return SubjectMatch(matched, traced, decision_comments.count_comments(con, subject))


def text_matcher(
    con: Connection, subject: Subject, outputs: Outputs, names: Sequence[str]
) -> Callable[[str], bool]:
    """Return a predicate: whether a text is about the subject or its rows; call before deletion.

    Raises:
        ArchiveGoneError: A file of retention is gone.
    """
    requests = find_subject(con, subject, outputs).lineage.requests
    return decision_comments.text_matcher(subject, [*row_ids(con), *requests, *names])


def erase(
    con: Connection,
    subject: Subject,
    outputs: Outputs,
    *,
    names: Sequence[str] = (),
    now: datetime,
) -> Erasure:
    """Add tombstones, delete a subject's rows and record the affected outputs, in one transaction.

    Args:
        con: The warehouse.
        subject: Whom to erase.
        outputs: The roots of outputs.
        names: Further names of the subject in built tables.
        now: The time (UTC).

    Raises:
        ArchiveGoneError: A file of retention is gone; nothing is changed.
    """
    with warehouse.transaction(con):
        match = find_subject(con, subject, outputs)
        erasure = tombstones.begin_erasure(con, subject, now=now)
        _add_tombstones(con, erasure, match.matched)
        affected_outputs.record(con, erasure.certificate_id, match.lineage.tainted)
        tombstones.add_counts(con, erasure.certificate_id, subject_rows.rewrite_archive(con))
        known_as = [*match.lineage.requests, *names]
        gone = delete_rows(con, subject, match.matched.quarantine, known_as)
        forget_outputs(con, match.lineage.tainted)
        tombstones.add_counts(con, erasure.certificate_id, gone)
    return erasure


def clear_files(con: Connection, erasure: Erasure, outputs: Outputs, archived: Path) -> None:
    """Delete the files that hold erased data; idempotent."""
    subject_rows.drop_unnamed(con, archived)
    tainted = affected_outputs.recorded(con, erasure.certificate_id)
    delete_outputs(outputs, tainted, erasure.certificate_id)


def _add_tombstones(con: Connection, erasure: Erasure, matched: Matched) -> None:
    key, certificate_id = tombstones.digest_key(con), erasure.certificate_id
    for kind, digests in (row_digests(con, key) | content_digests(con, key)).items():
        tombstones.add_tombstones(con, certificate_id, kind, digests)
    refused = refused_digests(con, key, matched.quarantine)
    tombstones.add_tombstones(con, certificate_id, "lines", refused)
    tombstones.add_tombstones(con, certificate_id, "texts", subject_rows.own_texts(con, key))
