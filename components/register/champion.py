"""Change a workload's champion: a row that says so, one alias of MLflow, a row that it is done.

The recovery rule: a change that was interrupted is carried out again, unless its version may not
become champion any more; then it is undone. Every step may be repeated.

The challenger is the version that a person is asked about, until it is decided on.
"""

from collections.abc import Callable
from dataclasses import replace

from components.register import aliases, registry
from components.register.aliases import CHALLENGER, CHAMPION
from components.register.journal import Change, Entry, Journal, unfinished
from components.register.registry import (
    APPROVER_TAG,
    COMMENT_TAG,
    DECISION_TAG,
    ROLLED_BACK_TAG,
    Version,
)


def promotion(
    name: str, number: str, evidence: str, adapter: str, *, by: str, reason: str
) -> Change:
    """Plan to make a registered version the champion, by the evidence that was approved on it."""
    before = registry.champion(name)
    return Change(
        workload_id=name,
        kind="promotion",
        evidence_digest=evidence,
        adapter_key=adapter,
        version=number,
        champion_before=before.number if before else None,
        adapter_before=before.adapter if before else None,
        asked_by=by,
        reason=reason,
    )


def carry_out(journal: Journal, entry: Entry, why: str = "") -> Entry:
    """Move the alias to an intended change's version, tag the versions, and write that it is done.

    Args:
        journal: Has the intention.
        entry: The intention; its version is registered.
        why: Why it is carried out now, where it was interrupted.

    Raises:
        SettledError: Another process wrote its end.
    """
    change = entry.change
    name, version = change.workload_id, change.version
    assert version is not None  # it is registered
    if change.kind == "promotion":
        _tag_decision(name, version, "approve", change.asked_by, change.reason)
    aliases.put(name, CHAMPION, version)
    aliases.take_off(name, CHALLENGER, version)
    registry.tag(name, version, {ROLLED_BACK_TAG: None})
    if change.kind == "rollback" and change.champion_before is not None:
        left = f"to version {version} by {change.asked_by}: {change.reason}"
        registry.tag(name, change.champion_before, {ROLLED_BACK_TAG: left})
    return journal.end(entry, change, "done", why)


def recover(
    journal: Journal,
    workload: str | None = None,
    is_approved: Callable[[Entry], bool] = lambda _: True,
) -> list[Entry]:
    """Carry out again, or undo, what was interrupted; the caller holds the workload's lock.

    Args:
        journal: Of all workloads.
        workload: Only this workload's changes.
        is_approved: Whether people have approved the version of a change.
    """
    with journal.open() as con:
        interrupted = unfinished(con, workload)
    return [_recovered(journal, entry, is_approved) for entry in interrupted]


def objection(
    change: Change, champion: str | None, version: Version | None, *, is_approved: bool
) -> str | None:
    """Return why an interrupted change is undone; ``None`` if it is carried out again.

    Args:
        change: What was interrupted.
        champion: The number of the champion now.
        version: The version that the change is about; ``None`` if it is not registered.
        is_approved: Whether people have approved it.
    """
    if version is None:
        return "the version was never registered; nothing had moved"
    if champion not in (change.champion_before, version.number):
        now = f"version {champion}" if champion else "nobody"
        return f"{now} has become champion meanwhile"
    if version.tainted:
        return f"version {version.number} has learned from rows that were erased meanwhile"
    if not is_approved:
        return f"nobody has approved version {version.number}, says the chain"
    return None


def _recovered(journal: Journal, entry: Entry, is_approved: Callable[[Entry], bool]) -> Entry:
    version = _version(entry.change)
    change = replace(entry.change, version=version.number) if version else entry.change
    champion = aliases.read(change.workload_id).champion
    why = objection(change, champion, version, is_approved=is_approved(entry))
    if why is None:
        again = "it was interrupted, and is finished"
        return carry_out(journal, replace(entry, change=change), again)
    if version is not None and champion == version.number:
        aliases.put(change.workload_id, CHAMPION, change.champion_before)
    return journal.end(entry, change, "undone", why)


def _version(change: Change) -> Version | None:
    """Find a change's version; an older home began promotions before they had a number."""
    if change.version is None:
        return registry.of_evidence(change.workload_id, change.evidence_digest)
    versions = registry.versions(change.workload_id)
    return next((each for each in versions if each.number == change.version), None)


def set_challenger(version: Version) -> None:
    """Make a version the challenger, unless it was decided on already."""
    if not registry.numbered(version.name, version.number).decision:
        aliases.put(version.name, CHALLENGER, version.number)


def reject(name: str, evidence: str, *, by: str, comment: str) -> None:
    """Tag the version that was rejected, and clear the challenger."""
    if version := registry.of_evidence(name, evidence):
        _tag_decision(name, version.number, "reject", by, comment)
        clear_challenger(name, evidence)


def clear_challenger(name: str, evidence: str) -> None:
    """Take the alias from a version that nobody is asked about any more; safe to repeat."""
    if version := registry.of_evidence(name, evidence):
        aliases.take_off(name, CHALLENGER, version.number)


def _tag_decision(name: str, number: str, decision: str, by: str, comment: str) -> None:
    tags = {DECISION_TAG: decision, APPROVER_TAG: by, COMMENT_TAG: comment}
    registry.tag(name, number, tags)
