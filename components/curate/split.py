"""Name what ties rows together, and turn a draw between 0 and 1 into a side.

What is drawn, and when, is ``placing``'s. A draw is either the hash of a group, which depends on
nothing else there is, or the next point of a stratum's golden sequence: of any stretch of that
sequence nearly the wanted share falls on each side, so a stratum gets its share early and keeps it
while it grows, even if the shares change on the way.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

from components import manifest
from components.schema import Answer

Side = Literal["train", "validation", "holdout"]
SplitBy = Literal["tools", "conversation", "user"]

SIDES: tuple[Side, ...] = ("train", "validation", "holdout")
"""By strictness: what is tied to rows of two sides belongs to the later one."""

GOLDEN = (5**0.5 - 1) / 2
"""The step whose multiples, less their whole part, leave no gap and no crowd (Kronecker's
sequence; its discrepancy is of the order log n / n: Kuipers and Niederreiter 1974, ch. 2.3)."""

LABEL_CHARACTERS = 40
"""A longer text is no label that several answers have in common."""


class SplitChangedError(ValueError):
    """The workload was split in another way before; a row never changes side."""


def group(split_by: SplitBy, tool_names: Sequence[str], opening: str, user_id: str | None) -> str:
    """Name the group that an example belongs to.

    Args:
        split_by: What the holdout is to show: unseen tools, conversations or users. Requests that
            offer no tool, or whose user is unknown, go by conversation.
        tool_names: The tools that the request offers; their order doesn't matter.
        opening: The conversation's first user message.
        user_id: Who asked, where the log says.
    """
    if split_by == "tools" and tool_names:
        return tools(tool_names)
    if split_by == "user" and user_id:
        return user(user_id)
    return opening_group(opening)


def tools(names: Sequence[str]) -> str:
    """Name a set of tools, whatever their order."""
    return manifest.digest(["tools", *sorted(set(names))])


def user(user_id: str) -> str:
    """Name a logged user."""
    return manifest.digest(["user", user_id])


def opening_group(opening: str) -> str:
    """Name the requests with one opening."""
    return manifest.digest(["conversation", opening])


def conversation(conversation_id: str) -> str:
    """Name a logged conversation, whose turns stay together though their openings may differ."""
    return manifest.digest(["conversation_id", conversation_id])


def label(answer: Answer) -> str:
    """Name what an answer says, as far as others say the same: its calls, or a short text."""
    if answer.calls:
        return " + ".join(sorted({call.name for call in answer.calls}))
    text = " ".join(answer.text.split())
    return text if len(text) <= LABEL_CHARACTERS else "text"


def by_hash(name: str) -> float:
    """Draw a number from [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def in_sequence(stratum: str, number: int) -> float:
    """Draw the ``number``-th point, from 0, of a stratum's sequence in [0, 1)."""
    return (by_hash(stratum) + number * GOLDEN) % 1.0


def side(draw: float, holdout_share: float, validation_share: float) -> Side:
    """Give the side of a draw; a larger share of one side takes from train only."""
    if draw < holdout_share:
        return "holdout"
    return "validation" if draw >= 1 - validation_share else "train"
