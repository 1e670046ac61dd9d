"""Ask people about an evidence, again and again until enough of them have answered.

Each answer is heard once and recorded, taken or not. What is not taken loses nothing: the run
suspends again, and the form says why.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from components import warehouse
from components.decide import blame, chain, hearing, page, record, standing, statement
from components.decide.approvers import Approver
from components.decide.blame import Blamed
from components.decide.hearing import Answer, Proof, Question
from components.decide.reasons import Reason
from components.decide.record import Asked, Event
from components.decide.rules import Rules
from components.gate.evidence import Evidence
from components.gate.report.write import SAMPLES
from components.ledger import Decision
from components.warehouse import Connection
from flows import approvals, fresh, secrets, settings, showing, signing
from flows.fresh import StaleEvidenceError
from flows.secrets import SecretError
from flows.settings import Settings
from flows.workload import Workload

PATIENCE_SECONDS = 30 * 24 * 3600
"""How long an approval waits before Prefect fails the run; a later turn asks again."""


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
        default="other", description="Of a rejection: what speaks against it. Else left as it is."
    )
    blame: str = Field(
        default="",
        max_length=4000,
        description="Of a rejection, what it is about, one a line: the beginning of a request's "
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


def ask(brief: str, found: Evidence, workload: Workload) -> Decision:
    """Suspend until enough people have answered; on resuming, Prefect gives the stored answer.

    Raises:
        StaleEvidenceError: What the evidence is about has changed before an answer came.
    """
    rules = workload.approve.rules()
    while (decision := recorded(found.digest, rules)) is None:
        question = next_question(found)
        text = head(question, found, workload) + brief + page.card(showing.card(found))
        given = wait(question, text, workload)
        try:
            fresh.require_fresh(found, workload)
        except StaleEvidenceError as error:
            lapse(question, given, str(error))
            raise
        hear(question, given, found, workload)
    return decision


def wait(question: Question, text: str, workload: Workload) -> Answer:
    """Suspend with the form, or take the answer that it was resumed with."""
    form = FORMS[workload.approve.proof]
    given = suspend_flow_run(
        wait_for_input=form.with_initial_data(description=text),
        key=approvals.gate_key(question.attempt),
        timeout=PATIENCE_SECONDS,
    )
    return Answer(
        decision=given.decision,
        approver=given.approver.strip(),
        comment=given.comment,
        code=given.code if isinstance(given, CodedInput) else "",
        reason=given.reason,
        blame=given.blame,
        signature=given.signature if isinstance(given, SignedInput) else "",
    )


@task(cache_policy=NO_CACHE)
def recorded(digest: str, rules: Rules) -> Decision | None:
    """Read what was decided on an evidence, by any run, of all that meets the rules of now."""
    with warehouse.connect(settings.load().warehouse) as con:
        return record.decision_on(con, digest, rules)


def require_decided(found: Evidence, workload: Workload) -> None:
    """Refuse to act on approvals that do not meet the rules of now; signatures are checked again.

    Raises:
        StaleEvidenceError: The rules have changed since, or what the chain holds has.
    """
    with warehouse.connect(settings.load().warehouse) as con:
        broken = chain.first_broken(record.links(con), record.head(con))
        decision = record.decision_on(con, found.digest, workload.approve.rules())
    if broken is not None:
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: decision {broken.sequence} {broken.said}; "
            "`flywheel audit --verify` says more"
        )
    if decision is None or decision.decision != "approve":
        raise StaleEvidenceError(
            f"deciding on evidence {found.digest}: it is not approved under the rules of now; "
            "those for deciding have changed since it was"
        )


@task(cache_policy=NO_CACHE)
def next_question(found: Evidence) -> Question:
    """Number the question: one more than this run has heard answers to."""
    with warehouse.connect(settings.load().warehouse) as con:
        heard = record.links(con, Asked(flow_run_id=str(flow_run.id)))
    return question(found, 1 + len(heard))


def question(found: Evidence, attempt: int) -> Question:
    """Say what this run asks, the how-manieth time."""
    return Question(found.subject.workload, found.digest, str(flow_run.id), attempt)


@task(cache_policy=NO_CACHE)
def head(question: Question, found: Evidence, workload: Workload) -> str:
    """Write what stands above the brief: who said what before, and where to read on."""
    rules, sign = workload.approve.rules(), ""
    proved = (
        signing.proof(found) if rules.proof == "signature" else Proof()
    )  # before: it reads whole files
    with warehouse.connect(settings.load().warehouse) as con:
        if rules.proof == "signature":
            with warehouse.transaction(con):
                under = record.in_force(con, question.workload, rules, now=datetime.now(UTC))
            first = Answer("approve", rules.people[0].name)
            sign = statement.command(hearing.asked(question, first, proved, under.digest))
        answered = record.links(con, Asked(flow_run_id=question.flow_run_id))
        starters = record.starters(con, found.digest)
        here = record.links(con, Asked(evidence=found.digest))
        earlier = record.links(con, Asked(workload_id=question.workload))
    return page.write(
        answered,
        standing.approvals(here, rules, starters),
        [one for one in earlier if one.kind in ("approve", "reject")],
        showing.links(found),
        wanted=rules.wanted,
        sign=sign,
    )


@task(cache_policy=NO_CACHE)
def hear(question: Question, given: Answer, found: Evidence, workload: Workload) -> None:
    """Take the answer or refuse it, and record either; nothing is registered before that."""
    home, rules = settings.load(), workload.approve.rules()
    listed = workload.approve.find(given.approver)
    secret = known_secret(home, listed) if listed and rules.proof == "code" else None
    proved = signing.proof(found) if rules.proof == "signature" else Proof(secret)
    at = approvals.answered_at(UUID(question.flow_run_id), question.attempt)
    with warehouse.connect(home.warehouse) as con:
        blamed = find_blamed(con, given, found)
        link = hearing.hear(con, question, given, rules, proved, blamed=blamed, now=at)
    get_run_logger().info(
        "decision %d: %s %s by %r on evidence %s",
        link.sequence,
        link.kind,
        link.reason,
        link.approver,
        link.evidence_digest,
    )


def known_secret(home: Settings, listed: Approver) -> str | None:
    """Find a person's secret; one that can't be used is none, so that the answer is refused."""
    try:
        return secrets.find(home, listed)
    except SecretError as error:
        # An answer must not end the approval, and the person can't mend this: an operator can.
        get_run_logger().error("%s", error)
        return None


def find_blamed(con: Connection, given: Answer, found: Evidence) -> list[Blamed] | None:
    """Find what an answer blames; ``None`` if some of it isn't there, so that it is refused."""
    samples, metric = found.folder / SAMPLES, found.judgement.metric
    try:
        return blame.find(con, found.subject.workload, given.blame, samples=samples, metric=metric)
    except LookupError as error:
        get_run_logger().info("what is blamed was not found: %s", error)
        return None


@task(cache_policy=NO_CACHE)
def lapse(question: Question, given: Answer | None, said: str) -> None:
    """Record once of a promotion that its evidence is stale: that ``given`` came too late, if any.

    What was approved on it before does not count any more.
    """
    with warehouse.connect(settings.load().warehouse) as con, warehouse.transaction(con):
        links = record.links(con, Asked(flow_run_id=question.flow_run_id))
        if any(link.kind == "lapsed" for link in links):
            return
        event = Event(
            kind="lapsed",
            workload=question.workload,
            evidence=question.evidence,
            flow_run_id=question.flow_run_id,
            attempt=question.attempt,
            reason="stale",
            decided_at=datetime.now(UTC),
            approver=given.approver if given else "",
            comment=f"{given.decision} came too late: {said}" if given else said,
        )
        record.append(con, event)
