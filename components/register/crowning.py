"""Change a workload's champion, step by step and each written down; settle what was interrupted.

Each step may be done twice, so a change is finished from wherever it was interrupted.
"""

from collections.abc import Callable

from components.register import aliases, registry, settling, taint
from components.register.aliases import CHALLENGER, CHAMPION, PREVIOUS
from components.register.journal import Change, Entry, Journal, unfinished
from components.register.registry import (
    APPROVER_TAG,
    COMMENT_TAG,
    DECISION_TAG,
    ROLLED_BACK_TAG,
    Version,
)
from components.register.settling import Found


def promotion(name: str, evidence: str, adapter: str, *, by: str, reason: str) -> Change:
    """Plan to make what was approved the champion, and the champion of now ``previous``."""
    now, before = aliases.read(name), registry.champion(name)
    return Change(
        workload_id=name,
        kind="promotion",
        evidence_digest=evidence,
        adapter_key=adapter,
        version=None,
        champion_before=now.champion,
        adapter_before=before.adapter if before else None,
        previous_before=now.previous,
        previous_after=now.champion,
        asked_by=by,
        reason=reason,
    )


def promote(journal: Journal, change: Change, register: Callable[[], Version]) -> Entry:
    """Register a version and crown it; whoever finds this interrupted settles it.

    Args:
        journal: Where each step is written down.
        change: The plan.
        register: Makes the version, or finds it.

    Raises:
        UnsettledError: An earlier change was interrupted and is not settled.
    """
    entry = journal.intend(change)
    return finish(journal, _registered(journal, entry, register()))


def finish(journal: Journal, entry: Entry, said: str = "") -> Entry:
    """Move the aliases and write the last lines, from wherever a change was left.

    The champion moves before the warehouse is waited for again: the intention is in it already.
    """
    change = entry.change
    name, version = change.workload_id, change.version
    assert version is not None  # it is registered
    aliases.put(name, PREVIOUS, change.previous_after)
    journal.after("previous_moved", False)
    aliases.put(name, CHAMPION, version)
    journal.after("champion_moved", False)
    aliases.take_off(name, CHALLENGER, version)
    registry.tag(name, version, {ROLLED_BACK_TAG: None})
    if change.kind == "rollback" and change.champion_before is not None:
        why = f"to version {version} by {change.asked_by}: {change.reason}"
        registry.tag(name, change.champion_before, {ROLLED_BACK_TAG: why})
    return journal.note(entry, "previous_moved", "champion_moved", "done", said=said)


def settle(
    journal: Journal,
    workload: str | None = None,
    is_approved: Callable[[Change], bool] = lambda _: True,
) -> list[Entry]:
    """End what was interrupted; give what became of each. The caller holds the workload's lock.

    Args:
        journal: Of all workloads.
        workload: Only this one's.
        is_approved: Whether people have approved what a change is to crown.
    """
    with journal.open() as con:
        interrupted = unfinished(con, workload)
    return [_settled(journal, entry, is_approved(entry.change)) for entry in interrupted]


def _settled(journal: Journal, entry: Entry, is_approved: bool) -> Entry:
    change = entry.change
    version = _version(change)
    found = Found(
        champion=aliases.read(change.workload_id).champion,
        version=version.number if version else None,
        is_tainted=version is not None and taint.is_tainted(version),
        is_approved=is_approved,
    )
    verdict = settling.settle(change, found)
    if verdict.ending == "finish":
        if version is not None and change.version is None:
            entry = _registered(journal, entry, version)
        return finish(journal, entry, said=verdict.why)
    if verdict.ending == "undo":
        aliases.put(change.workload_id, CHAMPION, change.champion_before)
        if not _is_tainted(change.workload_id, change.previous_before):
            aliases.put(change.workload_id, PREVIOUS, change.previous_before)
    return journal.note(entry, "undone", said=verdict.why)


def _registered(journal: Journal, entry: Entry, version: Version) -> Entry:
    """Tag a version with the decision on it, and note that it is there."""
    change = entry.change
    decided = {
        DECISION_TAG: "approve",
        APPROVER_TAG: change.asked_by,
        COMMENT_TAG: change.reason,
    }
    registry.tag(version.name, version.number, decided)
    return journal.note(entry, "registered", version=version.number)


def _version(change: Change) -> Version | None:
    """Find the version that a change is to crown; a promotion's may not be registered yet."""
    if change.version is None:
        return registry.of_evidence(change.workload_id, change.evidence_digest)
    return registry.numbered(change.workload_id, change.version)


def _is_tainted(name: str, number: str | None) -> bool:
    return number is not None and bool(registry.numbered(name, number).tainted)
