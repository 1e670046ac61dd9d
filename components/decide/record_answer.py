"""Write the header of the approval form; accept or refuse an answer, and record either."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from components.decide import approvers, blame, chain, decision_log, ssh_signatures, statement
from components.decide.approvers import ApprovalRules
from components.decide.blame import Blamed
from components.decide.chain import Link, Reason, Refused
from components.decide.decision_log import LogEvent
from components.decide.ssh_signatures import SignatureError, UntouchedError
from components.decide.statement import Signed, Statement
from components.pages import templates
from components.store import warehouse
from components.store.warehouse import Connection

SHOWN = 5  # earlier decisions shown

WRONG_CODES = 10
"""After this many wrong codes under one name within ``LOCKED`` no more are accepted: a guess is
right with a chance of 3 in a million, so within a year of guessing with 1 in 90."""

LOCKED = timedelta(days=1)

EARLY = timedelta(minutes=5)  # how far ahead the signing person's clock may be


def write(
    answered: Sequence[Link],
    approved: Sequence[Link],
    earlier: Sequence[Link],
    links: Mapping[str, str],
    *,
    required: int,
    sign: str = "",
) -> str:
    """Render the header as Markdown.

    ``answered`` are the answers to this promotion, ``approved`` the valid approvals of this
    evidence, ``earlier`` the decisions on the workload's other evidence, the oldest first.
    ``links`` are addresses by name. ``required`` people must approve. ``sign`` is the shell
    command that signs an answer, where answers are signed.
    """
    return templates.render(
        "components/decide/page.md.j2",
        answered=answered,
        approved=approved,
        earlier=earlier[-SHOWN:],
        links=links,
        required=required,
        sign=sign,
        refusal=chain.refusal_sentence,
    )


def card(text: str) -> str:
    """Render a snapshot's card, without header and pictures, as a collapsed section."""
    if not text:
        return ""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    shown = "\n".join(line for line in body.splitlines() if not line.startswith("![")).strip()
    return f"\n<details><summary>The card of the data</summary>\n\n{shown}\n\n</details>\n"


@dataclass(frozen=True, slots=True)
class TypedAnswer:
    """A person's answer to an evidence, as typed."""

    decision: Literal["approve", "reject"]
    approver: str
    comment: str = ""
    code: str = ""
    reason: Reason = "other"
    blame: str = ""
    signature: str = ""

    def __post_init__(self) -> None:
        """Replace characters that can't be encoded."""
        for name in ("approver", "comment", "code", "blame", "signature"):
            object.__setattr__(self, name, chain.encodable(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Question:
    """A question about evidence: its flow run, and the number of the attempt in it."""

    workload: str
    evidence: str
    flow_run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ProofContext:
    """What a proof is checked against.

    ``secret`` is that of the person's codes, if known. ``evidence`` and ``adapter`` are the whole
    digests that a signed statement must name.
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
    """Record an answer as accepted or refused; idempotent.

    The rules are appended to the chain if they have changed. ``blamed`` is what the answer
    blames; ``None`` if some of it was not found.
    """
    with warehouse.transaction(con):
        if (before := recorded(con, question)) is not None:
            return before
        under = decision_log.in_force(con, question.workload, rules, now=now)
        links = decision_log.links(con, evidence=question.evidence)
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
        event = LogEvent(
            kind="refused" if objection else answer.decision,
            workload=question.workload,
            evidence=question.evidence,
            flow_run_id=question.flow_run_id,
            attempt=question.attempt,
            reason=objection or (answer.reason if answer.decision == "reject" else ""),
            decided_at=now,
            approver=answer.approver,
            comment=answer.comment,
            blame=answer.blame,
            body="" if objection else decision_log.link_body(rules.proof, under.digest),
            document=document,
        )
        link = decision_log.append_event(con, event)
        if link.kind == "reject" and blamed:
            workload = question.workload
            blame.record_blamed(con, blamed, decision=link.sequence, workload=workload, now=now)
        return link


def recorded(con: Connection, question: Question) -> Link | None:
    """Return the link of an answer that was recorded before, if any."""
    answers = decision_log.links(con, flow_run_id=question.flow_run_id)
    return next((link for link in answers if link.attempt == question.attempt), None)


def objection_to(
    answer: TypedAnswer, rules: ApprovalRules, links: Sequence[Link], starters: Sequence[str] = ()
) -> Refused | None:
    """Return why an answer is refused, apart from its proof; ``None`` if it is accepted. Pure.

    ``links`` are earlier ones on this evidence, ``starters`` the people who started its turns
    by hand.
    """
    if not answer.approver.strip():
        return "unnamed"
    if rules.people and rules.find(answer.approver) is None:
        return "unlisted"
    is_approval = answer.decision == "approve"
    if is_approval and rules.refuse_starter and decision_log.is_starter(answer.approver, starters):
        return "starter"
    approved_by = {link.approver for link in decision_log.counted_approvals(links, rules, starters)}
    if is_approval and answer.approver in approved_by:
        return "same_person"
    unexplained = answer.reason == "other" and not answer.comment.strip()
    if answer.decision == "reject" and rules.people and unexplained:
        return "unexplained"
    return None


def expected_statement(
    question: Question, answer: TypedAnswer, proof: ProofContext, rules_digest: str
) -> Statement:
    """Return the statement that must be signed for an answer, without its time."""
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
    """Return a signed statement if it proves the expected one, else why it is refused.

    ``pasted`` is the statement's line and the signature; ``expected`` has no time.
    """
    if not pasted.strip():
        return "signature_missing"
    signed = statement.split(pasted)
    if signed is None:
        return "signature_unreadable"
    try:
        signed_statement = statement.read(signed.line)
        signature = ssh_signatures.read_signature(signed.armored)
    except ValueError:
        return "signature_unreadable"
    if replace(signed_statement, at="") != expected:
        return "signature_other"
    try:
        ssh_signatures.verify_signature(signed.line.encode(), signature)
    except UntouchedError:
        return "signature_untouched"
    except SignatureError:
        return "signature_wrong"
    if signed_statement.signed_at > now + EARLY:
        return "signature_early"
    times = (signed_statement.signed_at, now)
    is_theirs = decision_log.is_key_valid(
        signature.key, decision_log.signers_of(rules, expected.approver), times
    )
    return signed if is_theirs else "signature_key"


def check_code(
    con: Connection, approver: str, code: str, secret: str | None, *, now: datetime
) -> Refused | None:
    """Return why a code is refused, if it is; record the half minute of an accepted one."""
    if secret is None:
        return "code_unknown"
    if _wrong_codes(con, approver, since=now - LOCKED) >= WRONG_CODES:
        return "code_locked"
    rows = con.execute(
        "select counter from raw.approver_codes where approver = $approver",
        {"approver": approver},
    ).fetchall()
    last = int(rows[0][0]) if rows else None
    counter = approvers.check(secret, code, now=now, last=last)
    if not isinstance(counter, int):
        return counter
    used = {"approver": approver, "counter": counter, "now": now}
    # Not `insert or replace`, which DuckDB can't do in PostgreSQL.
    con.execute(
        "insert into raw.approver_codes values ($approver, $counter, $now)"
        if last is None
        else "update raw.approver_codes set counter = $counter, used_at = $now"
        " where approver = $approver",
        used,
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
