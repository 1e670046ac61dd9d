"""Write the header of the approval form; accept or refuse an answer, and record either."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from components.decide import (
    approvers,
    chain,
    decision_log,
    reasons,
    ssh_signatures,
    statement,
    validity,
)
from components.decide.approvers import ApprovalRules
from components.decide.chain import Link
from components.decide.decision_log import LinkFilter, LogEvent
from components.decide.reasons import Blamed, Reason, Refused
from components.decide.ssh_signatures import SignatureError, UntouchedError
from components.decide.statement import Signed, Statement
from components.pages import templates
from components.store import warehouse
from components.store.warehouse import Connection

SHOWN = 5
"""Earlier decisions on the workload."""


def write(
    answered: Sequence[Link],
    approved: Sequence[Link],
    earlier: Sequence[Link],
    links: Mapping[str, str],
    *,
    wanted: int,
    sign: str = "",
) -> str:
    """Write it as Markdown.

    Args:
        answered: What was answered to this promotion so far, in its order.
        approved: The approvals of this evidence that count.
        earlier: What was decided on the workload's other evidence, the oldest first.
        links: Addresses by what they lead to.
        wanted: How many different people have to approve.
        sign: The line of shell that signs an answer, where answers are signed.
    """
    return templates.render(
        "decide/page.md.j2",
        answered=answered,
        approved=approved,
        earlier=earlier[-SHOWN:],
        links=links,
        wanted=wanted,
        sign=sign,
        refusal=reasons.refusal_sentence,
    )


def card(text: str) -> str:
    """Fold the card of a snapshot to one line that opens; its pictures lie elsewhere.

    Args:
        text: The card as it lies in the snapshot, which begins with what machines read.
    """
    if not text:
        return ""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    told = "\n".join(line for line in body.splitlines() if not line.startswith("![")).strip()
    return f"\n<details><summary>The card of the data</summary>\n\n{told}\n\n</details>\n"


WRONG_CODES = 10
"""So many wrong codes under one name within ``LOCKED`` and no other is taken: a guess is right with
a chance of 3 in a million, so that in a year of guessing it is 1 in 90."""

LOCKED = timedelta(days=1)

EARLY = timedelta(minutes=5)
"""How far ahead the clock may be of whoever signs."""

LATE = timedelta(minutes=15)
"""How old the signature of an order to roll back may be."""


@dataclass(frozen=True, slots=True)
class TypedAnswer:
    """What a person said to an evidence, as it was typed."""

    decision: Literal["approve", "reject"]
    approver: str
    comment: str = ""
    code: str = ""
    reason: Reason = "other"
    blame: str = ""
    signature: str = ""

    def __post_init__(self) -> None:
        """Make its texts encodable, wherever they come from."""
        for name in ("approver", "comment", "code", "blame", "signature"):
            object.__setattr__(self, name, chain.encodable(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: of which evidence, and the how-manieth time in which flow run."""

    workload: str
    evidence: str
    flow_run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """Who orders a rollback, and what proves that; ``secret`` is that of the person's codes."""

    by: str
    code: str = ""
    signature: str = ""
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class ProofContext:
    """What the proof of a name is held against.

    ``secret`` is that of the person's codes, ``None`` where none is known. ``evidence`` and
    ``adapter`` are the whole digests that a signed statement must name.
    """

    secret: str | None = None
    evidence: str = ""
    adapter: str = ""


def record(
    con: Connection,
    question: Question,
    answer: TypedAnswer,
    rules: ApprovalRules,
    proof: ProofContext,
    *,
    blamed: Sequence[Blamed] | None = (),
    now: datetime,
) -> Link:
    """Record an answer as taken or as refused; hearing it again changes nothing.

    Args:
        con: The warehouse.
        question: What it answers.
        answer: What was said.
        rules: Those in force, which become a link of the chain if they are not the last.
        proof: What whoever the answer says it is from has to prove it by.
        blamed: What the answer blames; ``None`` where some of it was not found.
        now: When it was said (UTC).
    """
    with warehouse.transaction(con):
        if (before := recorded(con, question)) is not None:
            return before
        under = decision_log.in_force(con, question.workload, rules, now=now)
        links = decision_log.links(con, LinkFilter(evidence=question.evidence))
        starters = decision_log.starters(con, question.evidence)
        objection = objection_to(answer, rules, links, starters)
        if objection is None and answer.decision == "reject" and blamed is None:
            objection = "blame"
        document = ""
        if objection is None and rules.proof == "code":
            objection = check_code(con, answer.approver, answer.code, proof.secret, now=now)
        elif objection is None and rules.proof == "signature":
            expected = expected_statement(question, answer, proof, under.digest)
            signed = check_signature(answer.signature, expected, rules, now=now)
            if isinstance(signed, Signed):
                document = signed.document
            else:
                objection = signed
        link = decision_log.append_event(
            con, _event(question, answer, objection, now, under, rules, document)
        )
        if link.kind == "reject" and blamed:
            workload = question.workload
            reasons.record_blamed(con, blamed, decision=link.sequence, workload=workload, now=now)
        return link


def recorded(con: Connection, question: Question) -> Link | None:
    """Find what came of an answer that was heard before; ``None`` if it was not."""
    found = decision_log.links(con, LinkFilter(flow_run_id=question.flow_run_id))
    return next((link for link in found if link.attempt == question.attempt), None)


def objection_to(
    answer: TypedAnswer, rules: ApprovalRules, links: Sequence[Link], starters: Sequence[str] = ()
) -> Refused | None:
    """Say why an answer can't be taken, but for what proves it; ``None`` if it can. Pure.

    Args:
        answer: What was said.
        rules: Who may decide.
        links: What was said to this evidence before.
        starters: Who started by hand a turn that the evidence came from.
    """
    if not answer.approver.strip():
        return "unnamed"
    if rules.people and rules.find(answer.approver) is None:
        return "unlisted"
    if answer.decision == "approve" and rules.refuse_starter and answer.approver in starters:
        return "starter"
    said_yes = {link.approver for link in validity.counted_approvals(links, rules, starters)}
    if answer.decision == "approve" and answer.approver in said_yes:
        return "same_person"
    unexplained = answer.reason == "other" and not answer.comment.strip()
    if answer.decision == "reject" and rules.people and unexplained:
        return "unexplained"
    return None


def expected_statement(
    question: Question, answer: TypedAnswer, proof: ProofContext, rules_digest: str
) -> Statement:
    """Write the statement that an answer must carry, but for its time."""
    return Statement(
        workload=question.workload,
        evidence=proof.evidence,
        adapter=proof.adapter,
        rules=rules_digest,
        question=question.flow_run_id,
        decision=answer.decision,
        approver=answer.approver,
        reason=answer.reason if answer.decision == "reject" else "",
        comment=statement.digest(answer.comment),
        blame=statement.digest(answer.blame),
        at="",
    )


def check_signature(
    pasted: str, expected: Statement, rules: ApprovalRules, *, now: datetime
) -> Signed | Refused:
    """Hold a signed statement against what it must say; return it if it proves that.

    Args:
        pasted: The statement's line and the signature, as they came.
        expected: What must be signed, but for its time.
        rules: With the keys of each person.
        now: When the answer was given.
    """
    if not pasted.strip():
        return "signature_missing"
    signed = statement.split(pasted)
    if signed is None:
        return "signature_unreadable"
    try:
        found = statement.read(signed.line)
        signature = ssh_signatures.read_signature(signed.armored)
    except ValueError:
        return "signature_unreadable"
    if replace(found, at="") != expected:
        return "signature_other"
    try:
        ssh_signatures.verify_signature(signed.line.encode(), signature)
    except UntouchedError:
        return "signature_untouched"
    except SignatureError:
        return "signature_wrong"
    if found.signed_at > now + EARLY:
        return "signature_early"
    times = (found.signed_at, now)
    is_theirs = validity.is_key_valid(
        signature.key, validity.signers_of(rules, expected.approver), times
    )
    return signed if is_theirs else "signature_key"


def objection_to_order(
    con: Connection,
    rules: ApprovalRules,
    order: RollbackRequest,
    expected: Statement,
    *,
    now: datetime,
) -> Refused | None:
    """Say why nobody can be taken to have ordered a rollback; ``None`` if somebody has.

    Args:
        con: The warehouse; a code that is taken is noted there.
        rules: Those in force.
        order: Who orders it, and what proves that.
        expected: What must be signed, but for its time.
        now: When it was ordered.
    """
    if not order.by.strip():
        return "unnamed"
    if rules.people and rules.find(order.by) is None:
        return "unlisted"
    if rules.proof == "code":
        return check_code(con, order.by, order.code, order.secret, now=now)
    if rules.proof == "name":
        return None
    signed = check_signature(order.signature, expected, rules, now=now)
    if not isinstance(signed, Signed):
        return signed
    if statement.read(signed.line).signed_at < now - LATE:
        return "signature_late"
    used = {
        link.document for link in decision_log.links(con, LinkFilter(workload_id=expected.workload))
    }
    return "signature_used" if signed.document in used else None


def check_code(
    con: Connection, approver: str, code: str, secret: str | None, *, now: datetime
) -> Refused | None:
    """Hold a code against the secret, and note the half minute that it is of."""
    if secret is None:
        return "code_unknown"
    if _wrong_codes(con, approver, since=now - LOCKED) >= WRONG_CODES:
        return "code_locked"
    used = con.execute(
        "select counter from raw.approver_codes where approver = $approver",
        {"approver": approver},
    ).fetchall()
    last = int(used[0][0]) if used else None
    found = approvers.check(secret, code, now=now, last=last)
    if not isinstance(found, int):
        return found
    con.execute(
        "insert or replace into raw.approver_codes values ($approver, $counter, $now)",
        {"approver": approver, "counter": found, "now": now},
    )
    return None


def _wrong_codes(con: Connection, approver: str, *, since: datetime) -> int:
    return sum(
        link.kind == "refused"
        and link.reason == "code_wrong"
        and link.approver == approver
        and link.decided_at > since
        for link in decision_log.links(con)
    )


def _event(
    question: Question,
    answer: TypedAnswer,
    objection: Refused | None,
    now: datetime,
    under: Link,
    rules: ApprovalRules,
    document: str,
) -> LogEvent:
    reason = answer.reason if answer.decision == "reject" else ""
    return LogEvent(
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
        body="" if objection else validity.link_body(rules.proof, under.digest),
        document=document,
    )
