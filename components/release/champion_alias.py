"""MLflow's aliases and tags, which follow the chain of decisions and can be set again."""

from collections.abc import Callable

from components.register import registry
from components.register.registry import Version
from components.register.taint import DEMOTED_TAG
from components.register.version_tags import (
    APPROVER_TAG,
    CHALLENGER,
    CHAMPION,
    COMMENT_TAG,
    DECISION_TAG,
    LINK_TAG,
    PREVIOUS,
    ROLLED_BACK_TAG,
)
from components.release import release_state
from components.release.release_state import RecordedChange, ReleaseState


def project(name: str, read: Callable[[], ReleaseState]) -> tuple[ReleaseState, bool]:
    """Let a workload's aliases and tags follow; return the state, and whether they lagged behind.

    ``read`` reads the state, also after the alias moved: a change that others made meanwhile must
    not be taken back.
    """
    state, lagged = read(), False
    while True:
        versions = registry.list_versions(name)
        there = {each.number for each in versions}  # somebody may have deleted one
        champion = state.champion if state.champion in there else None
        if state.last is not None and not _follows(name, champion, state.last):
            lagged = True
            registry.put_alias(name, CHAMPION, champion)
            for number, tags in _tags(state.last).items():
                if number in there:
                    registry.tag_version(name, number, tags)
            registry.remove_alias(name, CHALLENGER, state.last.change.version)
        previous = release_state.previous(champion, state, versions)
        registry.put_alias(name, PREVIOUS, previous)  # only people read this alias
        written, state = state, read()
        if state.last == written.last:
            return state, lagged


def _follows(name: str, champion: str | None, last: RecordedChange) -> bool:
    if registry.read_aliases(name).champion != champion:
        return False
    tags = registry.version_tags(name).get(_tagged_version(last))
    return tags is None or tags.get(LINK_TAG) == last.head.anchor


def _tagged_version(last: RecordedChange) -> str:
    """Return the version that names the change, so that cutting it off the chain is detected."""
    change = last.change
    return change.version if change.kind == "promoted" else change.champion_before or change.version


def _tags(last: RecordedChange) -> dict[str, dict[str, str | None]]:
    """Return the tags of the versions that a change is about; the anchor comes last of all."""
    change = last.change
    tags = dict[str, dict[str, str | None]]()
    if change.kind != "erased":
        tags[change.version] = {ROLLED_BACK_TAG: None}
    if change.kind == "promoted" and change.rollout_id is None:  # a canary's has its tags
        tags[change.version] |= _decision_tags("approve", change.asked_by, change.reason)
    if change.champion_before is not None and change.kind == "rollback":
        text = f"to version {change.version} by {change.asked_by}: {change.reason}"
        tags[change.champion_before] = {ROLLED_BACK_TAG: registry.fit_tag(text)}
    elif change.champion_before is not None and change.kind == "erased":
        tags[change.champion_before] = {DEMOTED_TAG: change.reason}
    tags[_tagged_version(last)][LINK_TAG] = last.head.anchor
    return tags


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
    registry.tag_version(name, number, _decision_tags(decision, by, comment))


def _decision_tags(decision: str, by: str, comment: str) -> dict[str, str | None]:
    words = {APPROVER_TAG: registry.fit_tag(by), COMMENT_TAG: registry.fit_tag(comment)}
    return {DECISION_TAG: decision, **words}
