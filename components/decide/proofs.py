"""What proves a decision, and whether it still does: under the rules of now, and in the chain."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from components.decide import rules as all_rules
from components.decide import ssh_signature, statement
from components.decide.allowed_signers import Signer
from components.decide.chain import Broken, Link
from components.decide.rules import STRENGTH, Proof, Rules

UNEXPLAINED = "no reason given"

DECISIONS = ("approve", "reject", "rollback")
"""Kinds of links that somebody has to prove."""


def body(proof: str, rules_digest: str, **more: str) -> str:
    """Write what a decision's link commits to: what proved the name, and under which rules."""
    told = {"proof": proof, "rules": rules_digest, **more}
    return json.dumps(told, sort_keys=True, separators=(",", ":"))


def said(link: Link, name: str) -> str:
    """Read a field of a decision's body; empty in links of older versions."""
    return str(json.loads(link.body).get(name, "")) if link.body else ""


POLICY = "policy"
"""What stands for a proof where the workload's file itself orders a rollback (`on_regression`)."""


def proof_of(link: Link) -> Proof:
    """Tell what proved the name; older versions did not record it, so that it counts as said."""
    found = said(link, "proof")
    return next((one for one in STRENGTH if one == found), "name")  # pyright: ignore[reportReturnType] - its keys are the proofs


def counts(link: Link, rules: Rules, starters: Iterable[str] = ()) -> bool:
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
    return rules.proof != "signature" or objection(link, signers_of(rules, link.approver)) is None


def signers_of(rules: Rules, name: str) -> tuple[Signer, ...]:
    """List a person's keys."""
    found = rules.find(name)
    return found.signers if found else ()


def objection(link: Link, signers: Sequence[Signer]) -> str | None:
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
        signature = ssh_signature.read(signed.armored)
        ssh_signature.verify(signed.line.encode(), signature)
    except ValueError as error:
        return f"has a signature that does not hold: {error}"
    at = (found.signed_at, link.decided_at)
    if not is_valid(signature.key, signers, at):
        return f"is signed with a key that is not {link.approver}'s, or was not at the time"
    expected = {
        "workload": link.workload_id,
        "rules": said(link, "rules"),
        "decision": link.kind,
        "approver": link.approver,
        "reason": link.reason,
        "comment": None if link.comment is None else statement.digest(said_comment(link)),
        "blame": None if link.blame is None else statement.digest(link.blame),
        "question": said(link, "question") or link.flow_run_id,
    }
    differing = [
        name
        for name, value in expected.items()
        if value is not None and getattr(found, name) != value
    ]
    if not found.evidence.startswith(said(link, "evidence") or link.evidence_digest):
        differing.append("evidence")
    return f"says another {', '.join(differing)} than was signed" if differing else None


def said_comment(link: Link) -> str:
    """Return what the person wrote; a rollback's link says before it where it went."""
    words = (link.comment or "").removeprefix(said(link, "prefix"))
    return "" if words == UNEXPLAINED else words


def is_valid(key: str, signers: Iterable[Signer], times: Iterable[datetime]) -> bool:
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
    if said(link, "rules") != under.digest:
        return f"was not made under the rules that were in force, decision {under.sequence}"
    if under.document is None or link.approver is None:
        return None  # erased, and counted
    if link.kind == "rollback" and said(link, "proof") == POLICY:
        return None  # it leads to what was approved, and the record says who did not
    rules = all_rules.read(under.document)
    if STRENGTH[proof_of(link)] < STRENGTH[rules.proof]:
        return f"is proved by {proof_of(link)} only, and the rules wanted {rules.proof}"
    if rules.people and rules.find(link.approver) is None:
        return f"is by {link.approver}, whom the rules in force did not list"
    if rules.proof == "signature" and (link.document is not None or not link.document_digest):
        return objection(link, signers_of(rules, link.approver))
    return None
