"""Count the bad events of each arm, at most one of each kind in a conversation.

Counts are by the canary's share when the conversation began: it is the probability with which its
arm was drawn, and all that the test takes for granted. Everything here is a function of the set of
records: their order, and records that come twice, change nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from components.serve.canary.conversation_arms import Arm

BadKind: TypeAlias = Literal["error", "invalid", "cut", "slow", "disliked"]


@dataclass(frozen=True, slots=True, order=True)
class ArmAnswer:
    """An answer, or a failed attempt at one, while the canary ran.

    What a fallback answers in the place of a version that failed is neither arm's: the failure
    counts, and feedback to the fallback does not.
    """

    at: float
    """Unix seconds."""

    share: float
    """The canary's share when the conversation's arm was drawn."""

    arm: Arm
    """The arm whose version answered."""

    conversation: str


@dataclass(frozen=True, slots=True)
class BadEvent:
    """Something bad about an answer; it counts for the version that answered."""

    answer: ArmAnswer
    kind: BadKind
    at: float
    """Unix seconds when it was known: for feedback later than the answer."""


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

    left_out: int = 0
    """Conversations that count only up to a change of arm, or of share."""


def total(counts: ShareCounts) -> ArmCounts:
    """Return the sum over all shares."""
    return sum(counts.values(), ArmCounts())


def count(
    answers: Iterable[ArmAnswer],
    events: Iterable[BadEvent],
    now: float,
    windows: Mapping[BadKind, float] = MappingProxyType({}),
) -> RolloutCounts:
    """Count conversations and those with a bad event of each kind.

    A conversation that was forgotten is drawn again under another share, or answered by the
    champion under the share 0. From then on its events don't count, whether it changed arms or
    not. If only those that changed were left out, these would be the champion's alone, and if
    their earlier events were taken back, evidence that was looked at already would change.

    Args:
        answers: The answers of conversations; those of ``events`` need not be among them.
        events: The bad events.
        now: Events that are known later don't count yet. Unix seconds.
        windows: Kinds whose events count when the conversation is this many seconds old, and not
            at all if they came later. Without a window an event counts when it comes, which is
            right if how long it takes doesn't depend on the arm.
    """
    known = [event for event in events if event.at <= now]
    first = dict[str, ArmAnswer]()
    left = set[str]()
    seen = {answer for answer in answers if answer.at <= now} | {event.answer for event in known}
    for answer in sorted(seen):
        began = first.setdefault(answer.conversation, answer)
        if (answer.share, answer.arm) != (began.share, began.arm):
            left.add(answer.conversation)
    bad = defaultdict[BadKind, set[str]](set)
    for event in known:
        began = first[event.answer.conversation]
        window = windows.get(event.kind)
        if (event.answer.share, event.answer.arm) != (began.share, began.arm):
            continue
        if window is not None and not event.at <= began.at + window <= now:
            continue
        bad[event.kind].add(event.answer.conversation)
    return RolloutCounts(
        _by_share(first.values()),
        {kind: _by_share(first[name] for name in names) for kind, names in sorted(bad.items())},
        len(left),
    )


def _by_share(answers: Iterable[ArmAnswer]) -> ShareCounts:
    counts = defaultdict[float, ArmCounts](ArmCounts)
    for answer in answers:
        counts[answer.share] += ArmCounts(answer.arm == "canary", answer.arm == "champion")
    return dict(sorted(counts.items()))
