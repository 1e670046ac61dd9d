"""Check decisions: their proofs, their outcome, and their commitments; pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from components.decide import approvers, ssh_signatures, statement
from components.decide.approvers import STRENGTH, ApprovalRules, Proof
from components.decide.chain import Broken, Head, Link
from components.decide.ssh_signatures import Signer
from components.decide.statement import Statement
from components.store.ledger import Decision, HoldoutLog, HoldoutUse, SealedPolicy

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
