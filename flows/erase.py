"""Erase a subject from all that Flywheel keeps, in an order in which a kill loses nothing.

Tombstones and deletions are one transaction; then files, the bytes of the warehouse, MLflow and
Prefect, new snapshots, the search, and last the certificate. Each step may be done twice.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from components import manifest, rewriting, spool, warehouse
from components.backup import copying
from components.curate import split
from components.dataset.snapshot import EmptySideError
from components.erase import books, certificate, erasing, folders, lineage, search
from components.erase.books import Erasure
from components.erase.certificate import Certificate, Consequences, Rebuilt
from components.erase.erasing import Found
from components.erase.lineage import Output, Outputs
from components.erase.needles import Needles
from components.erase.search import Searched
from components.erase.subject import Subject, digest
from components.warehouse import CheckFailedError, Connection
from flows import consequences, freezing, inputs
from flows.settings import Settings
from flows.workload import Workload

Say = Callable[[str], None]

SPOOL_SECONDS = 30.0
"""How long a receiver may hold a segment open before an erasure gives up waiting for it."""


class SpoolHeldError(TimeoutError):
    """A receiver does not seal what it took before the erasure began."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done: whom to erase, and whether a tainted champion loses its alias.

    ``workloads`` are those that can be curated again; others wait for their next turn.
    """

    subject: Subject
    demote: bool
    workloads: Mapping[str, Workload]


def outputs(home: Settings) -> Outputs:
    """Say where the home keeps what is made from rows."""
    return Outputs(home.snapshots, home.adapters, home.scorecards, home.evidence, home.jobs)


def look(home: Settings, subject: Subject) -> tuple[Found, Erasure | None]:
    """Find what there is of a subject, and the erasure of it that was not finished."""
    with warehouse.connect(home.warehouse) as con:
        with warehouse.rehearsal(con):  # the key of digests is drawn by an erasure only
            begun = books.unfinished(con, subject)
        return erasing.look(con, subject, outputs(home)), begun


def erase(home: Settings, asked: Asked, *, now: Callable[[], datetime], say: Say) -> Certificate:
    """Erase a subject and write the certificate; a killed erasure is finished by the next call.

    Raises:
        SpoolHeldError: A receiver holds what may be the subject's; nothing was erased yet.
        ArchiveGoneError: A file of retention is gone; nothing was erased yet.
    """
    load_spool(home, now=now())
    names = ties(asked.subject)
    with warehouse.connect(home.warehouse) as con:  # while it is known which rows they are about
        is_about = erasing.teller(con, asked.subject, outputs(home), names)
    written = consequences.forget(home, asked.subject, is_about)
    say(f"{written.tags} texts on versions blanked, {written.runs} flow runs deleted")
    with warehouse.connect(home.warehouse) as con:
        erasure = erasing.erase(con, asked.subject, outputs(home), names=names, now=now())
        say("rows deleted, their ids kept as digests")
        tainted = lineage.recorded(con, erasure.certificate_id)
        erasing.clear(con, erasure, outputs(home), home.archive)
    folders.remove_jobs(folders.jobs_on(outputs(home), tainted))
    say("snapshots, scorecards, pages and logs deleted")
    rewriting.rewrite(home.warehouse)
    say("warehouse written anew")
    done = consequences.follow(home, erasure, tainted, written, demote=asked.demote)
    say(f"{len(done.versions)} model versions flagged, {len(done.approvals)} approvals made stale")
    rebuilt = rebuild(home, tainted, asked.workloads, now=now())
    return conclude(home, asked.subject, erasure, done, rebuilt, now=now())


def ties(subject: Subject) -> list[str]:
    """Give the names under which curation ties a user's, or a conversation's, rows together."""
    if subject.is_narrowed:
        return []
    return [split.conversation(subject.id), split.group("user", (), "", subject.id)]


def load_spool(home: Settings, *, now: datetime, patience: float = SPOOL_SECONDS) -> None:
    """Load all that a receiver took before now, so that none of it is missed.

    Args:
        home: Where the spool is.
        now: When this is done (UTC).
        patience: Seconds to wait for a segment that is being written.

    Raises:
        SpoolHeldError: A receiver has not sealed its segment for longer than it may.
    """
    if not home.spool.exists():
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
    inputs.load_spool(home.warehouse, home.spool, now=now)


def rebuild(
    home: Settings, tainted: Iterable[Output], workloads: Mapping[str, Workload], *, now: datetime
) -> Rebuilt:
    """Curate and freeze again what had a snapshot with erased rows, where its file is known."""
    frozen: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for workload in sorted({one.workload for one in tainted if one.kind == "snapshot"}):
        if workload not in workloads:
            waiting[workload] = "its next turn does it"
            continue
        try:
            curated = freezing.freeze(workloads[workload], home, now=now, ask=False)
            if curated.snapshot:
                frozen[workload] = curated.snapshot.key
        except (EmptySideError, CheckFailedError) as error:
            waiting[workload] = type(error).__name__
    return Rebuilt(frozen, waiting)


def conclude(
    home: Settings,
    subject: Subject,
    erasure: Erasure,
    done: Consequences,
    rebuilt: Rebuilt,
    *,
    now: datetime,
) -> Certificate:
    """Search for what is left, write the certificate and close the books."""
    searched = find_left(home, [erasure], subject)
    with warehouse.connect(home.warehouse) as con:
        kept = books.tombstones(con, [erasure.certificate_id])
        tainted = lineage.recorded(con, erasure.certificate_id)
        written = Certificate(
            certificate_id=erasure.certificate_id,
            subject_digest=erasure.subject_digest,
            scope=erasure.scope,
            begun_at=erasure.begun_at,
            finished_at=now,
            erased=books.counts(con, erasure.certificate_id),
            tombstones={kind: len(digests) for kind, digests in kept.items()},
            tombstones_digest=manifest.digest(kept),
            tainted=tuple(tainted),
            untraceable=tuple(lineage.untraceable(outputs(home), tainted)),
            consequences=done,
            rebuilt=rebuilt,
            searched=searched,
        )
        certificate.write(home.certificates, written)
        if written.is_clean:
            books.finish(con, erasure.certificate_id, now=now)
    return written


def verify(home: Settings, *, subject: Subject | None, certificate_path: Path | None) -> Searched:
    """Search for what is left of a subject, or of what a certificate names.

    Raises:
        LookupError: The warehouse knows no such erasure.
        ValueError: The certificate was changed.
    """
    with warehouse.connect(home.warehouse) as con, warehouse.rehearsal(con):
        if certificate_path is not None:
            erasures = [books.named(con, certificate.read_id(certificate_path))]
        else:
            assert subject is not None
            erasures = books.of_subject(con, books.subject_digest(con, subject))
    return find_left(home, erasures, subject)


def needles(con: Connection, erasures: Sequence[Erasure], subject: Subject | None) -> Needles:
    """Say what to look for: what these erasures buried, and the id where it is given."""
    key = books.key(con)
    kept = books.tombstones(con, [one.certificate_id for one in erasures])
    who = digest(key, subject.id) if subject else erasures[0].subject_digest
    return Needles(
        key,
        who,
        subject,
        rows=frozenset([*kept.get("interactions", []), *kept.get("feedback", [])]),
        lines=frozenset(kept.get("lines", [])),
        texts=frozenset(kept.get("texts", [])),
    )


def find_left(home: Settings, erasures: Sequence[Erasure], subject: Subject | None) -> Searched:
    """Search all of the home but the models that were downloaded.

    It takes long, so the warehouse is held to copy its file only, and the copy is searched.
    """
    home.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="search-", dir=home.scratch) as folder:
        copy = Path(folder) / home.warehouse.name
        copying.of_warehouse(home.warehouse, copy)
        with warehouse.connect(copy) as con, warehouse.rehearsal(con):
            wanted = needles(con, erasures, subject)
            searched = search.search(con, home.home, wanted, skip=[home.models])
    if home.elsewhere:
        beyond = (f"the databases of {home.prefect_url}", f"and of {home.mlflow_url}")
        searched = replace(searched, passed_over=(*searched.passed_over, *beyond))
    return search.with_bytes(searched, home.warehouse, wanted)
