"""Erase a subject from the home, in an order in which a kill loses nothing."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from components import home_archive
from components.curate import split
from components.erase import affected_outputs, certificate, delete, leftovers, tables, tombstones
from components.erase.affected_outputs import Output
from components.erase.certificate import Certificate, Consequences, Rebuilt
from components.erase.delete import SubjectMatch
from components.erase.leftovers import Searched
from components.erase.subject import SearchTerms, Subject, keyed_digest
from components.erase.tombstones import Erasure
from components.store import (
    file_locks,
    manifest,
    output_folders,
    spool,
    warehouse,
)
from components.store.warehouse import Connection
from components.store.warehouse_port import GROUPS
from flows import snapshots, sources
from flows.erasing import erase_servers
from flows.machines import erased_copies
from flows.machines.erased_copies import outputs_of
from flows.settings import Settings
from flows.workload_file import Workload

Report = Callable[[str], None]

BEYOND_SHARED = (
    "PostgreSQL's write-ahead log and its archive, standbys, base backups, dumps and server logs",
    "spools of other machines",
)
"""What an erasure of a shared warehouse can't reach, as the certificate says."""

SPOOL_SECONDS = 30.0  # an erasure waits no longer for a receiver's open segment


class SpoolHeldError(TimeoutError):
    """A receiver does not seal what it took before the erasure began."""


class OldWarehouseError(FileExistsError):
    """A DuckDB file from before the shared warehouse has rows that would not be erased."""


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """What to erase, and whether a tainted champion loses its alias.

    ``workloads`` are those that can be curated again; others wait for their next turn.
    """

    subject: Subject
    demote: bool
    workloads: Mapping[str, Workload]


def find_subject(home: Settings, subject: Subject) -> tuple[SubjectMatch, Erasure | None]:
    """Find what there is of a subject, and the erasure of it that was not finished."""
    with warehouse.reading(home.tables) as con:
        with warehouse.rehearsal(con):  # the key of digests is drawn by an erasure only
            begun = tombstones.unfinished(con, subject)
        return delete.find_subject(con, subject, outputs_of(home)), begun


def erase(
    home: Settings, request: ErasureRequest, *, now: Callable[[], datetime], report: Report
) -> Certificate:
    """Erase a subject and write the certificate; a killed erasure is finished by the next call.

    Raises:
        SpoolHeldError: A receiver holds what may be the subject's; nothing was erased yet.
        ArchiveGoneError: A file of retention is missing; nothing was erased yet.
        OldWarehouseError: The home has a DuckDB file beside what is shared; nothing was
            erased yet.
    """
    if erased_copies.has_old_warehouse(home):
        raise OldWarehouseError(
            f"erasing: {home.warehouse} has the rows from before {home.shared_warehouse}, "
            "which are not erased with those; delete it"
        )
    with file_locks.held(home.home / erased_copies.BEING_PRUNED, shared=True):
        erased_copies.announce_pruned(home)
        return _erase(home, request, now=now, report=report)


def _erase(
    home: Settings, request: ErasureRequest, *, now: Callable[[], datetime], report: Report
) -> Certificate:
    load_spool(home, now=now())
    names = group_names(request.subject)
    # While it is known which rows they are about:
    with warehouse.reading(home.tables) as con:
        is_about = delete.text_matcher(con, request.subject, outputs_of(home), names)
    written = erase_servers.blank_texts(home, request.subject, is_about)
    report(f"{written.tags} texts on versions blanked, {written.runs} flow runs deleted")
    begun = now()

    def delete_all(con: Connection) -> tuple[Erasure, list[Output]]:
        with output_folders.while_none_finishes(home.scorecards, home.evidence):
            erasure = delete.erase(con, request.subject, outputs_of(home), names=names, now=begun)
            report("rows deleted, their ids kept as digests")
            delete.clear_files(
                con, erasure, outputs_of(home), {str(home.archive), home.archive_root}
            )
        return erasure, affected_outputs.recorded(con, erasure.certificate_id)

    ((erasure, tainted),) = warehouse.in_turns(home.tables, [delete_all], writes=GROUPS)
    erased_copies.forget_judgements(home)
    delete.remove_jobs_on(outputs_of(home), tainted)
    erased_copies.clear_store(home, tainted)
    erased_copies.announce(home, erasure.certificate_id, tainted)
    report("snapshots, scorecards, pages and logs deleted")
    tables.rewrite(home.tables)
    report("warehouse rewritten")
    done = erase_servers.apply_consequences(home, erasure, tainted, written, demote=request.demote)
    report(
        f"{len(done.versions)} model versions flagged, {len(done.approvals)} approvals made stale"
    )
    rebuilt = rebuild_snapshots(home, tainted, request.workloads, now=now(), report=report)
    return conclude_erasure(home, request.subject, erasure, done, rebuilt, now=now())


def group_names(subject: Subject) -> list[str]:
    """Return the group names that curation uses for a user's, or a conversation's, rows."""
    if subject.is_narrowed:
        return []
    return [split.conversation(subject.id), split.group("user", (), "", subject.id)]


def load_spool(home: Settings, *, now: datetime, patience: float = SPOOL_SECONDS) -> None:
    """Load everything that a receiver took before now, waiting ``patience`` seconds for it."""
    if not home.spool.exists() and home.store is None:
        return
    spool.recover(home.spool)
    held = set(home.spool.glob(f"*{spool.PARTIAL}"))
    deadline = time.monotonic() + patience
    while held := {path for path in held if path.exists()}:
        if time.monotonic() > deadline:
            raise SpoolHeldError(
                f"erasing: {min(held)} is still being written after {patience:g} s; stop the "
                "receiver, erase, and start it again"
            )
        time.sleep(0.2)
    # What waited in the spool would be loaded after the erasure.
    sources.load_spool(home, now=now, hold_back=False)


def rebuild_snapshots(
    home: Settings,
    tainted: Iterable[Output],
    workloads: Mapping[str, Workload],
    *,
    now: datetime,
    report: Report,
) -> Rebuilt:
    """Curate and freeze again what had a snapshot with erased rows, where its file is known.

    What hinders that, such as a workload file that was edited, must not hinder the certificate.
    """
    frozen: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for workload in sorted({output.workload for output in tainted if output.kind == "snapshot"}):
        if workload not in workloads:
            waiting[workload] = "its next turn does it"
            continue
        try:
            curated = snapshots.freeze_workload(workloads[workload], home, now=now, ask=False)
            if curated.snapshot:
                frozen[workload] = curated.snapshot.key
        except (OSError, RuntimeError, ValueError) as error:
            report(f"{workload} is not frozen again: {error}")
            waiting[workload] = type(error).__name__  # a message may have rows
    return Rebuilt(frozen, waiting)


def conclude_erasure(
    home: Settings,
    subject: Subject,
    erasure: Erasure,
    done: Consequences,
    rebuilt: Rebuilt,
    *,
    now: datetime,
) -> Certificate:
    """Search for leftovers, write the certificate and mark the erasure finished if clean."""
    searched = find_left(home, [erasure], subject)
    with warehouse.connect(home.tables) as con:
        kept = tombstones.tombstones(con, [erasure.certificate_id])
        tainted = affected_outputs.recorded(con, erasure.certificate_id)
        written = Certificate(
            certificate_id=erasure.certificate_id,
            subject_digest=erasure.subject_digest,
            scope=erasure.scope,
            begun_at=erasure.begun_at,
            finished_at=now,
            erased=tombstones.read_counts(con, erasure.certificate_id),
            tombstones={kind: len(digests) for kind, digests in kept.items()},
            tombstones_digest=manifest.digest(kept),
            tainted=tuple(tainted),
            untraceable=tuple(affected_outputs.untraceable(outputs_of(home), tainted)),
            consequences=done,
            rebuilt=rebuilt,
            searched=searched,
        )
        certificate.write(home.certificates, written)
        if written.is_clean:
            with warehouse.transaction(con):
                tombstones.finish_erasure(con, erasure.certificate_id, now=now)
    return written


def verify_erasure(
    home: Settings, *, subject: Subject | None, certificate_path: Path | None
) -> Searched:
    """Search for what is left of a subject, or of what a certificate names.

    ``LookupError``: the warehouse knows no such erasure. ``ValueError``: the certificate was
    changed.
    """
    with warehouse.reading(home.tables) as con, warehouse.rehearsal(con):
        if certificate_path is not None:
            erasures = [tombstones.erasure_named(con, certificate.read_id(certificate_path))]
        else:
            assert subject is not None
            erasures = tombstones.erasures_of(con, tombstones.subject_digest(con, subject))
    return find_left(home, erasures, subject)


def search_terms(
    con: Connection, erasures: Sequence[Erasure], subject: Subject | None
) -> SearchTerms:
    """Return what to search for: these erasures' tombstones, and the subject's id if known."""
    key = tombstones.digest_key(con)
    kept = tombstones.tombstones(con, [erasure.certificate_id for erasure in erasures])
    who = keyed_digest(key, subject.id) if subject else erasures[0].subject_digest
    return SearchTerms(
        key,
        who,
        subject,
        rows=frozenset([*kept.get("interactions", []), *kept.get("feedback", [])]),
        lines=frozenset(kept.get("lines", [])),
        texts=frozenset(kept.get("texts", [])),
    )


def find_left(home: Settings, erasures: Sequence[Erasure], subject: Subject | None) -> Searched:
    """Search the whole home except downloaded models."""
    with file_locks.temporary_folder(home.scratch, "search-") as folder:
        erased_copies.fetch_stored(home, folder / "store")
        with _to_be_searched(home, folder) as con, warehouse.rehearsal(con):
            terms = search_terms(con, erasures, subject)
            searched = leftovers.search(
                con,
                home.home,
                terms,
                skip=[home.models],
                opened={home.warehouse, folder / home.warehouse.name},
                shared_files=home.shared_warehouse and home.shared_warehouse.earlier_files(folder),
                archived=erased_copies.archived_files_of(home, folder / "archived"),
            )
    searched = erased_copies.search_store(home, erasures, searched)
    if home.elsewhere:
        beyond = (f"the databases of {home.prefect_url}", f"and of {home.mlflow_url}")
        searched = replace(searched, passed_over=(*searched.passed_over, *beyond))
    if home.shared_warehouse:
        return replace(searched, passed_over=(*searched.passed_over, *BEYOND_SHARED))
    return leftovers.with_bytes(searched, home.warehouse, terms)


@contextmanager
def _to_be_searched(home: Settings, folder: Path) -> Generator[Connection]:
    """Open the shared warehouse, or a copy of the file, which a search would hold for long."""
    if home.shared_warehouse:
        with warehouse.reading(home.shared_warehouse) as con:
            yield con
        return
    copy = folder / home.warehouse.name
    home_archive.copy_warehouse(home.warehouse, copy, home.home)
    with warehouse.connect(copy) as con:
        yield con
