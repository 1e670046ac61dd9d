"""The consequences of an erasure in MLflow and Prefect: versions, aliases, forms and pages."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact, FlowRunInput, StateType
from prefect.states import Cancelled

from components.erase import affected_outputs, tombstones
from components.erase.affected_outputs import Output
from components.erase.certificate import Champion, Consequences
from components.erase.subject import Subject
from components.erase.tombstones import Erasure
from components.register import registry, taint
from components.release import champions, installation, release_state
from components.store import warehouse
from flows import approvals, prefect_api, release_home
from flows.prefect_api import Run
from flows.settings import Settings
from flows.stack import mlflow_database

PAGE_SIZE = 200  # artifacts and inputs per request

WRITTEN_IN = ("promote", "rollback")  # flows that people write something to


def delete_written_runs(
    home: Settings, is_about: Callable[[str], bool], workload: str | None = None
) -> int:
    """Delete ended promotions and rollbacks in which somebody is written about; return how many.

    Decisions stay in the chain, and what still waits for an answer stays. ``workload`` limits the
    runs.
    """
    final = sorted(prefect_api.FINAL)
    ended = [run for flow in WRITTEN_IN for run in prefect_api.find(flow, states=final)]
    with get_client(sync_client=True) as client:
        run_ids = [
            run.id
            for run in ended
            if workload in (None, _workload_of_run(run)) and any(map(is_about, _texts(client, run)))
        ]
        # Before the runs, by which a repetition finds them: they have the runs' messages.
        names = [f"prefect.flow-run.{run_id}" for run_id in run_ids]
        _drop_events(home, "resource_id = ?1 or instr(related_resource_ids, ?1)", names)
        for run_id in run_ids:
            client.delete_flow_run(run_id)
    return len(run_ids)


def _workload_of_run(run: Run) -> str:
    return approvals.tag_value(run, "workload") or str(run.parameters.get("workload", ""))


def _texts(client: SyncPrefectClient, run: Run) -> Iterator[str]:
    """Yield what people wrote: in forms, answers and rollback parameters, and the final message."""
    yield (run.state.message if run.state else None) or ""
    yield from map(str, run.parameters.values())
    yield from (str(answer.value) for answer in _inputs(client, run.id))


def _inputs(client: SyncPrefectClient, run_id: UUID) -> Iterator[FlowRunInput]:
    """Yield a run's forms and answers; each refused answer leaves some more."""
    known: set[str] = set()
    while page := client.filter_flow_run_input(
        run_id, key_prefix="", limit=PAGE_SIZE, exclude_keys=known
    ):
        yield from page
        known |= {each.key for each in page}


def _cancel(client: SyncPrefectClient, run: Run, message: str) -> bool:
    if run.state is not None and run.state.is_final():
        return (run.state.type, run.state.message) == ("CANCELLED", message)
    client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
    return True


def _drop_forms(client: SyncPrefectClient, run_id: UUID) -> int:
    inputs = [*_inputs(client, run_id)]
    for form_input in inputs:  # the form's description is the page
        client.delete_flow_run_input(run_id, form_input.key)
    return len(inputs)


def _drop_artifacts(client: SyncPrefectClient, workload: str, digests: set[str]) -> int:
    keys = [approvals.artifact_key(kind, workload) for kind in ("gate", "report")]
    dropped = [
        artifact.id
        for artifact in _artifacts(client, keys)
        if not digests.isdisjoint((artifact.description or "").split())
    ]
    for artifact_id in dropped:  # Prefect keeps an event of each deletion, with the latest page
        client.update_artifact(artifact_id, ArtifactUpdate(data=""))
    for artifact_id in dropped:
        client.delete_artifact(artifact_id)
    return len(dropped)


def _artifacts(client: SyncPrefectClient, keys: list[str]) -> Iterator[Artifact]:
    of_keys, offset = ArtifactFilter(key=ArtifactFilterKey(any_=keys)), 0
    while page := client.read_artifacts(artifact_filter=of_keys, limit=PAGE_SIZE, offset=offset):
        yield from page
        offset += len(page)


def _drop_events(home: Settings, condition: str, values: Iterable[str]) -> None:
    """Delete events from Prefect's database, if it is the home's own: its API can't."""
    database = _prefect_database(home)
    if not database.exists():
        return
    ids = f"(select id from events where {condition})"  # noqa: S608 - a condition of ours
    with closing(sqlite3.connect(database, timeout=SQLITE_SECONDS)) as con, con:
        for value in values:
            for of_event in ("event_resources where event_id", "events where id"):
                con.execute(f"delete from {of_event} in {ids}", [value])  # noqa: S608 - as above


SQLITE_SECONDS = 60.0  # how long a running server may hold its database


def blank_texts(home: Settings, subject: Subject, is_about: Callable[[str], bool]) -> Consequences:
    """Take what people wrote about the subject out of MLflow and Prefect; safe to repeat."""
    tags = runs = 0
    if has_mlflow(home):
        workload = subject.workload_id
        tags = taint.blank_tags(is_about, workload=workload, names=subject.mentions)
    if has_prefect(home):
        runs = delete_written_runs(home, is_about, subject.workload_id)
    return Consequences(tags=tags, runs=runs)


def apply_consequences(
    home: Settings,
    erasure: Erasure,
    tainted: Sequence[Output],
    consequences: Consequences,
    *,
    demote: bool,
) -> Consequences:
    """Flag versions in MLflow, demote champions if asked to, and take pages back from Prefect."""
    for workload in sorted({output.workload for output in tainted}):
        here = [output for output in tainted if output.workload == workload]
        if has_mlflow(home):
            with installation.lock_champion(
                home.tables, home.locks, workload
            ):  # against a promotion of it
                consequences = _flag_versions(
                    home, consequences, workload, here, erasure, demote=demote
                )
        if has_prefect(home):
            consequences = _retract_pages(home, consequences, workload, here, erasure)
    for database in (mlflow_database.database(home.mlflow_home), _prefect_database(home)):
        compact_database(database)
    for copy in mlflow_database.copies(home.mlflow_home):
        copy.unlink()
    return consequences


def has_mlflow(home: Settings) -> bool:
    """Return whether an MLflow may hold versions: the home's own, or one elsewhere."""
    return home.elsewhere is not None or mlflow_database.database(home.mlflow_home).exists()


def has_prefect(home: Settings) -> bool:
    """Return whether a Prefect may hold approvals: the home's own, or one elsewhere."""
    return home.elsewhere is not None or _prefect_database(home).exists()


def _prefect_database(home: Settings) -> Path:
    return home.prefect_home / "prefect.db"


def demote_tainted(home: Settings, subject: Subject) -> list[Champion]:
    """Take the alias of each champion that an earlier erasure of the subject has tainted."""
    with warehouse.connect(home.tables) as con, warehouse.rehearsal(con):
        erasures = tombstones.erasures_of(con, tombstones.subject_digest(con, subject))
        tainted = [(made, affected_outputs.recorded(con, made.certificate_id)) for made in erasures]
    demoted: list[Champion] = []
    for erasure, outputs in tainted:
        for workload in sorted({output.workload for output in outputs if output.kind == "adapter"}):
            with installation.lock_champion(home.tables, home.locks, workload):
                before = registry.champion_version(workload)
                if before is None or erasure.certificate_id not in before.tainted.split():
                    continue
                _demote_champion(home, workload, erasure.certificate_id)
                now = registry.champion_version(workload)
                demoted.append(Champion(workload, before.number, now.number if now else None))
    return demoted


def compact_database(database: Path) -> None:
    """Vacuum a server's SQLite file, which keeps the pages of deleted rows."""
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=SQLITE_SECONDS)) as con:
        con.execute("vacuum")
        con.execute("pragma wal_checkpoint(truncate)")


def _demote_champion(home: Settings, workload: str, certificate_id: str) -> None:
    """Move a tainted champion's alias to where a rollback would lead, if it leads anywhere.

    The chain of decisions says where: by its tags in MLflow, a version that was only
    a canary, or that nobody has approved, might be an earlier champion.
    """
    champion = registry.champion_version(workload)
    if champion is None or not champion.tainted:
        return
    versions = {each.number: each for each in registry.list_versions(workload)}
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        known = release_state.verified_state(con, workload)
        to = release_state.previous(champion.number, known, [*versions.values()])
        change = release_state.plan_erasure(champion, versions.get(to or ""), certificate_id)
        release_state.append_change(con, change, datetime.now(UTC))
    champions.project(release_home.of(home), workload)


def _flag_versions(
    home: Settings,
    consequences: Consequences,
    workload: str,
    tainted: list[Output],
    erasure: Erasure,
    *,
    demote: bool,
) -> Consequences:
    adapters, scorecards, evidence = (
        {output.key for output in tainted if output.kind == kind}
        for kind in ("adapter", "scorecard", "evidence")
    )
    versions = taint.flag_tainted(workload, adapters, erasure.certificate_id)
    before = registry.champion_version(workload)
    if demote and versions:
        _demote_champion(home, workload, erasure.certificate_id)
    now = registry.champion_version(workload)
    lost = [gone.number for gone in taint.demoted_versions(workload, erasure.certificate_id)]
    kept = [version.number for version in versions if before == version == now]
    return replace(
        consequences,
        versions=(*consequences.versions, *((workload, version.number) for version in versions)),
        champions=(
            *consequences.champions,
            *(Champion(workload, number, now.number if now else None) for number in (*lost, *kept)),
        ),
        pages=consequences.pages + taint.drop_copies(taint.EVIDENCE_FOLDER, evidence),
        scorecard_copies=consequences.scorecard_copies
        + taint.drop_copies(taint.SCORECARD_FOLDER, scorecards),
    )


def _retract_pages(
    home: Settings,
    consequences: Consequences,
    workload: str,
    tainted: list[Output],
    erasure: Erasure,
) -> Consequences:
    """Cancel every promotion on the evidence that has not ended, and delete all its pages."""
    digests = {output.key for output in tainted if output.kind == "evidence"}
    runs = [
        run
        for digest in sorted(digests)
        for run in prefect_api.find("promote", approvals.evidence_tag(digest), states=[*StateType])
    ]
    message = f"the data of its evidence was erased (certificate {erasure.certificate_id})"
    with get_client(sync_client=True) as client:
        # Those that were cancelled earlier for this certificate are among them.
        cancelled = [str(run.id) for run in runs if _cancel(client, run, message)]
        pages = sum(_drop_forms(client, run.id) for run in runs)
    pages += _drop_pages(home, workload, digests)
    return replace(
        consequences,
        approvals=(*consequences.approvals, *cancelled),
        pages=consequences.pages + pages,
    )


def _drop_pages(home: Settings, workload: str, digests: set[str]) -> int:
    with get_client(sync_client=True) as client:
        pages = _drop_artifacts(client, workload, digests)
    _drop_events(home, "event like 'prefect.artifact%' and instr(payload, ?1)", digests)
    return pages


def drop_copies(home: Settings, outputs: Sequence[Output]) -> None:
    """Delete what MLflow and Prefect have of outputs that no promotion asks about. Idempotent."""
    evidence = [output for output in outputs if output.kind == "evidence"]
    if has_mlflow(home):
        scorecards = [output.key for output in outputs if output.kind == "scorecard"]
        taint.drop_copies(taint.SCORECARD_FOLDER, scorecards)
        taint.drop_copies(taint.EVIDENCE_FOLDER, [output.key for output in evidence])
    if has_prefect(home):
        for workload in sorted({output.workload for output in evidence}):
            _drop_pages(home, workload, {e.key for e in evidence if e.workload == workload})
