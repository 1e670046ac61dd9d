"""The append-only log of decisions in the warehouse, and, pure, which of them count."""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import groupby

from components.decide import approvers, chain, ssh_signatures, statement
from components.decide.approvers import OPEN, STRENGTH, ApprovalRules, Proof
from components.decide.chain import DOCUMENT, FIELDS, GENESIS, Broken, Head, Kind, Link
from components.decide.ssh_signatures import Signer
from components.decide.statement import Statement
from components.store import warehouse
from components.store.ledger import Decision, HoldoutLog, HoldoutUse, SealedPolicy
from components.store.warehouse import Connection

SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event to record: a decision, a refused answer, an expiry, a seal, a look.

    ``body`` is what a seal or a look commits to; ``evidence`` is then its policy. ``blame`` is as
    typed; ``reason`` is a code, or empty. ``document`` is stored with people's texts, so that it
    can be erased.
    """

    kind: Kind
    workload: str
    evidence: str
    flow_run_id: str
    decided_at: datetime
    approver: str = ""
    comment: str = ""
    attempt: int = 1
    reason: str = ""
    blame: str = ""
    body: str = ""
    document: str = ""


def append_event(con: Connection, event: LogEvent) -> Link:
    """Append a link to the chain; call it within a transaction, since it also moves the head."""
    last = read_head(con)
    names = (*FIELDS, DOCUMENT) if event.document else FIELDS
    salts = {name: secrets.token_hex(SALT_BYTES) for name in names}
    texts = {name: warehouse.storable(con, str(getattr(event, name))) for name in names}
    seals = {f"{name}_digest": chain.seal(salts[name], texts[name]) for name in names}
    link = Link(
        sequence=last.sequence + 1 if last else 1,
        kind=event.kind,
        workload_id=event.workload,
        evidence_digest=event.evidence,
        flow_run_id=event.flow_run_id,
        attempt=event.attempt,
        reason=event.reason,
        decided_at=event.decided_at,
        **seals,
        before=last.digest if last else GENESIS,
        digest="",
        **texts,
        **{f"{name}_salt": salt for name, salt in salts.items()},
        body=event.body,
    )
    link = replace(link, digest=chain.digest(link))
    erasable = {*FIELDS, DOCUMENT, *(f"{name}_salt" for name in (*FIELDS, DOCUMENT))}
    row = {name: value for name, value in asdict(link).items() if name not in erasable}
    words = [
        {"sequence": link.sequence, "field": name, "salt": salts[name], "text": texts[name]}
        for name in names
    ]
    warehouse.insert(con, "raw.decision_chain", [row])
    warehouse.insert(con, "raw.decision_words", words)
    con.execute("delete from raw.decision_head")
    head = {"sequence": link.sequence, "digest": link.digest}
    warehouse.insert(con, "raw.decision_head", [head])
    return link


def links(
    con: Connection,
    *,
    workload_id: str | None = None,
    evidence: str | None = None,
    flow_run_id: str | None = None,
) -> list[Link]:
    """Read the links that match all that is not ``None``, in the order of the chain."""
    matching = {"workload_id": workload_id, "evidence": evidence, "flow_run_id": flow_run_id}
    return warehouse.records(con, "marts/decisions", Link, **matching)


def approved_at(con: Connection, evidence: str) -> datetime | None:
    """Return the time of the last approval of an evidence, if any."""
    about = links(con, evidence=evidence)
    return max((link.decided_at for link in about if link.kind == "approve"), default=None)


def read_head(con: Connection) -> Head | None:
    """Read the head stored next to the chain; ``None`` before the first link."""
    rows = con.execute("select sequence, digest from raw.decision_head").fetchall()
    return Head(*rows[0]) if rows else None


def decision_on(con: Connection, evidence: str, rules: ApprovalRules = OPEN) -> Decision | None:
    """Return the decision on an evidence that meets the rules; ``None`` while it is open."""
    about = links(con, evidence=evidence)
    return current_decision(about, rules, starters(con, evidence))


def in_force(con: Connection, workload: str, rules: ApprovalRules, *, now: datetime) -> Link:
    """Return the link of the current rules, appended if they have changed.

    Call it within a transaction.
    """
    text = approvers.write_rules(rules)
    known = [link for link in links(con, workload_id=workload) if link.kind == "rules"]
    if known and known[-1].document == text:
        return known[-1]
    return append_event(con, LogEvent("rules", workload, "", "", now, attempt=0, document=text))


def record_starter(con: Connection, evidence: str, run_id: str, name: str, now: datetime) -> None:
    """Record who started an evidence's turn by hand; idempotent."""
    con.execute(
        "insert or ignore into raw.starters values ($evidence, $run_id, $name, $now)",
        {"evidence": evidence, "run_id": run_id, "name": name, "now": now},
    )


def starters(con: Connection, evidence: str) -> list[str]:
    """List the people who started an evidence's turns by hand."""
    rows = con.execute(
        "select started_by from raw.starters where evidence_digest = $evidence order by started_at",
        {"evidence": evidence},
    ).fetchall()
    return [str(name) for (name,) in rows]


UNEXPLAINED = "no reason given"

DECISIONS = ("approve", "reject", "rollback", "canary")  # kinds of links that need a proof


def link_body(proof: str, rules_digest: str, **more: str) -> str:
    """Return the body that a decision's link commits to: its proof and its rules."""
    body = {"proof": proof, "rules": rules_digest, **more}
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def body_value(link: Link, name: str) -> str:
    """Return a field of a decision's body; empty in links without it."""
    return str(json.loads(link.body).get(name, "")) if link.body else ""


POLICY = "policy"
"""The proof of what the workload's file itself orders: a rollback (`on_regression`, or a canary's
evidence), and the steps of a canary."""


def proof_of(link: Link) -> Proof:
    """Return the proof of the name; ``name`` if none is recorded."""
    recorded = body_value(link, "proof")
    return next((proof for proof in STRENGTH if proof == recorded), "name")  # pyright: ignore[reportReturnType] - its keys are the proofs


def is_counted(link: Link, rules: ApprovalRules, starters: Iterable[str] = ()) -> bool:
    """Return whether a decision meets the current rules, whatever the rules were at its time.

    ``starters`` are the people who started the evidence's turns by hand.
    """
    if STRENGTH[proof_of(link)] < STRENGTH[rules.proof]:
        return False
    if link.approver is None:  # erased; the chain still says what proved it
        return rules.proof != "signature"
    if rules.people and rules.find(link.approver) is None:
        return False
    if link.kind == "approve" and rules.refuse_starter and is_starter(link.approver, starters):
        return False
    signers = signers_of(rules, link.approver)
    return rules.proof != "signature" or signature_objection(link, signers) is None


def is_starter(name: str, starters: Iterable[str]) -> bool:
    """Return whether a person started a turn, in whatever case the name was typed there."""
    return name.strip().casefold() in {starter.strip().casefold() for starter in starters}


def signers_of(rules: ApprovalRules, name: str) -> tuple[Signer, ...]:
    """Return a person's keys."""
    person = rules.find(name)
    return person.signers if person else ()


def signature_objection(link: Link, signers: Sequence[Signer]) -> str | None:
    """Return why a decision's signature does not prove it; ``None`` if it does."""
    if link.document is None:
        return "has no signature any more: it was erased"
    signed = statement.split(link.document)
    if signed is None:
        return "has a document that is not a signed statement"
    try:
        signed_statement = statement.read(signed.line)
        signature = ssh_signatures.read_signature(signed.armored)
        ssh_signatures.verify_signature(signed.line.encode(), signature)
    except ValueError as error:
        return f"has a signature that does not hold: {error}"
    at = (signed_statement.signed_at, link.decided_at)
    if not is_key_valid(signature.key, signers, at):
        return f"is signed with a key that is not {link.approver}'s, or was not at the time"
    expected = {
        "workload": link.workload_id,
        "rules": body_value(link, "rules"),
        "decision": link.kind,
        "approver": link.approver,
        "reason": link.reason,
        "comment": None if link.comment is None else _comment_digest(link, signed_statement),
        "blame": None if link.blame is None else statement.digest(link.blame),
        "question": body_value(link, "question") or link.flow_run_id,
    }
    differing = [
        name
        for name, value in expected.items()
        if value is not None and getattr(signed_statement, name) != value
    ]
    evidence = body_value(link, "evidence") or link.evidence_digest
    if not signed_statement.evidence.startswith(evidence):
        differing.append("evidence")
    return f"says another {', '.join(differing)} than was signed" if differing else None


def typed_comment(link: Link) -> str:
    """Return the person's text, without the prefix with the target in a rollback's link."""
    words = _words(link)
    return "" if words == UNEXPLAINED else words


def _words(link: Link) -> str:
    return (link.comment or "").removeprefix(body_value(link, "prefix"))


def _comment_digest(link: Link, signed: Statement) -> str:
    """Return the digest that a signed comment must have; who types ``UNEXPLAINED`` signs that."""
    typed, literal = statement.digest(typed_comment(link)), statement.digest(UNEXPLAINED)
    return literal if signed.comment == literal and _words(link) == UNEXPLAINED else typed


def is_key_valid(key: str, signers: Iterable[Signer], times: Iterable[datetime]) -> bool:
    """Return whether a key is one of a person's, and was valid at all of these times."""
    checked = list(times)
    return any(signer.key == key and all(map(signer.is_valid, checked)) for signer in signers)


def first_unproved(links: Iterable[Link]) -> Broken | None:
    """Return the first decision that does not meet its own rules, if any.

    Every decision after a workload's first rules must name the rules before it, meet them, and be
    signed where they require that. Decisions before any rules are skipped.
    """
    in_force: dict[str, Link] = {}
    for link in links:
        if link.kind == "rules":
            in_force[link.workload_id] = link
        under = in_force.get(link.workload_id) if link.kind in DECISIONS else None
        if under is not None and (why := _unproved(link, under)) is not None:
            return Broken(link.sequence, why)
    return None


def _unproved(link: Link, under: Link) -> str | None:
    if body_value(link, "rules") != under.digest:
        return f"was not made under the rules that were in force, decision {under.sequence}"
    if under.document is None or link.approver is None:
        return None  # erased, and counted
    if link.kind in ("rollback", "canary") and body_value(link, "proof") == POLICY:
        return None  # where it leads was approved, and the record says that nobody ordered it
    rules = approvers.read_rules(under.document)
    if STRENGTH[proof_of(link)] < STRENGTH[rules.proof]:
        return f"is proved by {proof_of(link)} only, and the rules required {rules.proof}"
    if rules.people and rules.find(link.approver) is None:
        return f"is by {link.approver}, whom the rules in force did not list"
    if rules.proof == "signature" and (link.document is not None or not link.document_digest):
        return signature_objection(link, signers_of(rules, link.approver))
    return None


def valid_links(links: Sequence[Link]) -> list[Link]:
    """Return the links of promotions that did not expire.

    Another promotion may ask about the same evidence; then everybody must answer again.
    """
    lapsed = lapsed_runs(links)
    return [link for link in links if link.flow_run_id not in lapsed]


def lapsed_runs(links: Iterable[Link]) -> set[str]:
    """Return the flow runs whose questions expired."""
    return {link.flow_run_id for link in links if link.kind == "lapsed"}


def counted_approvals(
    links: Sequence[Link], rules: ApprovalRules, starters: Iterable[str] = ()
) -> list[Link]:
    """Return the valid approvals, one per person; each erased name counts as another person."""
    by_person: dict[str, Link] = {}
    for link in valid_links(links):
        if link.kind == "approve" and is_counted(link, rules, starters):
            who = f"erased {link.sequence}" if link.approver is None else f"name {link.approver}"
            by_person.setdefault(who, link)
    return list(by_person.values())


def current_decision(
    links: Sequence[Link], rules: ApprovalRules, starters: Iterable[str] = ()
) -> Decision | None:
    """Return the decision on an evidence; ``None`` while it is open. One rejection is final."""
    rejections = [
        link for link in valid_links(links) if link.kind == "reject" and is_counted(link, rules)
    ]
    if rejections:
        return _decision_of(rejections[:1])
    approved = counted_approvals(links, rules, starters)
    return _decision_of(approved[: rules.required]) if len(approved) >= rules.required else None


def _decision_of(links: Sequence[Link]) -> Decision:
    last = links[-1]
    return Decision(
        workload=last.workload_id,
        evidence=last.evidence_digest,
        decision="reject" if last.kind == "reject" else "approve",
        approver=", ".join(link.approver or "(erased)" for link in links),
        comment="; ".join(link.comment for link in links if link.comment),
        flow_run_id=last.flow_run_id,
        decided_at=last.decided_at,
        link=Head(last.sequence, last.digest).anchor,
    )


ROUNDING = 1e-9


def first_uncommitted(links: Iterable[Link], log: HoldoutLog) -> Broken | None:
    """Return the first seal or look that differs from its link, if any."""
    by_place = {link.sequence: link for link in links}
    seals = {seal.decision: seal for seal in log.seals}
    looks = {look.decision: look for look in log.looks}
    committing = {at for at, link in by_place.items() if link.kind in ("sealed", "looked")}
    for place in sorted({*seals, *looks, *committing}):
        if place in seals:
            problem = _differing(by_place.get(place), "sealed", seals[place])
        elif place in looks:
            problem = _differing(by_place.get(place), "looked", looks[place])
            problem = problem or _unsealed(looks[place], seals)
        else:
            problem = "is missing: the chain has it, but it is kept with no seal or look any more"
        if problem is not None:
            return Broken(place, problem)
    return _overspent(looks.values(), seals)


def _differing(link: Link | None, kind: str, row: SealedPolicy | HoldoutUse) -> str | None:
    name = "sealed policy" if kind == "sealed" else "look"
    at = row.sealed_at if isinstance(row, SealedPolicy) else row.looked_at
    if link is None or link.kind != kind:
        return f"is no {name}: one is kept that the chain does not have"
    kept = (row.body, row.workload_id, row.policy_digest, at)
    if kept != (link.body, link.workload_id, link.evidence_digest, link.decided_at):
        return f"was changed: the {name} that is kept is not the one that was recorded"
    return None


def _unsealed(look: HoldoutUse, seals: Mapping[int, SealedPolicy]) -> str | None:
    seal = seals.get(look.seal)
    if seal is None or seal.decision > look.decision:
        return "is a look under no policy that was sealed before it"
    return None


def _overspent(looks: Iterable[HoldoutUse], seals: Mapping[int, SealedPolicy]) -> Broken | None:
    ordered = sorted(looks, key=lambda look: (look.seal, look.decision))
    for seal, group in groupby(ordered, key=lambda look: look.seal):
        spent = 0.0
        for look in group:
            spent += look.alpha
            if spent > seals[seal].alpha + ROUNDING:
                return Broken(look.decision, "was given more than the sealed alpha has left")
    return None
