"""Place every row on a side that it keeps for ever, whatever arrives, merges or is configured.

The rule, in this order:

1. A row that a snapshot has settled stays where it is.
2. Another row goes where a group of its (conversation, user, tools) was settled.
3. Rows that are tied to one another, by a group or by a cluster of near-duplicates, directly or
   through others, stand together. If any of them was placed by 1 or 2, the others follow: to the
   holdout where one stands there, else to validation, else to train.
4. What is left are knots of rows that nothing has settled. Each is drawn as one.
   Split by tools, by the hash of its group. Else stratified: a knot belongs to the stratum of its
   earliest row's label, and a stratum's new knots take, in the order of time, the next points of
   its sequence, which goes on where the knots settled before have left it. So each label, and each
   stretch of time within it, has its share on each side.

Freezing settles every placed row with its groups, append-only. So 1 alone keeps each row's side for
ever; 2 to 4 decide only where rows go that were never in a snapshot. Where clusters that merge, or
two settled groups, tie rows of two sides, both keep theirs, and the less strict ones are left out:
what is trained on shares no group and no cluster with what is tested on.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components import manifest
from components.curate import split
from components.curate.split import SIDES, Side, SplitBy

Ints = NDArray[np.int64]

UNPLACED = -1


@dataclass(frozen=True, slots=True)
class Member:
    """One row to place.

    ``ties`` are the names of its request, of its group, and of what else it has in common with
    others; ``cluster_id`` is the cluster of its near-duplicates, which another curation may name
    otherwise.
    """

    ties: tuple[str, ...]
    label: str
    logged_at: datetime
    cluster_id: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What snapshots have settled: the side of each tie, and how many knots each stratum drew."""

    sides: Mapping[str, Side] = field(default_factory=dict[str, Side])
    drawn: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Shares:
    """How the rows are drawn that nothing has settled."""

    split_by: SplitBy
    holdout: float
    validation: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands, and the objection if it is tied to a row of a stricter side.

    ``component_id`` is equal for rows that are tied, directly or through others: they are not
    independent of each other. ``draw_id`` names the knot with which it was drawn within
    ``stratum``; both are ``None`` where it was not.
    """

    side: Side
    component_id: str = ""
    stratum: str | None = None
    draw_id: str | None = None
    objection: str | None = None


def place(members: Sequence[Member], settled: Settled, shares: Shares) -> list[Standing]:
    """Place rows by the rule above; neither their order nor the clusters' names matter.

    Rows of one request are one: they have each other's ties.
    """
    if not members:
        return []
    requests: dict[str, int] = {}
    request_of = [requests.setdefault(one.ties[0], len(requests)) for one in members]
    owners, ties, tie_count = _tied(members, request_of)
    knots = _knots(owners, ties, len(requests), tie_count)
    sides = _settled_sides(members, request_of, len(requests), settled.sides)
    met = np.full(int(knots.max()) + 1, UNPLACED)
    np.maximum.at(met, knots, sides)
    drawn = _draw(members, [int(knots[one]) for one in request_of], met, settled, shares)
    followed = [SIDES.index(drawn[k].side) if k in drawn else int(met[k]) for k in knots.tolist()]
    final = np.where(sides == UNPLACED, followed, sides)
    strictest = _strictest(final, owners, ties, tie_count)
    names = _names([*requests], knots)
    standings = [
        _standing(side, strict, name, drawn.get(knot))
        for side, strict, name, knot in zip(
            final.tolist(), strictest.tolist(), names, knots.tolist(), strict=True
        )
    ]
    return [standings[one] for one in request_of]


def _tied(members: Sequence[Member], request_of: Sequence[int]) -> tuple[Ints, Ints, int]:
    """List each pair of a request and a tie that it has, and count the ties."""
    names: dict[str, int] = {}
    owners: list[int] = []
    ties: list[int] = []
    for member, request in zip(members, request_of, strict=True):
        for tie in _all_ties(member):
            owners.append(request)
            ties.append(names.setdefault(tie, len(names)))
    return np.array(owners), np.array(ties), len(names)


def _all_ties(member: Member) -> Iterator[str]:
    yield from member.ties
    if member.cluster_id is not None:
        yield f"cluster {member.cluster_id}"


def _knots(owners: Ints, ties: Ints, request_count: int, tie_count: int) -> Ints:
    """Number each request's knot: what it is tied to, directly or through others."""
    size = request_count + tie_count
    pairs = (owners, request_count + ties)
    _, knots = connected_components(
        coo_array((np.ones(len(owners), bool), pairs), shape=(size, size)), directed=False
    )
    return knots[:request_count]


def _names(requests: Sequence[str], numbers: Ints) -> list[str]:
    """Name each request's component by its smallest request, which no order of rows changes."""
    smallest: dict[int, str] = {}
    for request, number in zip(requests, numbers.tolist(), strict=True):
        smallest[number] = min(request, smallest.get(number, request))
    return [smallest[number] for number in numbers.tolist()]


def _settled_sides(
    members: Sequence[Member], request_of: Sequence[int], count: int, settled: Mapping[str, Side]
) -> Ints:
    """Give each request's own settled side, else the strictest of its groups'."""
    sides = np.full(count, UNPLACED)
    for member, request in zip(members, request_of, strict=True):
        if (own := settled.get(member.ties[0])) is not None:
            sides[request] = SIDES.index(own)
            continue
        for tie in member.ties[1:]:
            if tie in settled:
                sides[request] = max(int(sides[request]), SIDES.index(settled[tie]))
    return sides


def _draw(
    members: Sequence[Member], knots: Sequence[int], met: Ints, settled: Settled, shares: Shares
) -> dict[int, Standing]:
    """Draw the side of each knot that has met no settled request or group, as its first row's."""
    untouched = [
        (knot, one) for knot, one in zip(knots, members, strict=True) if met[knot] == UNPLACED
    ]
    if shares.split_by == "tools":
        groups: dict[int, str] = {}
        for knot, member in untouched:
            groups[knot] = min(member.ties[1], groups.get(knot, member.ties[1]))
        return {knot: Standing(_side(split.by_hash(name), shares)) for knot, name in groups.items()}
    first: dict[int, Member] = {}
    for knot, member in untouched:
        if knot not in first or _by_time(member) < _by_time(first[knot]):
            first[knot] = member
    return _draw_in_strata(first, settled, shares)


def _draw_in_strata(
    first: Mapping[int, Member], settled: Settled, shares: Shares
) -> dict[int, Standing]:
    strata: dict[str, list[int]] = defaultdict(list)
    for knot, member in first.items():
        # By digest: a label is text that somebody wrote, and what is settled is kept for ever.
        strata[manifest.digest(["label", member.label])].append(knot)
    drawn: dict[int, Standing] = {}
    for stratum, found in strata.items():
        start = settled.drawn.get(stratum, 0)
        in_time = sorted(found, key=lambda knot: _by_time(first[knot]))
        for number, knot in enumerate(in_time, start):
            draw = split.in_sequence(stratum, number)
            drawn[knot] = Standing(
                _side(draw, shares), stratum=stratum, draw_id=first[knot].ties[0]
            )
    return drawn


def _by_time(member: Member) -> tuple[datetime, tuple[str, ...]]:
    return member.logged_at, member.ties


def _side(draw: float, shares: Shares) -> Side:
    return split.side(draw, shares.holdout, shares.validation)


def _strictest(sides: Ints, owners: Ints, ties: Ints, tie_count: int) -> Ints:
    """Give for each request the strictest side that it has a tie in common with, its own too."""
    of_tie = np.zeros(tie_count, np.int64)
    np.maximum.at(of_tie, ties, sides[owners])
    found = sides.copy()
    np.maximum.at(found, owners, of_tie[ties])
    return found


def _standing(side: int, strictest: int, component_id: str, drawn: Standing | None) -> Standing:
    objection = f"near_{SIDES[strictest]}" if strictest > side else None
    return Standing(
        SIDES[side],
        component_id,
        drawn.stratum if drawn else None,
        drawn.draw_id if drawn else None,
        objection,
    )
