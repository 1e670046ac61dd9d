"""Promote: ask a person, then register the winner; suspended, it holds no process for days."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from components import ledger, manifest, rendering, warehouse
from components.evaluate.settings import EvaluationSettings
from components.gate import evidence
from components.gate.evidence import Evidence
from components.ledger import Decision
from components.register import registry, tracking
from components.register.registry import Served
from components.scorecard import read as read_scorecard
from flows import config as configs
from flows import finishing, settings
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
    decision = recorded(found.digest) or ask(page, found)
    require_fresh(found)
    record(decision)
    if decision.decision == "reject":
        return Completed(message=f"rejected by {decision.approver}: {decision.comment}")
    version = register(workload, found, decision)
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
def register(workload: Workload, found: Evidence, decision: Decision) -> registry.Version:
    """Register the adapter with its lineage and make it champion; safe to repeat.

    It will be loaded as it was evaluated, whatever the workload's file says by now.
    """
    subject, home = found.subject, settings.load()
    adapter = home.adapters / subject.workload / subject.adapter
    made_from = manifest.read_untouched(adapter)
    template = str(made_from[rendering.TEMPLATE])
    card = read_scorecard(home.scorecards / subject.workload / subject.challenger_scorecard)
    evaluated = EvaluationSettings.model_validate(card.conditions["settings"])
    served = Served(
        base=str(workload.base),
        base_hash=subject.base,
        prompt_template=template,
        precision=evaluated.precision,
        max_new_tokens=evaluated.max_new_tokens,
    )
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        copied = Path(scratch) / subject.adapter
        version = registry.register(
            subject.workload,
            tracking.find_run(subject.workload, subject.adapter),
            finishing.copy(home, adapter, copied, served_as=workload.base_name),
            served=served,
            tags={
                registry.EVIDENCE_TAG: found.digest,
                registry.ADAPTER_TAG: subject.adapter,
                "flywheel.snapshot": subject.snapshot,
                "flywheel.holdout_version": subject.holdout_version,
                "flywheel.base": subject.base,
                "flywheel.prompt_template": template,
                "flywheel.scorecard": subject.challenger_scorecard,
                "flywheel.commit": str(made_from.get("commit", "")),
                "flywheel.approver": decision.approver,
                "flywheel.comment": decision.comment,
            },
        )
    registry.crown(version)
    return version
