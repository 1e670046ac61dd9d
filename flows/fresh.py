"""Tell whether an evidence is still about what there is now, and start a turn if it is not."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.runtime import flow_run

from components import ledger, manifest, warehouse
from components.dataset.snapshot import folder_name
from components.gate import evidence, policy
from components.gate.evidence import Evidence
from components.register import registry
from components.register.registry import Version
from components.trigger import book
from components.trigger.book import Start
from flows import approvals, dispatch, settings, snapshots
from flows.workload import Workload


class StaleEvidenceError(RuntimeError):
    """What the evidence was about has changed: champion, policy, holdout, or data since erased."""


def require_fresh(found: Evidence, workload: Workload) -> None:
    """Refuse a decision on evidence about what is no longer so.

    What this very evidence crowned stays, whatever came after it: a crash was between the two.

    Raises:
        StaleEvidenceError: Champion, policy or holdout is another one, or data was erased.
    """
    require_unerased(found)
    champion = registry.champion(found.subject.workload)
    if champion is None or champion.evidence != found.digest:
        require_champion(found, champion)
        require_policy(found, workload)
        require_holdout(found)


def require_champion(found: Evidence, champion: Version | None) -> None:
    """Refuse evidence that compared with another champion than there is now.

    Raises:
        StaleEvidenceError: Another version became champion while this approval waited.
    """
    now = champion.number if champion else "base"
    if now != found.subject.opponent:
        called = f"version {now}" if champion else "nobody, so the base answers"
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: it compares with the "
            f"{found.subject.opponent_name}, but the champion is now {called}"
        )


def require_policy(found: Evidence, workload: Workload) -> None:
    """Refuse evidence that was judged by another policy than the workload's file has now.

    Raises:
        StaleEvidenceError: Something under ``gate`` was changed; it says what.
    """
    judged_by = evidence.policy(found.folder)
    if changed := policy.changes(judged_by, workload.gate.model_dump(mode="json")):
        told = "; ".join(changed)
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: the policy that judged it has changed ({told})"
        )


def require_holdout(found: Evidence) -> None:
    """Refuse evidence that was measured on another holdout than the newest snapshot has.

    Raises:
        StaleEvidenceError: The holdout has grown, or rows of it were erased.
    """
    root, subject = settings.load().snapshots, found.subject
    if not (root / folder_name(subject.workload)).exists():
        return
    newest = snapshots.newest(root, subject.workload)
    now = str(manifest.read(newest)["holdout_version"])
    if now != subject.holdout_version:
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: it was measured on holdout version "
            f"{subject.holdout_version}, but the newest is {now}"
        )


def require_unerased(found: Evidence) -> None:
    """Refuse evidence on what was made from rows that somebody has had erased since.

    Raises:
        StaleEvidenceError: An erasure tainted its snapshot, its adapter or a scorecard.
    """
    subject = found.subject
    made_from = [
        found.digest,
        subject.snapshot,
        subject.adapter,
        subject.challenger_scorecard,
        subject.opponent_scorecard,
        *subject.anchor_scorecards,
    ]
    with warehouse.connect(settings.load().warehouse) as con:
        certificate = ledger.erasure_of(con, made_from)
    if certificate:
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: rows that it is about were erased (certificate "
            f"{certificate})"
        )


def start_turn(config: str, workload: str, reason: str) -> UUID:
    """Start a turn that evaluates afresh, unless one is under way; the book says why."""
    if under_way := dispatch.turns_under_way(Path(config)):
        return under_way[0].id
    entry = Start(str(flow_run.id), workload, "stale", True, reason, datetime.now(UTC))
    with warehouse.connect(settings.load().warehouse) as con:
        book.enter(con, entry)
    given = {"config": config, "start": entry.start_id}
    return dispatch.start("turn/turn", given, [approvals.workload_tag(workload)]).id
