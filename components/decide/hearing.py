"""Hear an answer: take it or refuse it, and record either, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from components import warehouse
from components.decide import blame, record, standing, totp
from components.decide.approvers import Approving
from components.decide.blame import Blamed
from components.decide.chain import Link
from components.decide.reasons import Reason, Refused
from components.decide.record import Asked, Event
from components.warehouse import Connection

WRONG_CODES = 10
"""So many wrong codes under one name within ``LOCKED`` and no other is taken: a guess is right with
a chance of 3 in a million, so that in a year of guessing it is 1 in 90."""

LOCKED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said to an evidence, as it was typed."""

    decision: Literal["approve", "reject"]
    approver: str
    comment: str = ""
    code: str = ""
    reason: Reason = "other"
    blame: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: of which evidence, and the how-manieth time in which flow run."""

    workload: str
    evidence: str
    flow_run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What the code was held against: ``secret`` is ``None`` where none is known."""

    secret: str | None


def hear(
    con: Connection,
    question: Question,
    answer: Answer,
    rules: Approving,
    proof: Proof,
    *,
    blamed: Sequence[Blamed] | None = (),
    now: datetime,
) -> Link:
    """Record an answer as taken or as refused; hearing it again changes nothing.

    Args:
        con: The warehouse.
        question: What it answers.
        answer: What was said.
        rules: Who may decide.
        proof: The secret of whoever the answer says it is from.
        blamed: What the answer blames; ``None`` where some of it was not found.
        now: When it was said (UTC).
    """
    with warehouse.transaction(con):
        if (before := heard(con, question)) is not None:
            return before
        links = record.links(con, Asked(evidence=question.evidence))
        objection = objection_to(answer, rules, links)
        if objection is None and answer.decision == "reject" and blamed is None:
            objection = "blame"
        if objection is None and rules.codes:
            objection = _prove(con, answer, proof, now=now)
        link = record.append(con, _event(question, answer, objection, now))
        if link.kind == "reject" and blamed:
            workload = question.workload
            blame.record(con, blamed, decision=link.sequence, workload=workload, now=now)
        return link


def heard(con: Connection, question: Question) -> Link | None:
    """Find what came of an answer that was heard before; ``None`` if it was not."""
    found = record.links(con, Asked(flow_run_id=question.flow_run_id))
    return next((link for link in found if link.attempt == question.attempt), None)


def objection_to(answer: Answer, rules: Approving, links: Sequence[Link]) -> Refused | None:
    """Say why an answer can't be taken, but for its code; ``None`` if it can. Pure.

    Args:
        answer: What was said.
        rules: Who may decide.
        links: What was said to this evidence before.
    """
    if not answer.approver.strip():
        return "unnamed"
    if rules.approvers and rules.find(answer.approver) is None:
        return "unlisted"
    said_yes = {link.approver for link in standing.approvals(links)}
    if answer.decision == "approve" and answer.approver in said_yes:
        return "same_person"
    unexplained = answer.reason == "other" and not answer.comment.strip()
    if answer.decision == "reject" and rules.approvers and unexplained:
        return "unexplained"
    return None


def _prove(con: Connection, answer: Answer, proof: Proof, *, now: datetime) -> Refused | None:
    """Hold the code against the secret, and note the half minute that it is of."""
    if proof.secret is None:
        return "code_unknown"
    if _wrong_codes(con, answer.approver, since=now - LOCKED) >= WRONG_CODES:
        return "code_locked"
    used = con.execute(
        "select counter from raw.approver_codes where approver = $approver",
        {"approver": answer.approver},
    ).fetchall()
    last = int(used[0][0]) if used else None
    found = totp.check(proof.secret, answer.code, now=now, last=last)
    if not isinstance(found, int):
        return found
    con.execute(
        "insert or replace into raw.approver_codes values ($approver, $counter, $now)",
        {"approver": answer.approver, "counter": found, "now": now},
    )
    return None


def _wrong_codes(con: Connection, approver: str, *, since: datetime) -> int:
    return sum(
        link.kind == "refused"
        and link.reason == "code_wrong"
        and link.approver == approver
        and link.decided_at > since
        for link in record.links(con)
    )


def _event(question: Question, answer: Answer, objection: Refused | None, now: datetime) -> Event:
    reason = answer.reason if answer.decision == "reject" else ""
    return Event(
        kind="refused" if objection else answer.decision,
        workload=question.workload,
        evidence=question.evidence,
        flow_run_id=question.flow_run_id,
        attempt=question.attempt,
        reason=objection or reason,
        decided_at=now,
        approver=answer.approver,
        comment=answer.comment,
        blame=answer.blame,
    )
