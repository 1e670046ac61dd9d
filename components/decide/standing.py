"""What the words on one evidence come to, under two eyes or four; pure."""

from collections.abc import Iterable, Sequence

from components.decide import proofs
from components.decide.chain import Head, Link
from components.decide.rules import Rules
from components.ledger import Decision


def valid(links: Sequence[Link]) -> list[Link]:
    """Give the words that count: those to a promotion that did not lapse.

    The evidence may be asked about again by another; then everybody is asked anew.
    """
    lapsed = {link.flow_run_id for link in links if link.kind == "lapsed"}
    return [link for link in links if link.flow_run_id not in lapsed]


def approvals(links: Sequence[Link], rules: Rules, starters: Iterable[str] = ()) -> list[Link]:
    """Give the approvals that count, one of each person; whose name was erased is nobody else."""
    found: dict[str, Link] = {}
    for link in valid(links):
        if link.kind == "approve" and proofs.counts(link, rules, starters):
            who = f"erased {link.sequence}" if link.approver is None else f"name {link.approver}"
            found.setdefault(who, link)
    return list(found.values())


def decision(links: Sequence[Link], rules: Rules, starters: Iterable[str] = ()) -> Decision | None:
    """Say what was decided on an evidence: one rejection ends it; ``None`` while it is open.

    Args:
        links: Those of the evidence, in their order.
        rules: Those of now; what was decided under laxer ones does not count.
        starters: Who started by hand a turn that the evidence came from.
    """
    rejections = [
        link for link in valid(links) if link.kind == "reject" and proofs.counts(link, rules)
    ]
    if rejections:
        return _decision(rejections[:1])
    approved = approvals(links, rules, starters)
    return _decision(approved[: rules.wanted]) if len(approved) >= rules.wanted else None


def _decision(links: Sequence[Link]) -> Decision:
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
