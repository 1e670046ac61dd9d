"""What follows from an erasure at the servers: versions are flagged or demoted, words go."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from components import warehouse
from components.erase import books, lineage
from components.erase.books import Erasure
from components.erase.certificate import Champion, Consequences
from components.erase.lineage import Output
from components.erase.subject import Subject
from components.register import forgetting, journal, registry, taint
from flows.settings import Settings

SQLITE_SECONDS = 60.0
"""How long a server beside us may hold its database."""


def forget(home: Settings, subject: Subject, is_about: Callable[[str], bool]) -> Consequences:
    """Take what people wrote about the subject out of MLflow and Prefect; safe to repeat."""
    tags = runs = 0
    if has_mlflow(home):
        workload = subject.workload_id
        tags = forgetting.forget(is_about, workload=workload, names=subject.mentions)
    if has_prefect(home):
        from flows import retract  # noqa: PLC0415 - Prefect's client, only where there is a server

        runs = retract.forget(is_about, subject.workload_id)
    return Consequences(tags=tags, runs=runs)


def follow(
    home: Settings,
    erasure: Erasure,
    tainted: Sequence[Output],
    found: Consequences,
    *,
    demote: bool,
) -> Consequences:
    """Flag versions in MLflow, demote champions if asked to, and take pages back from Prefect."""
    for workload in sorted({one.workload for one in tainted}):
        here = [one for one in tainted if one.workload == workload]
        if has_mlflow(home):
            with journal.held(home.locks, workload):  # or a promotion would crown it after that
                found = _flagged(found, workload, here, erasure, demote=demote)
        if has_prefect(home):
            found = _retracted(found, workload, here, erasure)
    for database in (home.mlflow_home / "mlflow.db", home.prefect_home / "prefect.db"):
        compact(database)
    return found


def has_mlflow(home: Settings) -> bool:
    """Tell whether an MLflow may hold versions: the home's own, or one elsewhere."""
    return home.elsewhere is not None or (home.mlflow_home / "mlflow.db").exists()


def has_prefect(home: Settings) -> bool:
    """Tell whether a Prefect may hold approvals: the home's own, or one elsewhere."""
    return home.elsewhere is not None or (home.prefect_home / "prefect.db").exists()


def demote(home: Settings, subject: Subject) -> list[Champion]:
    """Take the alias of each champion that an earlier erasure of the subject has tainted."""
    with warehouse.connect(home.warehouse) as con, warehouse.rehearsal(con):
        erasures = books.of_subject(con, books.subject_digest(con, subject))
        tainted = {one: lineage.recorded(con, one.certificate_id) for one in erasures}
    found: list[Champion] = []
    for erasure, outputs_of in tainted.items():
        for workload in sorted({one.workload for one in outputs_of if one.kind == "adapter"}):
            with journal.held(home.locks, workload):
                before = registry.champion(workload)
                if before is None or erasure.certificate_id not in before.tainted.split():
                    continue
                taint.demote(workload, erasure.certificate_id)
                now = registry.champion(workload)
                found.append(Champion(workload, before.number, now.number if now else None))
    return found


def compact(database: Path) -> None:
    """Write a server's SQLite file anew: it keeps the pages of deleted rows."""
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=SQLITE_SECONDS)) as con:
        con.execute("vacuum")
        con.execute("pragma wal_checkpoint(truncate)")


def _flagged(
    found: Consequences, workload: str, tainted: list[Output], erasure: Erasure, *, demote: bool
) -> Consequences:
    adapters = {one.key for one in tainted if one.kind == "adapter"}
    scorecards = {one.key for one in tainted if one.kind == "scorecard"}
    evidence = {one.key for one in tainted if one.kind == "evidence"}
    versions = taint.flag(workload, adapters, erasure.certificate_id)
    before = registry.champion(workload)
    if demote and versions:
        taint.demote(workload, erasure.certificate_id)
    now = registry.champion(workload)
    lost = [one.number for one in taint.demoted(workload, erasure.certificate_id)]
    kept = [one.number for one in versions if before == one == now]
    return replace(
        found,
        versions=(*found.versions, *((workload, one.number) for one in versions)),
        champions=(
            *found.champions,
            *(Champion(workload, one, now.number if now else None) for one in (*lost, *kept)),
        ),
        pages=found.pages + taint.drop_copies(workload, taint.EVIDENCE, evidence),
        scorecard_copies=found.scorecard_copies
        + taint.drop_copies(workload, taint.SCORECARDS, scorecards),
    )


def _retracted(
    found: Consequences, workload: str, tainted: list[Output], erasure: Erasure
) -> Consequences:
    from flows import retract  # noqa: PLC0415 - Prefect's client, only where there is a server

    digests = {one.key for one in tainted if one.kind == "evidence"}
    taken = retract.retract(workload, digests, erasure.certificate_id)
    return replace(
        found,
        approvals=(*found.approvals, *taken.approvals),
        pages=found.pages + taken.pages,
    )
