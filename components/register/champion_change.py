"""Changes of champion: plan a rollback or a promotion, carry it out, recover interrupted ones.

Nothing is decided by aliases or tags, which anybody with access to MLflow can write. The order of
champions comes from the journal, approvals from the chain of decisions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

from components.register import registry
from components.register.journal import (
    ChampionChange,
    ChampionJournal,
    JournalEntry,
    SettledError,
    list_changes,
    unfinished_changes,
)
from components.register.registry import Version
from components.register.version_tags import (
    APPROVER_TAG,
    CHALLENGER,
    CHAMPION,
    COMMENT_TAG,
    DECISION_TAG,
    ROLLED_BACK_TAG,
)

ApprovedPairs: TypeAlias = frozenset[tuple[str, str]]
"""Version numbers with the approved evidence on which each became champion."""


class RollbackError(ValueError):
    """The rollback has no valid target."""


@dataclass(frozen=True, slots=True)
class Succession:
    """The champions of a workload.

    ``before`` maps each promoted version to the champion before it; ``left`` are the versions that
    a rollback demoted and no later change made champion again.
    """

    approved: ApprovedPairs
    before: Mapping[str, str | None]
    left: frozenset[str]


def succession(history: Iterable[JournalEntry], evidence: AbstractSet[str]) -> Succession:
    """Derive a workload's champions from its changes, the oldest first.

    ``evidence`` are the digests of approved evidence.
    """
    approved: set[tuple[str, str]] = set()
    before: dict[str, str | None] = {}
    left: set[str] = set()
    for change in (entry.change for entry in history if entry.step == "done"):
        left.discard(change.version)
        if change.kind == "promotion":
            before[change.version] = change.champion_before
            if change.evidence_digest in evidence:
                approved.add((change.version, change.evidence_digest))
        elif change.champion_before is not None:
            left.add(change.champion_before)
    return Succession(frozenset(approved), before, frozenset(left))


def previous(champion: str | None, known: Succession, versions: Sequence[Version]) -> str | None:
    """Return the default target of a rollback; ``None`` without one.

    It is the nearest earlier champion that may serve and was not rolled back itself.
    """
    fit = {each.number for each in versions if _may_serve(each, known.approved)} - known.left
    passed = set[str]()
    while champion is not None and champion not in passed:
        passed.add(champion)
        champion = known.before.get(champion)
        if champion in fit - passed:
            return champion
    return None


def plan_rollback(
    name: str,
    versions: Sequence[Version],
    champion: str | None,
    known: Succession,
    to: str | None,
    *,
    by: str,
    reason: str,
) -> ChampionChange:
    """Plan a rollback of the workload ``name``, ordered ``by`` a person.

    ``versions`` are all of its versions, ``known`` its champions so far. ``to`` is the target's
    number; ``None`` for the default target.

    Raises:
        RollbackError: The target is missing, is champion already, was never approved, or was
            trained on rows that were erased since.
    """
    if not versions:
        raise RollbackError(f"rolling back {name}: it has no registered version")
    numbered = {each.number: each for each in versions}
    fit = [
        each for each in versions if _may_serve(each, known.approved) and each.number != champion
    ]
    others = ", ".join(each.number for each in fit)
    hint = f"; --to goes back to any of {others}" if fit else "; there is no other to go to"
    if to is not None and to not in numbered:
        existing = ", ".join(numbered) or "none"
        raise RollbackError(f"rolling back {name} to version {to}: there are {existing}")
    target = numbered.get(to or previous(champion, known, versions) or "")
    if target is None:
        last = numbered.get(known.before.get(champion or "") or "")
        why = _rollback_objection(last, champion, known.approved) if last else None
        detail = f" (version {last.number}: {why})" if last and why else ""
        raise RollbackError(f"rolling back {name}: no version is `previous`{detail}{hint}")
    if why := _rollback_objection(target, champion, known.approved):
        raise RollbackError(f"rolling back {name} to version {target.number}: {why}{hint}")
    left = numbered.get(champion or "")
    return ChampionChange(
        workload_id=name,
        kind="rollback",
        evidence_digest=target.evidence,
        adapter_key=target.adapter,
        version=target.number,
        champion_before=champion,
        adapter_before=left.adapter if left else None,
        asked_by=by,
        reason=reason,
    )


def _may_serve(version: Version, approved: ApprovedPairs) -> bool:
    return (version.number, version.evidence) in approved and not version.tainted


def _rollback_objection(
    version: Version, champion: str | None, approved: ApprovedPairs
) -> str | None:
    if version.number == champion:
        return "it is the champion already"
    if version.tainted:
        return f"it has learned from rows that were erased (certificate {version.tainted})"
    if (version.number, version.evidence) not in approved:
        return (
            "nobody has approved it according to the chain of decisions; a turn asks for approval"
        )
    return None


def promotion(
    name: str,
    number: str,
    evidence: str,
    adapter: str,
    *,
    by: str,
    reason: str,
    rollout_id: str | None = None,
) -> ChampionChange:
    """Plan the promotion of a registered version on its approved evidence."""
    before = registry.champion_version(name)
    return ChampionChange(
        workload_id=name,
        kind="promotion",
        evidence_digest=evidence,
        adapter_key=adapter,
        version=number,
        champion_before=before.number if before else None,
        adapter_before=before.adapter if before else None,
        asked_by=by,
        reason=reason,
        rollout_id=rollout_id,
    )


def carry_out(journal: ChampionJournal, entry: JournalEntry, why: str = "") -> JournalEntry:
    """Move the alias to an intended change's version, tag the versions, and record its end.

    The version is registered; ``why`` is a note, if the change was interrupted.

    Raises:
        SettledError: Another process recorded its end.
    """
    change = entry.change
    if change.kind == "promotion" and change.rollout_id is None:  # a canary's has its tags
        tag_decision(change.workload_id, change.version, "approve", change.asked_by, change.reason)
    _move(change)
    try:
        return journal.end(entry, "done", why)
    except SettledError:  # a rollback that others made since must not be taken back
        _restore(journal, change)
        raise


def _move(change: ChampionChange) -> None:
    name, version = change.workload_id, change.version
    registry.put_alias(name, CHAMPION, version)
    registry.remove_alias(name, CHALLENGER, version)
    registry.tag_version(name, version, {ROLLED_BACK_TAG: None})
    if change.kind == "rollback" and change.champion_before is not None:
        left = f"to version {version} by {change.asked_by}: {change.reason}"
        registry.tag_version(
            name, change.champion_before, {ROLLED_BACK_TAG: registry.fit_tag(left)}
        )


def _restore(journal: ChampionJournal, change: ChampionChange) -> None:
    """Move the alias back to where the journal has it."""
    with journal.open() as con:
        counting = [
            entry for entry in list_changes(con, change.workload_id) if entry.step != "undone"
        ]
    if counting:
        _move(counting[-1].change)
    else:
        registry.put_alias(change.workload_id, CHAMPION, change.champion_before)


def recover(
    journal: ChampionJournal,
    workload: str | None = None,
    is_approved: Callable[[JournalEntry], bool] = lambda _: True,
) -> list[JournalEntry]:
    """Finish or undo interrupted changes; the caller holds the workload's lock.

    ``workload`` is ``None`` for all; ``is_approved`` returns whether a change's version was
    approved.
    """
    with journal.open() as con:
        interrupted = unfinished_changes(con, workload)
    return [_recovered(journal, entry, is_approved) for entry in interrupted]


def _objection(
    change: ChampionChange, champion: str | None, version: Version | None, *, is_approved: bool
) -> str | None:
    if version is None:
        return "the version was never registered; nothing had moved"
    if champion not in (change.champion_before, version.number):
        now = f"version {champion}" if champion else "nobody"
        return f"{now} has become champion meanwhile"
    if version.tainted:
        return f"version {version.number} has learned from rows that were erased meanwhile"
    if not is_approved:
        return f"nobody has approved version {version.number} according to the chain"
    return None


def _recovered(
    journal: ChampionJournal, entry: JournalEntry, is_approved: Callable[[JournalEntry], bool]
) -> JournalEntry:
    change = entry.change
    versions = registry.list_versions(change.workload_id)
    version = next((each for each in versions if each.number == change.version), None)
    champion = registry.read_aliases(change.workload_id).champion
    why = _objection(change, champion, version, is_approved=is_approved(entry))
    if why is None:
        return carry_out(journal, entry, "it was interrupted, and is finished")
    if version is not None and champion == version.number:
        registry.put_alias(change.workload_id, CHAMPION, change.champion_before)
    return journal.end(entry, "undone", why)


def set_challenger(version: Version) -> None:
    """Make a version the challenger, unless it was decided already."""
    if not registry.version_numbered(version.name, version.number).decision:
        registry.put_alias(version.name, CHALLENGER, version.number)


def reject(name: str, evidence: str, *, by: str, comment: str) -> None:
    """Tag the rejected version, and clear the challenger."""
    if version := registry.version_of_evidence(name, evidence):
        tag_decision(name, version.number, "reject", by, comment)
        clear_challenger(name, evidence)


def clear_challenger(name: str, evidence: str) -> None:
    """Remove the alias from a version that no longer waits for a decision; idempotent."""
    if version := registry.version_of_evidence(name, evidence):
        registry.remove_alias(name, CHALLENGER, version.number)


def tag_decision(name: str, number: str, decision: str, by: str, comment: str) -> None:
    """Tag a version with what people decided about it; idempotent."""
    words = {APPROVER_TAG: registry.fit_tag(by), COMMENT_TAG: registry.fit_tag(comment)}
    registry.tag_version(name, number, {DECISION_TAG: decision, **words})
