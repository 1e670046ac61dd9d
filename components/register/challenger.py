"""The challenger: the version that a person is asked about, until it is decided on."""

from components.register import aliases, registry
from components.register.aliases import CHALLENGER
from components.register.registry import APPROVER_TAG, COMMENT_TAG, DECISION_TAG, Version


def name_it(version: Version) -> None:
    """Show a version as challenger; one that was decided on already stays what it is."""
    if not registry.numbered(version.name, version.number).decision:
        aliases.put(version.name, CHALLENGER, version.number)


def reject(name: str, evidence: str, *, by: str, comment: str) -> None:
    """Tag the version that was rejected, which is challenger no more."""
    version = registry.of_evidence(name, evidence)
    if version is None:
        return
    said = {DECISION_TAG: "reject", APPROVER_TAG: by, COMMENT_TAG: comment}
    registry.tag(name, version.number, said)
    let_go(name, evidence)


def let_go(name: str, evidence: str) -> None:
    """Take the alias from a version that nobody is asked about any more; safe to repeat."""
    version = registry.of_evidence(name, evidence)
    if version is not None:
        aliases.take_off(name, CHALLENGER, version.number)
