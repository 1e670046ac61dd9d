"""Flow `promote`: ask a person, register the challenger and make it the champion."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from prefect import Task, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from components.decide import decision_log
from components.decide.record_answer import Question
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence
from components.register import (
    champion_change,
    journal,
    mlflow_api,
    registry,
    tracking,
    version_tags,
)
from components.register.registry import Version
from components.register.rollout_log import Rollout
from components.store import manifest, warehouse
from components.store.ledger import Decision
from components.store.manifest import AdapterManifest
from components.store.object_store import StoreError
from flows import (
    adapters,
    approval_loop,
    approvals,
    canary_rollouts,
    champions,
    home_workloads,
    releases,
    settings,
    workload_file,
)
from flows.approval_loop import StaleEvidenceError
from flows.flow_runs import run_name
from flows.prefect_api import Run
from flows.settings import Settings
from flows.workload_file import Workload


class RolledBackError(RuntimeError):
    """The approved version has been champion before: its approval is used up."""


def register_version(workload: Workload, evidence: Evidence) -> Version:
    """Register the adapter with lineage and card, as it was evaluated, unless it is registered."""
    subject, home = evidence.subject, settings.load()
    if there := registry.version_of_evidence(subject.workload, evidence.digest):
        return there
    adapter = home.adapters / subject.workload / subject.adapter
    made_from = AdapterManifest.read_untouched(adapter)
    template = made_from.prompt_template or ""
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        copied = Path(scratch) / subject.adapter
        adapters.copy_finished(home, adapter, copied, served_as=workload.base_name)
        return registry.register_version(
            subject.workload,
            tracking.find_run(subject.workload, subject.adapter),
            copied,
            served=replace(
                releases.serving_parameters(home, subject, made_from), base=str(workload.base)
            ),
            sign=releases.folder_signer(home),
            description=adapters.card_text(copied),
            tags={
                version_tags.EVIDENCE_TAG: evidence.digest,
                version_tags.ADAPTER_TAG: subject.adapter,
                "flywheel.snapshot": subject.snapshot,
                "flywheel.holdout_version": subject.holdout_version,
                "flywheel.base": subject.base,
                "flywheel.prompt_template": template,
                "flywheel.scorecard": subject.challenger_scorecard,
                "flywheel.commit": made_from.commit,
            },
        )


def crown(
    home: Settings,
    workload: Workload,
    evidence: Evidence,
    *,
    by: str,
    reason: str,
    rollout: Rollout | None = None,
) -> Version:
    """Make an adapter whose approval was checked the champion; the caller holds the lock.

    ``rollout`` is the canary that led to it; another version's canary is stopped.
    """
    name = evidence.subject.workload
    now = registry.champion_version(name)
    if now is None or now.evidence != evidence.digest:
        version = _release(home, workload, evidence)
        change = champion_change.promotion(
            name,
            version.number,
            evidence.digest,
            evidence.subject.adapter,
            by=by,
            reason=reason,
            rollout_id=rollout.id if rollout else None,
        )
        if rollout is None and (running := canary_rollouts.running(home, name)) is not None:
            canary_rollouts.stop(home, running, f"version {version.number} becomes champion")
        journal_of = champions.champion_journal(home)
        champion_change.carry_out(journal_of, journal_of.intend(change))
        champions.write_approved_versions(home, name)
    champion = registry.version_of_evidence(name, evidence.digest)
    assert champion is not None
    return champion


def _release(home: Settings, workload: Workload, evidence: Evidence) -> Version:
    name = evidence.subject.workload
    if objection := champions.rolled_back(name, evidence.subject.adapter):
        raise RolledBackError(f"promoting {name} on evidence {evidence.digest}: {objection}")
    version = register_version(workload, evidence)
    releases.release_version(home, version, evidence)
    return version


@dataclass(frozen=True, slots=True)
class PromotedVersion:
    """An approved version, and what it is now."""

    version: Version
    became: str


def promote_version(
    workload: Workload,
    evidence: Evidence,
    decision: Decision,
    still: Callable[[], None],
    report: Callable[[str], None] = lambda _: None,
) -> PromotedVersion:
    """Make the approved adapter the champion, or a canary where its file orders one.

    Idempotent, and resumed after a kill. ``still`` raises if the approval no longer holds; it is
    called under the champion's lock. ``report`` is called with what a canary can show. Raises
    ``ChangedAdapterError`` or ``SignatureError`` if files differ from what was approved.
    """
    home, name = settings.load(), evidence.subject.workload
    releases.require_bytes(home, evidence)
    with journal.lock_champion(home.tables, home.locks, name):
        champions.recover(home, name)
        still()
        champion = releases.recorded_champion(home, name)
        running = canary_rollouts.running(home, name)
        _require_unused(evidence, champion)
        _require_newest(home, evidence, running)
        _anchor(evidence, decision)
        if champion is not None and champion.evidence == evidence.digest:
            return PromotedVersion(champion, "is champion")
        rules = workload_file.in_force(home, workload).serve
        is_same = (
            running is not None
            and running.ending is None
            and running.intention.evidence_digest == evidence.digest
        )
        number = champion.number if champion else None
        why = canary_rollouts.immediate_reason(home, rules, number, name)
        # Not even without a gateway: what is being tested doesn't pass because it restarts.
        if champion is None or (why is not None and not is_same):
            version = crown(home, workload, evidence, by=decision.approver, reason=decision.comment)
            at_once = f" at once: {why}" if rules.canary else ""
            return PromotedVersion(version, f"is champion{at_once}")
        version = _release(home, workload, evidence)
        begun = canary_rollouts.start(home, rules, version, champion, decision, report)
        return PromotedVersion(
            version, f"answers a share beside version {champion.number} (canary {begun.id})"
        )


def _require_unused(evidence: Evidence, champion: Version | None) -> None:
    """Refuse to make a champion twice by one approval: a run is started by whoever likes."""
    name = evidence.subject.workload
    if champion is not None and champion.evidence == evidence.digest:
        return
    adapter = evidence.subject.adapter
    objection = champions.rolled_back(name, adapter) or champions.used_up(name, evidence.digest)
    if objection:
        raise RolledBackError(f"promoting {name} on evidence {evidence.digest}: {objection}")


def _require_newest(home: Settings, evidence: Evidence, running: Rollout | None) -> None:
    """Refuse to replace a canary by what was approved before it, and is carried out late."""
    subject, digest = evidence.subject, evidence.digest
    if running is None or running.ending is not None:
        return
    with warehouse.connect(home.tables) as con:
        links = decision_log.links(con, workload_id=subject.workload)
    approved = {link.evidence_digest: link.sequence for link in links if link.kind == "approve"}
    theirs = approved.get(running.intention.evidence_digest, 0)
    if theirs > approved.get(digest, theirs):
        raise StaleEvidenceError(
            f"promoting {subject.workload} on evidence {digest}: version "
            f"{running.intention.version}, which was approved after it, answers a share"
        )


def _anchor(evidence: Evidence, decision: Decision) -> None:
    name = evidence.subject.workload
    version = registry.version_of_evidence(name, evidence.digest)
    if version is not None and decision.link:  # so that cutting the chain off is detected
        registry.tag_version(name, version.number, {version_tags.LINK_TAG: decision.link})


class ForeignEvidenceError(ValueError):
    """A promotion was started with evidence that is foreign, or did not pass the gate."""


@flow(flow_run_name=run_name)
def promote(
    workload: str = "", evidence: str = "", config: str = "", evidence_folder: str = ""
) -> State[None]:
    """Show the evidence, wait for a decision, store it, and on approval promote the challenger.

    The starter chooses the evidence and nothing else: the folder is this home's, and the rules are
    those of the workload's own file.

    Args:
        workload: Whose evidence.
        evidence: Its digest.
        config: For runs that an older version started: the workload's file.
        evidence_folder: For those: the evidence's folder, instead of the first two.
    """
    home = settings.load()
    own_evidence = read_own_evidence(home, workload, evidence, evidence_folder)
    rules = in_force(home, own_evidence, config)
    own_id, lapsed = UUID(str(flow_run.id)), approval_loop.lapsed_runs(own_evidence.digest)
    if str(own_id) in lapsed:  # somebody retries it, but no answer to it counts any more
        again = approvals.start_after(own_id, rules.workload, own_evidence.digest)
        return Completed(message=f"this approval has ended; {home.run_page(again.id)} asks again")
    if asked := approvals.asked_by(own_evidence.digest, own_id, lapsed):
        return Completed(message=f"{home.run_page(asked.id)} asks about this evidence already")
    try:
        decision = decide_or_reread(own_evidence, rules)
        if decision.decision == "reject":
            reject_task(own_evidence, decision)
            return Completed(message=f"rejected by {decision.approver}: {decision.comment}")
        promoted = promote_task(rules, own_evidence, decision)
    except StaleEvidenceError as error:
        champion_change.clear_challenger(rules.workload, own_evidence.digest)
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


def read_own_evidence(home: Settings, workload: str, digest: str, folder: str) -> Evidence:
    """Read evidence of this home or its store; ``folder`` is how older versions name it."""
    root = home.evidence.resolve()
    path = (Path(folder) if folder else root / workload / digest).resolve()
    if len(path.parts) != len(root.parts) + 2 or path.parent.parent != root:
        raise ForeignEvidenceError(
            f"promoting by {path}: it is not evidence of this home, expected {root}/WORKLOAD/DIGEST"
        )
    manifest.is_finished(home.evidence / path.relative_to(root))  # pulls another machine's
    if not (path / evidence_folder.VERDICT).is_file():
        raise ForeignEvidenceError(f"promoting by {path}: there is no evidence")
    evidence = evidence_folder.read(path)
    named = (workload or path.parent.name, digest or path.name)
    if evidence.subject.workload != path.parent.name or named != (path.parent.name, path.name):
        raise ForeignEvidenceError(
            f"promoting by {path}: it is evidence on {evidence.subject.workload}, expected "
            f"{' '.join(named)}"
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
        evidence = read_own_evidence(home, name, digest, "")
        frozen = workload_file.of_evidence(home, evidence)
        if frozen is not None:
            approval_loop.require_fresh(evidence, workload_file.in_force(home, frozen))
    except (ValueError, LookupError, OSError, StoreError) as error:
        # Whoever answers is told; what can't be read must not stop maintenance.
        get_run_logger().info("evidence %s on %s can't be looked at: %s", digest, name, error)
        return False
    except StaleEvidenceError as error:
        ending = Cancelled(name=approval_loop.STALE, message=str(error))
        if not approval_loop.withdraw(waiting, ending):
            return False
        champion_change.clear_challenger(name, digest)
        question = Question(name, digest, str(waiting.id), 0)
        approval_loop.expire(question, None, str(error))
        return True
    return False


def in_force(home: Settings, evidence: Evidence, config: str = "") -> Workload:
    """Return the workload that the evidence's turn froze, with the current rules of its file."""
    frozen = workload_file.of_evidence(home, evidence)
    if config or frozen is None:
        file = rules_file(home, evidence, config)
        if frozen is None:
            frozen = workload_file.read_workload(file)  # an older version's turn froze none
            workload_file.adopt(home.turns, evidence, frozen)
    return workload_file.in_force(home, frozen)


def rules_file(home: Settings, evidence: Evidence, config: str) -> Path:
    """Find the file whose rules hold: the workload's own in this home."""
    workload = evidence.subject.workload
    known = home_workloads.find(home, workload)
    if known is None and config and is_from_before(home):  # it brings its own file, once
        home_workloads.require_unserved(home, Path(config))
        with workload_file.silent_about(home, Path(config)):
            named = workload_file.read_workload(Path(config)).workload
        if named == workload:
            home_workloads.adopt(home, workload, Path(config))
        known = home_workloads.find(home, workload)
    file = known or home_workloads.require(home, workload)
    if config and Path(config).resolve() != file:
        raise ForeignEvidenceError(
            f"promoting {workload} by the rules of {config}: this home's file of it is {file}"
        )
    named = workload_file.read_workload(file).workload
    if named != workload:
        raise ForeignEvidenceError(
            f"promoting {workload} by the rules of {file}: it describes {named}"
        )
    return file


def is_from_before(home: Settings) -> bool:
    """Return whether this run was created before the home's upgrade; Prefect's server dates it."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.created is None:
        return False
    with warehouse.connect(home.tables) as con:
        return run.created.timestamp() < decision_log.since(con).timestamp()


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
    releases.require_bytes(settings.load(), evidence)
    champion_change.set_challenger(register_version(workload, evidence))


# A person has decided: a server that is away for an hour must not cost the decision.
@task(retries=60, retry_delay_seconds=60, retry_condition_fn=_is_mlflow_away)
def promote_task(workload: Workload, evidence: Evidence, decision: Decision) -> PromotedVersion:
    """Make the challenger champion or a canary, if the decision holds under the current rules."""

    def still() -> None:
        approval_loop.require_fresh(evidence, workload)
        approval_loop.require_decided(evidence, workload_file.in_force(settings.load(), workload))

    return promote_version(
        workload, evidence, decision, still, lambda text: get_run_logger().info(text)
    )


@task(retries=60, retry_delay_seconds=60, retry_condition_fn=_is_mlflow_away)
def reject_task(evidence: Evidence, decision: Decision) -> None:
    """Tag the version as rejected, and clear the challenger alias."""
    champion_change.reject(
        evidence.subject.workload, evidence.digest, by=decision.approver, comment=decision.comment
    )
    _anchor(evidence, decision)
