"""Whether decisions are still valid: their proofs, their outcome, and their commitments; pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from components.decide import approvers as all_rules
from components.decide import ssh_signatures, statement
from components.decide.approvers import STRENGTH, ApprovalRules, Proof
from components.decide.chain import Broken, Head, Link
from components.decide.ssh_signatures import Signer
from components.store.ledger import Decision, HoldoutLog, HoldoutUse, SealedPolicy

UNEXPLAINED = "no reason given"

DECISIONS = ("approve", "reject", "rollback")
"""Kinds of links that somebody has to prove."""


def link_body(proof: str, rules_digest: str, **more: str) -> str:
    """Write what a decision's link commits to: what proved the name, and under which rules."""
    told = {"proof": proof, "rules": rules_digest, **more}
    return json.dumps(told, sort_keys=True, separators=(",", ":"))


def body_value(link: Link, name: str) -> str:
    """Read a field of a decision's body; empty in links of older versions."""
    return str(json.loads(link.body).get(name, "")) if link.body else ""


POLICY = "policy"
"""What stands for a proof where the workload's file itself orders a rollback (`on_regression`)."""


def proof_of(link: Link) -> Proof:
    """Tell what proved the name; older versions did not record it, so that it counts as said."""
    found = body_value(link, "proof")
    return next((one for one in STRENGTH if one == found), "name")  # pyright: ignore[reportReturnType] - its keys are the proofs


def is_counted(link: Link, rules: ApprovalRules, starters: Iterable[str] = ()) -> bool:
    """Tell whether a decision meets the rules of now, whatever it was heard under.

    Args:
        link: An approval or a rejection.
        rules: Those of now.
        starters: Who started by hand a turn that the evidence came from.
    """
    if STRENGTH[proof_of(link)] < STRENGTH[rules.proof]:
        return False
    if link.approver is None:  # erased; the chain still says what proved it
        return rules.proof != "signature"
    if rules.people and rules.find(link.approver) is None:
        return False
    if rules.refuse_starter and link.kind == "approve" and link.approver in set(starters):
        return False
    return (
        rules.proof != "signature"
        or signature_objection(link, signers_of(rules, link.approver)) is None
    )


def signers_of(rules: ApprovalRules, name: str) -> tuple[Signer, ...]:
    """List a person's keys."""
    found = rules.find(name)
    return found.signers if found else ()


def signature_objection(link: Link, signers: Sequence[Signer]) -> str | None:
    """Say why a decision's signature does not prove it; ``None`` if it does.

    Args:
        link: The decision.
        signers: The keys that are the approver's.
    """
    if link.document is None:
        return "has no signature any more: it was erased"
    signed = statement.split(link.document)
    if signed is None:
        return "has a document that is no signed statement"
    try:
        found = statement.read(signed.line)
        signature = ssh_signatures.read_signature(signed.armored)
        ssh_signatures.verify_signature(signed.line.encode(), signature)
    except ValueError as error:
        return f"has a signature that does not hold: {error}"
    at = (found.signed_at, link.decided_at)
    if not is_key_valid(signature.key, signers, at):
        return f"is signed with a key that is not {link.approver}'s, or was not at the time"
    expected = {
        "workload": link.workload_id,
        "rules": body_value(link, "rules"),
        "decision": link.kind,
        "approver": link.approver,
        "reason": link.reason,
        "comment": None if link.comment is None else statement.digest(typed_comment(link)),
        "blame": None if link.blame is None else statement.digest(link.blame),
        "question": body_value(link, "question") or link.flow_run_id,
    }
    differing = [
        name
        for name, value in expected.items()
        if value is not None and getattr(found, name) != value
    ]
    if not found.evidence.startswith(body_value(link, "evidence") or link.evidence_digest):
        differing.append("evidence")
    return f"says another {', '.join(differing)} than was signed" if differing else None


def typed_comment(link: Link) -> str:
    """Return what the person wrote; a rollback's link says before it where it went."""
    words = (link.comment or "").removeprefix(body_value(link, "prefix"))
    return "" if words == UNEXPLAINED else words


def is_key_valid(key: str, signers: Iterable[Signer], times: Iterable[datetime]) -> bool:
    """Tell whether a key is one of a person's, and was at all times that matter."""
    whole = list(times)
    return any(one.key == key and all(map(one.is_valid, whole)) for one in signers)


def first_unproved(links: Iterable[Link]) -> Broken | None:
    """Find the first decision that its own rules do not bear out; ``None`` if all are.

    Every decision after a workload's first rules names the rules before it, meets them, and is
    signed where they want that. What older versions recorded has no rules, and is not asked.
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
    if link.kind == "rollback" and body_value(link, "proof") == POLICY:
        return None  # it leads to what was approved, and the record says who did not
    rules = all_rules.read_rules(under.document)
    if STRENGTH[proof_of(link)] < STRENGTH[rules.proof]:
        return f"is proved by {proof_of(link)} only, and the rules wanted {rules.proof}"
    if rules.people and rules.find(link.approver) is None:
        return f"is by {link.approver}, whom the rules in force did not list"
    if rules.proof == "signature" and (link.document is not None or not link.document_digest):
        return signature_objection(link, signers_of(rules, link.approver))
    return None


def valid_links(links: Sequence[Link]) -> list[Link]:
    """Give the words that count: those to a promotion that did not lapse.

    The evidence may be asked about again by another; then everybody is asked anew.
    """
    lapsed = {link.flow_run_id for link in links if link.kind == "lapsed"}
    return [link for link in links if link.flow_run_id not in lapsed]


def counted_approvals(
    links: Sequence[Link], rules: ApprovalRules, starters: Iterable[str] = ()
) -> list[Link]:
    """Give the approvals that count, one of each person; whose name was erased is nobody else."""
    found: dict[str, Link] = {}
    for link in valid_links(links):
        if link.kind == "approve" and is_counted(link, rules, starters):
            who = f"erased {link.sequence}" if link.approver is None else f"name {link.approver}"
            found.setdefault(who, link)
    return list(found.values())


def current_decision(
    links: Sequence[Link], rules: ApprovalRules, starters: Iterable[str] = ()
) -> Decision | None:
    """Say what was decided on an evidence: one rejection ends it; ``None`` while it is open.

    Args:
        links: Those of the evidence, in their order.
        rules: Those of now; what was decided under laxer ones does not count.
        starters: Who started by hand a turn that the evidence came from.
    """
    rejections = [
        link for link in valid_links(links) if link.kind == "reject" and is_counted(link, rules)
    ]
    if rejections:
        return _decision_of(rejections[:1])
    approved = counted_approvals(links, rules, starters)
    return _decision_of(approved[: rules.wanted]) if len(approved) >= rules.wanted else None


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


def first_uncommitted(links: Iterable[Link], book: HoldoutLog) -> Broken | None:
    """Find the first seal or look that is not what its link says; ``None`` if all are.

    Looks of older versions have no link, and are not held against any.
    """
    by_place = {link.sequence: link for link in links}
    seals = {one.decision: one for one in book.seals}
    looks = {one.decision: one for one in book.looks if one.decision is not None}
    for place in sorted({*seals, *looks, *_committing(by_place)}):
        if place in seals:
            said = _differing(by_place.get(place), "sealed", seals[place])
        elif place in looks:
            said = _differing(by_place.get(place), "looked", looks[place])
            said = said or _unsealed(looks[place], seals)
        else:
            said = "is missing: the chain has it, but it is kept with no seal or look any more"
        if said is not None:
            return Broken(place, said)
    return _overspent(looks.values(), seals)


def _committing(links: Mapping[int, Link]) -> list[int]:
    return [place for place, link in links.items() if link.kind in ("sealed", "looked")]


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
    seal = seals.get(look.seal or 0)
    if seal is None or seal.decision > (look.decision or 0):
        return "is a look under no policy that was sealed before it"
    return None


def _overspent(looks: Iterable[HoldoutUse], seals: Mapping[int, SealedPolicy]) -> Broken | None:
    """Find the look with which a seal's alpha was exceeded."""
    ordered = sorted(looks, key=lambda one: (one.seal or 0, one.decision or 0))
    for seal, group in groupby(ordered, key=lambda one: one.seal or 0):
        spent = 0.0
        for look in group:
            spent += look.alpha or 0.0
            if spent > seals[seal].alpha + ROUNDING:
                return Broken(look.decision or 0, "was given more than the sealed alpha has left")
    return None
