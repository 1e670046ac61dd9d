"""Promote: ask a person, then register the winner; suspended, it holds no process for days."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from components import ledger, warehouse
from components.gate import evidence
from components.gate.evidence import Evidence
from components.ledger import Decision
from components.register import registry
from flows import config as configs
from flows import registering, settings
from flows.approvals import GATE_KEY, GateInput, page_key
from flows.config import Workload

PATIENCE_SECONDS = 30 * 24 * 3600
"""How long an approval waits before Prefect fails the run; a later turn asks again."""


class StaleEvidenceError(RuntimeError):
    """The evidence was about another champion than there is now, or about data since erased."""


@flow(flow_run_name=configs.run_name)
def promote(config: str, evidence_folder: str) -> State[None]:
    """Show the evidence, wait for a decision, store it, and on approval crown the challenger."""
    workload = configs.read(Path(config))
    found = evidence.read(Path(evidence_folder))
    require_unerased(found)
    page = (found.folder / evidence.BRIEF).read_text()
    publish(page, found.digest, workload.workload)
    challenge(workload, found)
    decision = recorded(found.digest) or ask(page, found)
    try:
        require_fresh(found)
    except StaleEvidenceError:
        registering.let_go(found)
        raise
    record(decision)
    if decision.decision == "reject":
        reject(found, decision)
        return Completed(message=f"rejected by {decision.approver}: {decision.comment}")
    version = crown(workload, found, decision)
    return Completed(
        message=f"approved by {decision.approver}: version {version.number} is champion"
    )


def _once_per_evidence(_: TaskRunContext, parameters: dict[str, str]) -> str:
    return f"brief-{parameters['digest']}"


@task(persist_result=True, cache_key_fn=_once_per_evidence)
def publish(page: str, digest: str, workload: str) -> str:
    """Keep the page as an artifact; under the workload's key the pages form a history."""
    create_markdown_artifact(page, key=page_key(workload), description=digest)
    return digest


def ask(page: str, found: Evidence) -> Decision:
    """Suspend until a person answers; on resuming, Prefect gives the stored answer."""
    form = GateInput.with_initial_data(description=page)
    given = suspend_flow_run(wait_for_input=form, key=GATE_KEY, timeout=PATIENCE_SECONDS)
    return Decision(
        workload=found.subject.workload,
        evidence=found.digest,
        decision=given.decision,
        approver=given.approver,
        comment=given.comment,
        flow_run_id=str(flow_run.id),
        decided_at=datetime.now(UTC),
    )


def require_fresh(found: Evidence) -> None:
    """Refuse a decision on evidence that compared with another champion than there is now.

    A champion that this very evidence crowned is fine: a crash came after it.

    Raises:
        StaleEvidenceError: Another version became champion while this approval waited.
    """
    champion = registry.champion(found.subject.workload)
    now = champion.number if champion else "base"
    crowned_by_this = champion is not None and champion.evidence == found.digest
    if now != found.subject.opponent and not crowned_by_this:
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: it compares with the "
            f"{found.subject.opponent_name}, but the champion is now version {now}; "
            "start a new turn"
        )


@task
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
    ]
    with warehouse.connect(settings.load().warehouse) as con:
        certificate = ledger.erasure_of(con, made_from)
    if certificate:
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: rows that it is about were erased (certificate "
            f"{certificate}); start a new turn"
        )


@task
def recorded(digest: str) -> Decision | None:
    """Read the decision that a run before this one stored."""
    with warehouse.connect(settings.load().warehouse) as con:
        return ledger.decision_on(con, digest)


@task
def record(decision: Decision) -> None:
    """Store the decision; nothing is registered before that."""
    with warehouse.connect(settings.load().warehouse) as con:
        ledger.record_decision(con, decision)
    get_run_logger().info(
        "%s by %s on evidence %s: %s",
        decision.decision,
        decision.approver,
        decision.evidence,
        decision.comment,
    )


@task
def challenge(workload: Workload, found: Evidence) -> None:
    """Register what is asked about, as challenger."""
    registering.challenge(workload, found)


@task
def crown(workload: Workload, found: Evidence, decision: Decision) -> registry.Version:
    """Make the challenger champion; safe to repeat, and finished after a kill."""
    return registering.crown(workload, found, decision, lambda: require_fresh(found))


@task
def reject(found: Evidence, decision: Decision) -> None:
    """Say on the version that it was rejected."""
    registering.reject(found, decision)
