"""Promote: ask a person, then register the winner; suspended, it holds no process for days."""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.states import Completed

from components.gate import evidence
from components.gate.evidence import Evidence
from components.ledger import Decision
from components.register import registry
from flows import asking, fresh, registering, settings
from flows import config as configs
from flows.approvals import page_key
from flows.fresh import StaleEvidenceError
from flows.run_names import run_name
from flows.workload import Workload


@flow(flow_run_name=run_name)
def promote(config: str, evidence_folder: str) -> State[None]:
    """Show the evidence, wait for a decision, store it, and on approval crown the challenger.

    Raises:
        StaleEvidenceError: What the evidence is about has changed; a turn was started.
    """
    workload = configs.read(Path(config))
    found = evidence.read(Path(evidence_folder))
    try:
        decision = decide(found, workload)
        if decision.decision == "reject":
            reject(found, decision)
            return Completed(message=f"rejected by {decision.approver}: {decision.comment}")
        version = crown(workload, found, decision)
    except StaleEvidenceError as error:
        registering.let_go(found)
        asking.lapse(asking.question(found, 0), None, str(error))
        started = fresh.start_turn(config, workload.workload, str(error))
        url = f"{settings.load().prefect_url}/runs/flow-run/{started}"
        raise StaleEvidenceError(f"{error}; a turn evaluates afresh: {url}") from error
    return Completed(
        message=f"approved by {decision.approver}: version {version.number} is champion"
    )


def decide(found: Evidence, workload: Workload) -> Decision:
    """Show the evidence and give what was decided on it, before or now.

    Raises:
        StaleEvidenceError: Its data was erased, or an answer came too late.
    """
    fresh.require_unerased(found)
    brief = (found.folder / evidence.BRIEF).read_text()
    publish(brief, found.digest, workload.workload)
    challenge(workload, found)
    return asking.ask(brief, found, workload)


def _once_per_evidence(_: TaskRunContext, parameters: dict[str, str]) -> str:
    return f"brief-{parameters['digest']}"


@task(persist_result=True, cache_key_fn=_once_per_evidence)
def publish(page: str, digest: str, workload: str) -> str:
    """Keep the page as an artifact; under the workload's key the pages form a history."""
    create_markdown_artifact(page, key=page_key(workload), description=digest)
    return digest


@task
def challenge(workload: Workload, found: Evidence) -> None:
    """Register what is asked about, as challenger."""
    registering.challenge(workload, found)


@task
def crown(workload: Workload, found: Evidence, decision: Decision) -> registry.Version:
    """Make the challenger champion; safe to repeat, and finished after a kill."""
    return registering.crown(
        workload, found, decision, lambda: fresh.require_fresh(found, workload)
    )


@task
def reject(found: Evidence, decision: Decision) -> None:
    """Say on the version that it was rejected."""
    registering.reject(found, decision)
