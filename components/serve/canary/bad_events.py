"""The bad events of each arm, by the canary's share when a conversation began.

The share is the probability with which the arm was drawn, and all that the test takes for granted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

BadKind: TypeAlias = Literal["error", "invalid", "cut", "slow", "disliked"]


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Counts of both arms under one share."""

    canary: int = 0
    champion: int = 0

    def __add__(self, other: "ArmCounts") -> "ArmCounts":
        return ArmCounts(self.canary + other.canary, self.champion + other.champion)


ShareCounts: TypeAlias = Mapping[float, ArmCounts]
"""Counts by the canary's share."""


@dataclass(frozen=True, slots=True)
class RolloutCounts:
    """What a verdict is made of."""

    conversations: ShareCounts
    """Conversations that began, by the arm that answered first."""

    bad: Mapping[BadKind, ShareCounts]
    """Conversations with an event of the kind; kinds without any are missing."""

    late: Mapping[BadKind, ArmCounts] = field(default_factory=dict["BadKind", ArmCounts])
    """Conversations of which an event of the kind came after its window, and does not count."""

    left_out: int = 0
    """Conversations that count only up to a change of arm, or of share."""


def total(counts: ShareCounts) -> ArmCounts:
    """Return the sum over all shares."""
    return sum(counts.values(), ArmCounts())
