"""Delete a subject's rows and files: tombstones and deletions in one transaction."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

import pyarrow as pa

from components.erase import affected_outputs, subject_rows, tables, tombstones
from components.erase.affected_outputs import IsErased, Lineage, Output, Outputs
from components.erase.subject import Subject, keyed_digest
from components.erase.subject_rows import Matched
from components.erase.tombstones import Erasure, Kind
from components.scorecard import VERDICTS_FILE
from components.store import manifest, output_folders, record_identity, warehouse, warehouse_port
from components.store.warehouse import Connection
from components.store.warehouse_port import WarehouseConflictError

PAGES = ("brief.md", "report.html")  # pages of evidence that show requests

OURS = frozenset({"workload_id", "client_id", "split_by", "side", "stratum", "kind", "rule"})
"""Columns of words of settings or of this code, never a person's: by one who is called `train`, or
like the workload, the sides of all others would be forgotten."""

PEOPLES = frozenset({"released_by", "note"})
"""Columns of what an operator let in and why. They are blanked instead."""

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
                output_folders.remove(folder)
            case "adapter":
                if not output_folders.fetch(folder):
                    output_folders.remove(folder)
                for job in outputs.jobs.glob(f"*-{output.key}"):
                    output_folders.remove(job)
            case "evidence":
                _blank(folder, certificate_id)


def forget_copies(
    outputs: Outputs, tainted: Sequence[Output], *, with_adapters: bool = False
) -> None:
    """Delete a machine's copies of what was erased on another one, and its jobs on them.

    Finished adapters stay unless they go, too, as after a prune; emptied evidence is pulled again
    when it is asked for.
    """
    with output_folders.while_none_finishes(outputs.scorecards, outputs.evidence):
        for output in tainted:
            folder = outputs.root(output.kind) / output.workload / output.key
            is_finished = (folder / manifest.NAME).exists()
            if output.kind != "adapter" or with_adapters or not is_finished:
                output_folders.forget(folder)
            for job in outputs.jobs.glob(f"*-{output.key}"):
                output_folders.forget(job)
        # Of what was killed amid a measurement, or could not be pushed, no other machine knows.
        for workload in {output.workload for output in tainted}:
            for folder in (outputs.scorecards / workload).glob("[!.]*/"):
                if not (folder / manifest.NAME).exists():
                    output_folders.forget(folder)
    remove_jobs_on(outputs, tainted)


def forget_verdicts(outputs: Outputs) -> None:
    """Delete cached verdicts: unkeyed digests of requests, against which a guess could be checked.

    Which of them are of erased rows is not known. Judging again asks for those that it needs.
    """
    for path in outputs.scorecards.glob(f"*/{VERDICTS_FILE}"):
        path.unlink(missing_ok=True)


def remove_jobs_on(outputs: Outputs, tainted: Iterable[Output]) -> None:
    """Delete the jobs on tainted snapshots, because their logs show requests that failed."""
    snapshots = {output.key for output in tainted if output.kind == "snapshot"}
    for spec in sorted(outputs.jobs.glob("*/spec.json")):
        if any(f"/{key}" in spec.read_text() for key in snapshots):
            output_folders.remove(spec.parent)


def _blank(folder: Path, certificate_id: str) -> None:
    """Replace the pages of finished evidence, and finish it again under its old date."""
    if not output_folders.fetch(folder):
        output_folders.remove(folder)
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
    manifest.finish_again(folder)


def row_ids(con: Connection) -> frozenset[str]:
    """Return the ids of the matched interactions and feedback."""
    return frozenset(str(row["id"]) for row in warehouse.select(con, "marts/erased_row_ids"))


def _content_digest(key: str, text: str) -> str:
    try:
        return record_identity.erased_digest(key, record_identity.read(text))
    except RecursionError:
        return record_identity.erased_deep_digest(key, text)


def delete_rows(
    con: Connection, subject: Subject, quarantine_ids: Iterable[str], names: Iterable[str]
) -> Mapping[str, int]:
    """Delete the matched rows from raw, and the rows that name them from what is built of it.

    The next curation rebuilds those tables, so deleting too many rows there does no harm. Return
    the number of deleted rows by table. Of a shared warehouse these are the tables beside the book.

    Args:
        con: The warehouse, in a transaction, after ``subject_rows.match_rows``.
        subject: Whose rows; within its scope its id counts as a name.
        quarantine_ids: The refused lines to delete.
        names: Further names of the subject in built tables, besides the ids of its rows.
    """
    known_as = _names(con, subject, names)
    gone = _delete_naming(con, subject, known_as, in_book=False)
    gone.update(subject_rows.blank_notes(con, subject, known_as))
    for kind, column in subject_rows.IDS.items():
        gone[f"raw.{kind}"] = _count(
            con,
            f"delete from raw.{kind} using temp.erased_{kind} as erased"  # noqa: S608 - of ours
            f" where {column} = erased.id and erased.reason is not null",
        )
    # Unkeyed digests of texts, against which a guess could be checked; rebuilt when needed.
    for table in ("curated.example_digests", "curated.token_counts"):
        gone[table] = _count(con, f"delete from {table}")  # noqa: S608 - of ours
    gone["raw.quarantine"] = _count(
        con,
        "delete from raw.quarantine where list_contains($ids, quarantine_id)",
        ids=list(quarantine_ids),
    )
    return {place: count for place, count in gone.items() if count}


def delete_words(con: Connection, subject: Subject, names: Iterable[str]) -> Mapping[str, int]:
    """Delete what people wrote about the subject or its rows, and what else of a book names them.

    Return the number of texts and rows by table; arguments as of ``delete_rows``.
    """
    known_as = _names(con, subject, names)
    gone = _delete_naming(con, subject, known_as, in_book=True)
    gone["raw.decision_words"] = subject_rows.blank_comments(con, subject, known_as)
    return {place: count for place, count in gone.items() if count}


def _delete_naming(
    con: Connection, subject: Subject, known_as: list[str], *, in_book: bool
) -> Counter[str]:
    gone: Counter[str] = Counter()
    listed = tables.tables(con)
    of_id = [subject.id], subject.within, OURS | PEOPLES
    for searched, within, passing_over in ((known_as, {}, PEOPLES), of_id):
        with warehouse.present(con, "erased_names", {"name": pa.array(searched, pa.string())}):
            for table in listed:
                # All other schemas are rebuilt from raw.
                if table.schema != "raw" and table.is_in_book == in_book:
                    gone[table.full_name] += tables.delete_naming(
                        con, table, "erased_names", within, passing_over
                    )
    return gone


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
    sql = "select distinct client_id from temp.erased_feedback where reason is not null"
    actors = [f"{client_id} {subject.id}" for (client_id,) in con.execute(sql).fetchall()]
    return sorted({*row_ids(con), *names, *only, *actors})


def _count(con: Connection, sql: str, **values: warehouse.Value) -> int:
    return int(con.execute(sql, values or None).fetchall()[0][0])


@dataclass(frozen=True, slots=True)
class SubjectMatch:
    """A subject's rows, and the outputs made from them."""

    matched: Matched
    lineage: Lineage
    words: int = 0  # approvers' texts about the subject

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to erase."""
        return not self.matched.total and not self.words


def find_subject(con: Connection, subject: Subject, outputs: Outputs) -> SubjectMatch:
    """Find a subject's rows and the outputs made from them, without changing anything."""
    matched = subject_rows.match_rows(con, subject)
    traced = affected_outputs.trace(outputs, _is_erased(con, subject))
    return SubjectMatch(matched, traced, subject_rows.count_comments(con, subject))


def _is_erased(con: Connection, subject: Subject) -> IsErased:
    """Return whether an id is of the matched rows, or of those that a killed erasure has deleted.

    A freeze that was killed meanwhile may have finished a snapshot of these.
    """
    ids = row_ids(con)
    # Without one there may be no key of digests, which only an erasure draws.
    is_any_begun = bool(tombstones.unfinished_erasures(con))
    begun = tombstones.unfinished(con, subject) if is_any_begun else None
    if begun is None:
        return ids.__contains__
    key, kept = tombstones.digest_key(con), tombstones.tombstones(con, [begun.certificate_id])
    deleted = {*kept.get("interactions", []), *kept.get("feedback", [])}
    return lambda row_id: row_id in ids or keyed_digest(key, row_id) in deleted


def text_matcher(
    con: Connection, subject: Subject, outputs: Outputs, names: Sequence[str]
) -> Callable[[str], bool]:
    """Return a predicate: whether a text is about the subject or its rows; call before deletion."""
    requests = find_subject(con, subject, outputs).lineage.requests
    return subject_rows.text_matcher(subject, [*row_ids(con), *requests, *names])


def erase(
    con: Connection,
    subject: Subject,
    outputs: Outputs,
    *,
    names: Sequence[str] = (),
    now: datetime,
) -> Erasure:
    """Add tombstones, delete a subject's rows and record the affected outputs, in one transaction.

    In a shared warehouse they are two: a kill between them leaves rows that the next call finds
    again, and that nobody loads a second time. ``names`` are further names of the subject in built
    tables.

    Raises:
        ArchiveGoneError: A file of retention is gone; nothing is changed.
        WarehouseConflictError: Another process wrote a shared one meanwhile; do the same again.
    """
    if warehouse_port.shared(con) is None:
        with warehouse.transaction(con):
            added = _add_to_book(con, subject, outputs, names, now)
            return _delete_matched(con, subject, added)
    with warehouse.transaction(con, "book"):
        added = _add_to_book(con, subject, outputs, names, now)
    ids = row_ids(con)
    with warehouse.transaction(con, "raw", "curated"):
        if subject_rows.match_rows(con, subject) != added.matched or row_ids(con) != ids:
            raise WarehouseConflictError(
                "erasing: another process loaded rows of the subject meanwhile, which have no "
                "tombstones yet; do the same again"
            )
        return _delete_matched(con, subject, added)


@dataclass(frozen=True, slots=True)
class _Added:
    """What an erasure has added to the book, and must delete."""

    erasure: Erasure
    matched: Matched
    names: list[str]
    blanked: Mapping[str, int]  # texts of people and rows that are deleted already, by table


def _add_to_book(
    con: Connection, subject: Subject, outputs: Outputs, names: Sequence[str], now: datetime
) -> _Added:
    match = find_subject(con, subject, outputs)
    erasure = tombstones.begin_erasure(con, subject, now=now)
    _add_tombstones(con, erasure, match.matched)
    affected_outputs.record(con, erasure.certificate_id, match.lineage.tainted)
    forget_outputs(con, match.lineage.tainted)
    known_as = [*match.lineage.requests, *names]
    blanked = delete_words(con, subject, known_as)
    return _Added(erasure, match.matched, known_as, blanked)


def _delete_matched(con: Connection, subject: Subject, added: _Added) -> Erasure:
    archived = subject_rows.rewrite_archive(con)
    gone = delete_rows(con, subject, added.matched.quarantine, added.names)
    for counts in (archived, added.blanked, gone):
        tombstones.add_counts(con, added.erasure.certificate_id, counts)
    return added.erasure


def clear_files(
    con: Connection, erasure: Erasure, outputs: Outputs, archives: Collection[str]
) -> None:
    """Delete the files that hold erased data, also below the roots of archives; idempotent."""
    subject_rows.drop_unnamed(con, archives)
    forget_verdicts(outputs)
    tainted = affected_outputs.recorded(con, erasure.certificate_id)
    delete_outputs(outputs, tainted, erasure.certificate_id)
    for output in affected_outputs.half_written(outputs):
        output_folders.remove(outputs.root(output.kind) / output.workload / output.key)


def _add_tombstones(con: Connection, erasure: Erasure, matched: Matched) -> None:
    key = tombstones.digest_key(con)
    digests: defaultdict[Kind, list[str]] = defaultdict(list)
    for row in warehouse.read(con, "marts/erased_row_ids", dict[str, str]):
        digests[cast("Kind", row["kind"])].append(keyed_digest(key, row["id"]))
    for row in warehouse.read(con, "marts/erased_contents", dict[str, str]):
        digests["contents"].append(_content_digest(key, row["record"]))
        # The times select the loaded rows whose contents have to be compared.
        digests["times"].append(keyed_digest(key, row["microseconds"]))
    refused = con.execute(
        "select content from raw.quarantine where list_contains($ids, quarantine_id)",
        {"ids": list(matched.quarantine)},
    ).fetchall()
    digests["lines"] += [keyed_digest(key, content) for (content,) in refused]
    digests["texts"] = [*subject_rows.own_texts(con, key)]
    for kind, of_kind in digests.items():
        tombstones.add_tombstones(con, erasure.certificate_id, kind, of_kind)
