"""Draw the side of a group of examples by hash, so that it never depends on what else there is."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from components import manifest

Side = Literal["train", "holdout"]
SplitBy = Literal["tools", "conversation"]


class SplitChangedError(ValueError):
    """The workload was split in another way before; a row never changes side."""


def group(split_by: SplitBy, tool_names: Sequence[str], opening: str) -> str:
    """Name the group that an example belongs to, whose members stand on one side.

    Args:
        split_by: What the holdout is to show: unseen tools, or unseen conversations.
        tool_names: The tools that the request offers; their order doesn't matter.
        opening: The conversation's first user message.
    """
    if split_by == "tools" and tool_names:
        return manifest.digest(["tools", *sorted(set(tool_names))])
    return manifest.digest(["conversation", opening])


def side(group: str, holdout_share: float) -> Side:
    """Draw a group's side; a larger share moves groups to the holdout only, never back."""
    draw = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return "holdout" if draw < holdout_share else "train"


def settle(group: str, holdout_share: float, settled: Mapping[str, Side]) -> Side:
    """Give the side that a snapshot settled for the group before, else draw it."""
    return settled.get(group) or side(group, holdout_share)
