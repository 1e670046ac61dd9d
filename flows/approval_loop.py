"""Suspend a promotion and ask people until it is decided or its evidence is out of date."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Scheduled
from pydantic import Field, ValidationError

from components.dataset import freeze_snapshot
from components.decide import blame, chain, decision_log, record_answer, statement
from components.decide.approvers import ApprovalRules, Approver
from components.decide.blame import Blamed
from components.decide.chain import Reason
from components.decide.decision_log import LogEvent
from components.decide.record_answer import ProofContext, Question, TypedAnswer
from components.gate import evidence_folder, policy, reference_errors
from components.gate.evidence_folder import Evidence
from components.monitor import turn_starts
from components.monitor.turn_starts import TurnStart
from components.register.registry import Version
from components.release import releases
from components.store import ledger, output_folders, warehouse
from components.store.ledger import Decision
from components.store.manifest import SnapshotManifest
from components.store.warehouse import Connection
from flows import (
    approvals,
    approver_keys,
    prefect_api,
    release_home,
    settings,
    trials,
    turn_evidence,
)
from flows.approver_keys import SecretError
from flows.prefect_api import Run
from flows.settings import Settings
from flows.workload_file import Workload


class StaleEvidenceError(RuntimeError):
    """What the evidence was about has changed: champion, policy, holdout, or data since erased."""


def require_fresh(evidence: Evidence, workload: Workload) -> None:
    """Raise ``StaleEvidenceError`` if evidence is out of date, unless it made the champion.

    ``NotApprovedError``: somebody only moved the champion's alias in MLflow, so nothing is.
    """
    require_unerased(evidence)
    home = release_home.of(settings.load())
    champion = releases.recorded_champion(home, evidence.subject.workload)
    if champion is None or champion.evidence != evidence.digest:  # else a crash came after it
        require_champion(evidence, champion)
        require_policy(evidence, workload)
        require_holdout(evidence)


def require_champion(evidence: Evidence, champion: Version | None) -> None:
    """Refuse evidence that compares with another champion than the current one."""
    now = champion.number if champion else "base"
    if now != evidence.subject.opponent:
        called = f"version {now}" if champion else "nobody, so the base answers"
        raise StaleEvidenceError(
            f"deciding on evidence {evidence.digest}: it compares with the "
            f"{evidence.subject.opponent_name}, but the champion is now {called}"
        )


def require_policy(evidence: Evidence, workload: Workload) -> None:
    """Refuse evidence that was judged by another policy than the workload file's current one."""
    judged_by = evidence_folder.policy(evidence.folder)
    if changed := policy.changes(judged_by, workload.gate.to_json()):
        differences = "; ".join(changed)
        raise StaleEvidenceError(
            f"deciding on evidence {evidence.digest}: the policy that judged it has changed "
            f"({differences})"
        )


def require_holdout(evidence: Evidence) -> None:
    """Refuse evidence that was measured on another holdout than the newest snapshot has."""
    root, subject = settings.load().snapshots, evidence.subject
    if not (root / output_folders.folder_name(subject.workload)).exists():
        return
    newest = freeze_snapshot.newest_snapshot(root, subject.workload)
    now = SnapshotManifest.read(newest).holdout_version
    if now != subject.holdout_version:
        raise StaleEvidenceError(
            f"deciding on evidence {evidence.digest}: it was measured on holdout version "
            f"{subject.holdout_version}, but the newest is {now}"
        )


def require_unerased(evidence: Evidence) -> None:
    """Refuse evidence whose outputs were made from rows erased since."""
    if certificate := erasure_certificate(evidence):
        raise StaleEvidenceError(
            f"deciding on evidence {evidence.digest}: rows that it is about were erased "
            f"(certificate {certificate})"
        )


def erasure_certificate(evidence: Evidence) -> str | None:
    """Return the erasure, if any, of rows that an evidence's outputs were made from."""
    subject = evidence.subject
    made_from = [
        evidence.digest,
        subject.snapshot,
        subject.adapter,
        subject.challenger_scorecard,
        subject.opponent_scorecard,
        *subject.anchor_scorecards,
    ]
    with warehouse.connect(settings.load().tables) as con:
        return ledger.erasure_of(con, made_from)


def start_fresh_turn(config: str, workload: str, reason: str) -> UUID:
    """Start a turn that evaluates again, unless one is under way; log the reason of the start."""
    if under_way := prefect_api.turns_under_way(Path(config)):
        return under_way[0].id
    entry = TurnStart(str(flow_run.id), workload, "stale", True, reason, datetime.now(UTC))
    with warehouse.connect(settings.load().tables) as con:
        turn_starts.record_start(con, entry)
    parameters = {"config": config, "start": entry.start_id}
    return prefect_api.start("turn/turn", parameters, [approvals.workload_tag(workload)]).id


STALE = "Stale"  # name of the state of a promotion that was cancelled with its evidence out of date


def withdraw(waiting: Run, ending: State[None]) -> bool:
    """Cancel a promotion that waited when it was read; one that was answered since goes on.

    Return whether it was cancelled.
    """
    with get_client(sync_client=True) as client:
        if not _is_answered(waiting):
            client.set_flow_run_state(waiting.id, ending, force=True)
            # Prefect takes an answer and ends the wait in one transaction, so an answer that is
            # here now came before the end, which would have swallowed it.
            if not _is_answered(waiting):
                return True
            resume(waiting)
    return False


def resume(answered: Run) -> None:
    """Schedule a promotion to go on with the answer that Prefect holds."""
    with get_client(sync_client=True) as client:  # without force it would forget the answer
        client.set_flow_run_state(answered.id, Scheduled(name="Resuming"), force=True)


def _is_answered(waiting: Run) -> bool:
    key = approvals.pause_key(waiting)  # none where somebody paused a run that has no form
    return key is not None and prefect_api.answer_held(waiting.id, key) is not None


PATIENCE_SECONDS = 30 * 24 * 3600  # before Prefect fails the run; a later turn asks again


class GateInput(RunInput):
    """The form that a person fills in."""

    decision: Literal["approve", "reject"] = Field(
        description="approve: the challenger becomes champion. reject: the champion stays."
    )
    approver: str = Field(
        min_length=1, max_length=64, description="Your name; it is stored with the decision."
    )
    comment: str = Field(default="", max_length=2000, description="Why; kept with the decision.")
    reason: Reason = Field(
        default="other", description="For a rejection: what speaks against it. Else leave it."
    )
    blame: str = Field(
        default="",
        max_length=4000,
        description="For a rejection, what it is about, one a line: the beginning of a request's "
        "id, a part of the traffic such as tool=search, or guard=abstention. It comes first in the "
        "next review; what was trained on is held until then.",
    )


class CodedInput(GateInput):
    """The form where each answer carries a one-time code."""

    code: str = Field(
        default="",
        max_length=32,
        description="The six digits that your authenticator app shows now. They prove that you "
        "were here, not what you said: who can write Prefect's database can change the answer.",
    )


class SignedInput(GateInput):
    """The form where each answer carries the approver's SSH signature over what is decided."""

    signature: str = Field(
        default="",
        max_length=8000,
        description="Needed: all that the line above prints, which is what you decide and your "
        "signature over it. Decision, name, reason, comment and blame must be the same here as "
        "there.",
    )


FORMS: Mapping[str, type[GateInput]] = {
    "name": GateInput,
    "code": CodedInput,
    "signature": SignedInput,
}
"""The form for each kind of proof."""


def ask_until_decided(brief: str, evidence: Evidence, workload: Workload) -> Decision:
    """Suspend until enough people have answered; on resuming, Prefect returns the stored answer."""
    rules = workload.approve.rules()
    while (decision := recorded_outcome(evidence.digest, rules)) is None:
        question = next_question(evidence)
        card = record_answer.card(turn_evidence.data_card(evidence))
        text = form_header(question, evidence, workload) + brief + card
        answer = wait_for_answer(question, text, workload)
        require_fresh(evidence, workload)  # else whoever caught it keeps what was answered
        take_answer(question, answer, evidence, workload)
    return decision


def wait_for_answer(question: Question, text: str, workload: Workload) -> TypedAnswer:
    """Suspend with the form; on resuming, return the submitted answer."""
    form = FORMS[workload.approve.proof]
    filled = suspend_flow_run(
        wait_for_input=form.with_initial_data(description=text),
        key=approvals.gate_key(question.attempt),
        timeout=PATIENCE_SECONDS,
    )
    answer = TypedAnswer(**filled.model_dump())
    return replace(answer, approver=answer.approver.strip())


@task(cache_policy=NO_CACHE)
def recorded_outcome(digest: str, rules: ApprovalRules) -> Decision | None:
    """Read the decision on an evidence, by any run, if it meets the current rules."""
    with warehouse.connect(settings.load().tables) as con:
        return decision_log.decision_on(con, digest, rules)


@task(cache_policy=NO_CACHE)
def lapsed_runs(digest: str) -> set[str]:
    """List the flow runs that asked about an evidence and whose answers don't count any more."""
    with warehouse.connect(settings.load().tables) as con:
        return decision_log.lapsed_runs(decision_log.links(con, evidence=digest))


def require_decided(evidence: Evidence, workload: Workload) -> None:
    """Refuse to act on approvals that fail the current rules; signatures are checked again."""
    with warehouse.connect(settings.load().tables) as con:
        broken = chain.first_broken(decision_log.links(con), decision_log.read_head(con))
        decision = decision_log.decision_on(con, evidence.digest, workload.approve.rules())
    if broken is not None:
        raise StaleEvidenceError(
            f"deciding on evidence {evidence.digest}: decision {broken.sequence} {broken.problem}; "
            "`flywheel audit --verify` shows more"
        )
    if decision is None or decision.decision != "approve":
        raise StaleEvidenceError(
            f"deciding on evidence {evidence.digest}: it is not approved under the current rules; "
            "those for deciding have changed since it was"
        )


@task(cache_policy=NO_CACHE)
def next_question(evidence: Evidence) -> Question:
    """Return the next question, numbered after the answers this run has received."""
    with warehouse.connect(settings.load().tables) as con:
        heard = decision_log.links(con, flow_run_id=str(flow_run.id))
    return question_of_run(evidence, 1 + len(heard))


def question_of_run(evidence: Evidence, attempt: int) -> Question:
    """Return this run's question; ``attempt`` counts from 1."""
    return Question(evidence.subject.workload, evidence.digest, str(flow_run.id), attempt)


@task(cache_policy=NO_CACHE)
def form_header(question: Question, evidence: Evidence, workload: Workload) -> str:
    """Write the header above the brief: earlier decisions and answers, and links."""
    rules, sign = workload.approve.rules(), ""
    # Before the warehouse is opened, since it reads whole files.
    proved = approver_keys.proof(evidence) if rules.proof == "signature" else ProofContext()
    with warehouse.connect(settings.load().tables) as con:
        if rules.proof == "signature":
            with warehouse.transaction(con):
                under = decision_log.in_force(con, question.workload, rules, now=datetime.now(UTC))
            first = TypedAnswer("approve", rules.people[0].name)
            sign = statement.command(
                record_answer.expected_statement(question, first, proved, under.digest)
            )
        answered = decision_log.links(con, flow_run_id=question.flow_run_id)
        starters = decision_log.starters(con, evidence.digest)
        here = decision_log.links(con, evidence=evidence.digest)
        earlier = decision_log.links(con, workload_id=question.workload)
    header = record_answer.write(
        answered,
        decision_log.counted_approvals(here, rules, starters),
        [link for link in earlier if link.kind in ("approve", "reject")],
        turn_evidence.evidence_links(evidence),
        required=rules.required,
        sign=sign,
    )
    home = settings.load()
    trial = trials.find().form_text(home, evidence, workload)
    return header + audit_text(home, evidence) + trial


def audit_text(home: Settings, evidence: Evidence) -> str:
    """Say what the references' audit found since the brief was written; empty if nothing."""
    folder = (
        home.snapshots
        / output_folders.folder_name(evidence.subject.workload)
        / evidence.subject.snapshot
    )
    if not output_folders.fetch(folder):
        return ""
    audited = turn_evidence.reference_audit(home, evidence.subject.workload, folder)
    sentences = reference_errors.claim_sentences(audited, evidence.judgement.target)
    brief = (evidence.folder / evidence_folder.BRIEF).read_text()
    if not audited.answered or all(sentence in brief for sentence in sentences):
        return ""
    return f"\n**Since then the references were audited.** {' '.join(sentences)}\n\n"


@task(cache_policy=NO_CACHE)
def take_answer(
    question: Question, answer: TypedAnswer, evidence: Evidence, workload: Workload
) -> None:
    """Accept or refuse the answer, and record either before anything is registered."""
    home, rules = settings.load(), workload.approve.rules()
    listed = workload.approve.find(answer.approver)
    secret = known_secret(home, listed) if listed and rules.proof == "code" else None
    proved = approver_keys.proof(evidence) if rules.proof == "signature" else ProofContext(secret)
    at = approvals.answered_at(UUID(question.flow_run_id), question.attempt)
    with warehouse.connect(home.tables) as con:
        blamed = find_blamed(con, answer, evidence)
        link = record_answer.record(con, question, answer, rules, proved, blamed=blamed, now=at)
    heard = (link.sequence, link.kind, link.reason, link.approver, link.evidence_digest)
    get_run_logger().info("decision %d: %s %s by %r on evidence %s", *heard)


def known_secret(home: Settings, listed: Approver) -> str | None:
    """Find a person's secret; ``None`` if it is missing or invalid, so the answer is refused."""
    try:
        return approver_keys.find_secret(home, listed)
    except SecretError as error:
        # An answer must not end the approval, and the person can't mend this: an operator can.
        get_run_logger().error("%s", error)
        return None


def find_blamed(con: Connection, answer: TypedAnswer, evidence: Evidence) -> list[Blamed] | None:
    """Find what an answer blames; ``None`` if some of it is missing, so the answer is refused."""
    samples, metric = evidence.folder / evidence_folder.SAMPLES, evidence.judgement.metric
    try:
        return blame.find_blamed(
            con, evidence.subject.workload, answer.blame, samples=samples, metric=metric
        )
    except LookupError as error:
        get_run_logger().info("what is blamed was not found: %s", error)
        return None


def end_as_stale(question: Question, evidence: Evidence, workload: Workload, message: str) -> None:
    """Record that evidence is stale, and what a person answered to it and nobody has taken yet.

    A rejection is recorded as one, so that what it blames is reviewed and held; it decides nothing,
    since the promotion that heard it expires.
    """
    answer = held_answer(question, workload)
    if answer is None:
        expire(replace(question, attempt=0), None, message)
    elif answer.decision == "reject" and erasure_certificate(evidence) is None:
        take_answer(question, answer, evidence, workload)
        expire(replace(question, attempt=0), None, message)
    else:
        expire(question, answer, message)


def held_answer(question: Question, workload: Workload) -> TypedAnswer | None:
    """Return the answer that Prefect holds to a question; ``None`` if there is none to read."""
    held = prefect_api.answer_held(UUID(question.flow_run_id), approvals.gate_key(question.attempt))
    if held is None:
        return None
    try:
        filled = FORMS[workload.approve.proof].model_validate_json(held["value"])
    except ValidationError:  # with Prefect's login one may store what no form sends
        return None
    answer = TypedAnswer(**filled.model_dump())
    return replace(answer, approver=answer.approver.strip())


@task(cache_policy=NO_CACHE)
def expire(question: Question, answer: TypedAnswer | None, message: str) -> None:
    """Record once that evidence is stale and ``answer`` too late; earlier approvals don't count.

    Nor do those that another promotion heard, such as one that crashed: evidence that is compared
    with the champion of today again, after a rollback, is asked about again.
    """
    late = _too_late(answer, message) if answer else message
    with warehouse.connect(settings.load().tables) as con, warehouse.transaction(con):
        links = decision_log.links(con, evidence=question.evidence)
        heard = {link.flow_run_id for link in links if link.kind == "approve"}
        lapsed = decision_log.lapsed_runs(links)
        for run in [question.flow_run_id, *sorted(heard - {question.flow_run_id})]:
            if run in lapsed:
                continue
            is_own = run == question.flow_run_id
            event = LogEvent(
                kind="lapsed",
                workload=question.workload,
                evidence=question.evidence,
                flow_run_id=run,
                attempt=question.attempt if is_own else 0,
                reason="stale",
                decided_at=datetime.now(UTC),
                approver=answer.approver if answer and is_own else "",
                comment=late if is_own else message,
                blame=answer.blame if answer and is_own else "",
            )
            decision_log.append_event(con, event)


def _too_late(answer: TypedAnswer, message: str) -> str:
    """Keep what a person said, though it decides nothing."""
    decision = f"reject ({answer.reason})" if answer.decision == "reject" else "approve"
    said = f"; the answer said: {answer.comment}" if answer.comment.strip() else ""
    return f"{decision} came too late: {message}{said}"
