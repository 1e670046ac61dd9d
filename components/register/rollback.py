"""Plan to go back to an older champion: which version, and where the next rollback would lead."""

from collections.abc import Sequence
from typing import TypeAlias

from components.register.aliases import Aliases
from components.register.journal import Change, Entry
from components.register.registry import Version

Approved: TypeAlias = frozenset[tuple[str, str]]
"""Numbers of versions with the evidence that each became champion on, which was approved."""


class RollbackError(ValueError):
    """There is no version to go back to, or not to that one."""


def plan(
    name: str,
    versions: Sequence[Version],
    now: Aliases,
    history: Sequence[Entry],
    to: str | None,
    *,
    approved: Approved,
    by: str,
    reason: str,
) -> Change:
    """Plan a rollback.

    Args:
        name: The workload.
        versions: All of its.
        now: The aliases.
        history: The changes of its champion, the oldest first.
        to: A version's number; ``None`` for the one that is ``previous``.
        approved: What the chain of decisions and the journal know as approved.
        by: Who asks for it.
        reason: Why.

    Raises:
        RollbackError: The version isn't there, is champion already, was never approved, or has
            learned from rows that were erased since.
    """
    numbered = {one.number: one for one in versions}
    champion = numbered.get(now.champion or "")
    fit = [one for one in versions if is_fit(one, approved) and one != champion]
    target = _target(name, numbered, fit, now, to)
    if objection := objection_to(target, champion, approved):
        said = f"rolling back {name} to version {target.number}: {objection}{_or(fit)}"
        raise RollbackError(said)
    return Change(
        workload_id=name,
        kind="rollback",
        evidence_digest=target.evidence,
        adapter_key=target.adapter,
        version=target.number,
        champion_before=now.champion,
        adapter_before=champion.adapter if champion else None,
        previous_before=now.previous,
        previous_after=further(target, versions, history, approved, leaving=now.champion),
        asked_by=by,
        reason=reason,
    )


def is_fit(version: Version, approved: Approved) -> bool:
    """Tell whether a version was champion on evidence that was approved, and nothing taints it.

    Its tags are not asked: whoever reaches MLflow can write them.
    """
    return (version.number, version.evidence) in approved and not version.tainted


def objection_to(version: Version, champion: Version | None, approved: Approved) -> str | None:
    """Say why a version may not become champion by a rollback; ``None`` if it may."""
    if version == champion:
        return "it is the champion already"
    if version.tainted:
        return f"it has learned from rows that were erased (certificate {version.tainted})"
    if (version.number, version.evidence) not in approved:
        return "nobody has approved it, says the chain of decisions; a turn asks for that"
    return None


def further(
    version: Version,
    versions: Sequence[Version],
    history: Sequence[Entry],
    approved: Approved,
    *,
    leaving: str | None,
) -> str | None:
    """Say where the next rollback leads after one to ``version``; ``None`` if nowhere."""
    fit = [one.number for one in versions if is_fit(one, approved) and not one.rolled_back]
    before = before_it(version, history)
    return before if before in fit and before not in (version.number, leaving) else None


def before_it(version: Version, history: Sequence[Entry]) -> str | None:
    """Give the number of the version that was champion before this one was promoted."""
    for entry in reversed(history):
        change = entry.change
        if entry.step == "done" and change.version == version.number:
            return change.champion_before if change.kind == "promotion" else change.previous_after
    return None


def _target(
    name: str,
    numbered: dict[str, Version],
    fit: Sequence[Version],
    now: Aliases,
    to: str | None,
) -> Version:
    if to is not None:
        if to not in numbered:
            known = ", ".join(numbered) or "none"
            raise RollbackError(f"rolling back {name} to version {to}: there are {known}")
        return numbered[to]
    if now.previous is None:
        raise RollbackError(f"rolling back {name}: no version is `previous`{_or(fit)}")
    return numbered[now.previous]


def _or(fit: Sequence[Version]) -> str:
    numbers = ", ".join(one.number for one in fit)
    return f"; --to goes back to any of {numbers}" if numbers else "; there is no other to go to"
