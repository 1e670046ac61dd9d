"""Plan a rollback: where it leads, and what forbids it. Pure.

Nothing here is read from aliases or tags that decide: whoever reaches MLflow can write them. Which
versions were champions, and in what order, comes from the journal; what was approved, from the
chain of decisions.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

from components.register.journal import Change, Entry
from components.register.registry import Version

Approved: TypeAlias = frozenset[tuple[str, str]]
"""Numbers of versions with the evidence that each became champion on, which was approved."""


class RollbackError(ValueError):
    """There is no version to go back to, or not to that one."""


@dataclass(frozen=True, slots=True)
class Succession:
    """The champions of a workload.

    ``before`` maps each version that was promoted to the champion before it; ``left`` are the
    versions that a rollback took down and no later change made champion again.
    """

    approved: Approved
    before: Mapping[str, str | None]
    left: frozenset[str]


def succession(history: Iterable[Entry], evidence: AbstractSet[str]) -> Succession:
    """Read a workload's champions from its journal.

    Args:
        history: The changes of its champion, the oldest first.
        evidence: What was approved, by its digests.
    """
    approved: set[tuple[str, str]] = set()
    before: dict[str, str | None] = {}
    left: set[str] = set()
    for change in (entry.change for entry in history if entry.step == "done"):
        version = change.version or ""
        left.discard(version)
        if change.kind == "promotion":
            before[version] = change.champion_before
            if change.evidence_digest in evidence:
                approved.add((version, change.evidence_digest))
        elif change.champion_before is not None:
            left.add(change.champion_before)
    return Succession(frozenset(approved), before, frozenset(left))


def previous(champion: str | None, known: Succession, versions: Sequence[Version]) -> str | None:
    """Return where a rollback from a champion leads; ``None`` if nowhere.

    That is the nearest champion before it which may serve and was not rolled back itself.
    """
    fit = {each.number for each in versions if is_fit(each, known.approved)} - known.left
    passed = set[str]()
    while champion is not None and champion not in passed:
        passed.add(champion)
        champion = known.before.get(champion)
        if champion in fit - passed:
            return champion
    return None


def plan(
    name: str,
    versions: Sequence[Version],
    champion: str | None,
    known: Succession,
    to: str | None,
    *,
    by: str,
    reason: str,
) -> Change:
    """Plan a rollback.

    Args:
        name: The workload.
        versions: All of its versions.
        champion: The champion's number.
        known: Its champions so far.
        to: A version's number; ``None`` for the one that is ``previous``.
        by: Who orders it.
        reason: Why.

    Raises:
        RollbackError: The version isn't there, is champion already, was never approved, or has
            learned from rows that were erased since.
    """
    numbered = {each.number: each for each in versions}
    fit = [each for each in versions if is_fit(each, known.approved) and each.number != champion]
    others = ", ".join(each.number for each in fit)
    hint = f"; --to goes back to any of {others}" if fit else "; there is no other to go to"
    if to is not None and to not in numbered:
        there = ", ".join(numbered) or "none"
        raise RollbackError(f"rolling back {name} to version {to}: there are {there}")
    target = numbered.get(to or previous(champion, known, versions) or "")
    if target is None:
        last = numbered.get(known.before.get(champion or "") or "")
        why = objection_to(last, champion, known.approved) if last else None
        said = f" (version {last.number}: {why})" if last and why else ""
        raise RollbackError(f"rolling back {name}: no version is `previous`{said}{hint}")
    if why := objection_to(target, champion, known.approved):
        raise RollbackError(f"rolling back {name} to version {target.number}: {why}{hint}")
    left = numbered.get(champion or "")
    return Change(
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


def is_fit(version: Version, approved: Approved) -> bool:
    """Return whether a version was champion on approved evidence and nothing taints it."""
    return (version.number, version.evidence) in approved and not version.tainted


def objection_to(version: Version, champion: str | None, approved: Approved) -> str | None:
    """Return why a version may not become champion by a rollback; ``None`` if it may."""
    if version.number == champion:
        return "it is the champion already"
    if version.tainted:
        return f"it has learned from rows that were erased (certificate {version.tainted})"
    if (version.number, version.evidence) not in approved:
        return "nobody has approved it, says the chain of decisions; a turn asks for that"
    return None
