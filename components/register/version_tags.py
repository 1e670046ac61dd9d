"""The aliases and tags of a registered version, and what may have one; no MLflow is loaded."""

from collections.abc import Mapping

# `canary` answers a share of the traffic, by the order in its tag.
CHAMPION, CHALLENGER, PREVIOUS, CANARY = ALIASES = ("champion", "challenger", "previous", "canary")

EVIDENCE_TAG = "flywheel.evidence"
ADAPTER_TAG = "flywheel.adapter"
DECISION_TAG = "flywheel.decision"
APPROVER_TAG = "flywheel.approver"
COMMENT_TAG = "flywheel.comment"
TAINTED_TAG = "flywheel.tainted"  # the ids of erasure certificates, separated by blanks
ROLLED_BACK_TAG = "flywheel.rolled_back"  # a former champion's: target, person and reason
LINK_TAG = "flywheel.link"  # the decision's number and digest in the chain: an anchor of it
ROLLOUT_TAG = "flywheel.rollout"  # the order of its canary

# Suffixes of a workload's files in the home's folder `locks`, where no server writes:
KNOWN = ".approved.json"  # its champions by the chain of decisions
PENDING = ".order.json"  # a rollback that the chain does not have yet


def decision_of(tags: Mapping[str, str]) -> str:
    """Return what people decided about a version; empty if nobody has."""
    # Before challengers were registered, all registered versions were approved.
    return tags.get(DECISION_TAG) or ("approve" if APPROVER_TAG in tags else "")
