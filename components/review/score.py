"""Score what a person's word on an interaction would help, with a reason for each part; pure.

| what is known | points |
| --- | --- |
| a rejection blames it | 8 |
| people are of two minds | 4 |
| of the models measured on it, some are right and some are wrong | 3 |
| no model that was measured answers as the log does | 2.5 |
| nearly equal requests were answered in different ways | 2 |
| a rule flagged it | 1, and 0.25 for each further rule |
| nobody has judged any of its kind | half the binary logarithm of one more than there are of it |

So what a rejection blames comes first, then a dispute; but a kind of hundreds that nobody has
looked at comes before a single flag. Of nearly equal requests one is picked: a word on it goes for
the others.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BLAMED, DISPUTED, DIVIDED, CONTRADICTED, VARIED, FLAGGED, FLAGGED_MORE = (
    8.0,
    4.0,
    3.0,
    2.5,
    2.0,
    1.0,
    0.25,
)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one interaction.

    ``requests`` counts its near-duplicates and itself, ``judged`` those that somebody has judged,
    ``labels`` the ways they were answered in. ``models`` were measured on it, ``right`` of them
    answered as logged. ``blamed`` is the decision that blames it.
    """

    interaction_id: str
    cluster_id: str
    requests: int
    judged: int
    labels: int
    people_for: int
    people_against: int
    flags: tuple[str, ...]
    models: int = 0
    right: int = 0
    blamed: int | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """One part of a score, in words."""

    points: float
    said: str


@dataclass(frozen=True, slots=True)
class Pick:
    """An interaction to ask a person about, and why."""

    interaction_id: str
    reasons: tuple[Reason, ...]

    @property
    def points(self) -> float:
        """How much a word on it is expected to help."""
        return sum(reason.points for reason in self.reasons)


def pick(known: Iterable[Known], count: int) -> list[Pick]:
    """Pick up to ``count`` interactions, of each cluster at most one, the most helpful first.

    Of equal scores the larger cluster comes first, then the smaller id: the order of what is given
    does not matter.
    """
    ranked = sorted(
        ((one, Pick(one.interaction_id, tuple(reasons(one)))) for one in known),
        key=lambda pair: (-pair[1].points, -pair[0].requests, pair[0].interaction_id),
    )
    picked: dict[str, Pick] = {}
    for one, candidate in ranked:
        if len(picked) == count:
            break
        picked.setdefault(one.cluster_id, candidate)
    return list(picked.values())


def reasons(one: Known) -> Iterator[Reason]:
    """Say what speaks for asking about an interaction."""
    if one.blamed is not None:
        yield Reason(BLAMED, f"decision {one.blamed}, a rejection, blames it")
    if one.people_for and one.people_against:
        both = f"{one.people_for} for, {one.people_against} against"
        yield Reason(DISPUTED, f"people disagree: {both}")
    if 0 < one.right < one.models:
        yield Reason(DIVIDED, f"models disagree: {one.right} of {one.models} answer as logged")
    if one.models and not one.right:
        yield Reason(CONTRADICTED, f"none of {one.models} models answers as logged")
    if one.labels > 1:
        yield Reason(VARIED, f"{one.requests} requests like it were answered in {one.labels} ways")
    if one.flags:
        points = FLAGGED + FLAGGED_MORE * (len(one.flags) - 1)
        yield Reason(points, f"flagged by {', '.join(one.flags)}")
    if not one.judged:
        like = "nobody has judged it"
        if one.requests > 1:
            like = f"nobody has judged any of the {one.requests} requests like it"
        yield Reason(math.log2(1 + one.requests) / 2, like)
