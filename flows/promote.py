"""Flow `promote`: ask a person, and register the challenger and promote it, or reject it."""

from uuid import UUID

from prefect import Task, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from components.decide.record_answer import Question
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence
from components.register import mlflow_api
from components.release import champion_alias, releases
from components.store import output_folders
from components.store.ledger import Decision
from components.store.shared_files import StoreError
from flows import (
    approval_loop,
    approvals,
    home_workloads,
    promotion,
    settings,
    trials,
)
from flows.approval_loop import StaleEvidenceError
from flows.flow_runs import run_name
from flows.prefect_api import Run
from flows.promotion import ForeignEvidenceError, PromotedVersion
from flows.settings import Settings
from flows.workload_file import Workload


@flow(flow_run_name=run_name)
def promote(workload: str, evidence: str) -> State[None]:
    """Show the evidence, wait for a decision, store it, and on approval promote the challenger.

    The starter chooses the evidence and nothing else: the folder is this home's, and the rules are
    those of the workload's own file.

    Args:
        workload: Whose evidence.
        evidence: Its digest.
    """
    home = settings.load()
    own_evidence = read_own_evidence(home, workload, evidence)
    rules = promotion.in_force(home, own_evidence)
    own_id, lapsed = UUID(str(flow_run.id)), approval_loop.lapsed_runs(own_evidence.digest)
    if str(own_id) in lapsed:  # somebody retries it, but no answer to it counts any more
        again = approvals.start_after(own_id, rules.workload, own_evidence.digest)
        return Completed(message=f"this approval has ended; {home.run_page(again.id)} asks again")
    if asked := approvals.asked_by(own_evidence.digest, own_id, lapsed):
        return Completed(message=f"{home.run_page(asked.id)} asks about this evidence already")
    # What a canary has shown before an answer came counts before it, whoever was late to look.
    trials.settling()(rules.workload)
    try:
        decision = decide_or_reread(own_evidence, rules)
        if decision.decision == "reject":
            reject_task(own_evidence, decision)
            return Completed(message=f"rejected by {decision.approver}: {decision.comment}")
        promoted = promote_task(rules, own_evidence, decision)
    except StaleEvidenceError as error:
        champion_alias.clear_challenger(rules.workload, own_evidence.digest)
        question = approval_loop.next_question(own_evidence)
        approval_loop.end_as_stale(question, own_evidence, rules, str(error))
        file = home_workloads.require(home, rules.workload)
        started = approval_loop.start_fresh_turn(str(file), rules.workload, str(error))
        page = home.run_page(started)
        raise StaleEvidenceError(f"{error}; a turn evaluates again: {page}") from error
    return Completed(
        message=f"approved by {decision.approver}: version {promoted.version.number} "
        f"{promoted.became}"
    )


def read_own_evidence(home: Settings, workload: str, digest: str) -> Evidence:
    """Read evidence of this home or its store."""
    root = home.evidence.resolve()
    path = (root / workload / digest).resolve()
    if len(path.parts) != len(root.parts) + 2 or path.parent.parent != root:
        raise ForeignEvidenceError(
            f"promoting by {path}: it is not evidence of this home, expected {root}/WORKLOAD/DIGEST"
        )
    output_folders.fetch(home.evidence / path.relative_to(root))  # pulls another machine's
    if not (path / evidence_folder.VERDICT).is_file():
        raise ForeignEvidenceError(f"promoting by {path}: there is no evidence")
    evidence = evidence_folder.read(path)
    if (evidence.subject.workload, path.parent.name, path.name) != (workload, workload, digest):
        raise ForeignEvidenceError(
            f"promoting by {path}: it is evidence on {evidence.subject.workload}, expected "
            f"{workload} {digest}"
        )
    if evidence.judgement.outcome != "pass":  # no turn asks about it, but anybody starts a run
        raise ForeignEvidenceError(
            f"promoting by {path}: the gate's verdict on it is {evidence.judgement.outcome}, "
            "expected pass"
        )
    return evidence


def withdraw_if_stale(waiting: Run) -> bool:
    """End a promotion that asks about evidence that is out of date; return whether it was ended.

    No turn is started for it: nobody wants to decide yet, and the next one evaluates again.
    """
    home, digest = settings.load(), approvals.asked_evidence(waiting)
    name = approvals.tag_value(waiting, "workload")
    try:
        evidence = read_own_evidence(home, name, digest)
        frozen = home_workloads.of_evidence(home, evidence)
        if frozen is not None:
            approval_loop.require_fresh(evidence, home_workloads.in_force(home, frozen))
    except (ValueError, LookupError, OSError, StoreError) as error:
        # Whoever answers is told; what can't be read must not stop maintenance.
        get_run_logger().info("evidence %s on %s can't be looked at: %s", digest, name, error)
        return False
    except StaleEvidenceError as error:
        ending = Cancelled(name=approval_loop.STALE, message=str(error))
        if not approval_loop.withdraw(waiting, ending):
            return False
        champion_alias.clear_challenger(name, digest)
        question = Question(name, digest, str(waiting.id), 0)
        approval_loop.expire(question, None, str(error))
        return True
    return False


def decide_or_reread(evidence: Evidence, workload: Workload) -> Decision:
    """Show the evidence and return the earlier or new decision on it."""
    approval_loop.require_unerased(evidence)
    brief = (evidence.folder / evidence_folder.BRIEF).read_text()
    publish_page(brief, evidence.digest, workload.workload)
    challenge_task(workload, evidence)
    return approval_loop.ask_until_decided(brief, evidence, workload)


def _page_cache_key(_: TaskRunContext, parameters: dict[str, str]) -> str:
    return f"brief-{parameters['digest']}"


@task(persist_result=True, cache_key_fn=_page_cache_key)
def publish_page(page: str, digest: str, workload: str) -> str:
    """Keep the page as an artifact; under the workload's key the pages form a history."""
    key = approvals.artifact_key("gate", workload)
    create_markdown_artifact(page, key=key, description=f"to decide on, evidence {digest}")
    return digest


def _is_mlflow_away(_: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and mlflow_api.is_away(error)


# A promotion that an answer resumes begins with it: the answer is not recorded yet.
@task(retries=60, retry_delay_seconds=60, retry_condition_fn=_is_mlflow_away)
def challenge_task(workload: Workload, evidence: Evidence) -> None:
    """Register the adapter that a person will be asked about, as challenger."""
    releases.require_bytes(settings.load().adapters, evidence)
    champion_alias.set_challenger(promotion.register_version(workload, evidence))


# A person has decided: a server that is away for an hour must not cost the decision.
@task(retries=60, retry_delay_seconds=60, retry_condition_fn=_is_mlflow_away)
def promote_task(workload: Workload, evidence: Evidence, decision: Decision) -> PromotedVersion:
    """Make the challenger champion or a canary, if the decision holds under the current rules."""

    def still() -> None:
        approval_loop.require_fresh(evidence, workload)
        approval_loop.require_decided(evidence, home_workloads.in_force(settings.load(), workload))

    return promotion.promote_version(workload, evidence, decision, still)


@task(retries=60, retry_delay_seconds=60, retry_condition_fn=_is_mlflow_away)
def reject_task(evidence: Evidence, decision: Decision) -> None:
    """Tag the version as rejected, and clear the challenger alias."""
    champion_alias.reject(
        evidence.subject.workload, evidence.digest, by=decision.approver, comment=decision.comment
    )
    promotion.anchor(evidence, decision)
