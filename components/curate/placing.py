"""Place every row on a side that it keeps for ever, whatever arrives, merges or is configured.

The rule, in this order:

1. A row that a snapshot has settled stays where it is.
2. Another row goes where a tie of its (conversation, user, tools) was settled.
3. Rows that are tied to one another, by a group or by a cluster of near-duplicates, directly or
   through others, stand together. If any of them was placed by 1 or 2, the others follow: to the
   holdout where one stands there, else to validation, else to train.
4. What is left are knots of rows that nothing has settled. Each is drawn as one. Where it offers
   tools, and those are split by, by the hash of its group. Else by the next point of a sequence, in
   the order of label, size and time, so that each label, each size and each stretch of time has its
   share on each side. Where many are drawn at once, the sequence goes on at that of its next 32
   points that brings the shares of requests nearest to what is wanted: so a knot that is larger
   than a side is trained on.

Freezing settles every placed row with its groups, append-only. So 1 alone keeps each row's side for
ever; 2 to 4 decide only where rows go that were never in a snapshot. Where clusters that merge, or
two settled groups, tie rows of two sides, both keep theirs, and the less strict ones are left out:
what is trained on shares no group and no cluster with what is tested on.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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

SEQUENCE = "knots"
"""Where the sequence of a workload's draws begins."""

STARTS = 32
"""From so many points of the sequence a draw may go on."""


@dataclass(frozen=True, slots=True)
class Member:
    """One row to place.

    ``ties`` are the names of its request, of its group, and of what else it has in common with
    others; ``cluster_id`` is the cluster of its near-duplicates, which another curation may name
    otherwise. ``related`` ties it to rows that may stand on another side, but are not independent
    of it, such as its user's. ``former_group`` is the group that versions before 0026 settled;
    it speaks for rows logged before that. ``by_tools`` is set where the group is a set of tools.
    """

    ties: tuple[str, ...]
    label: str
    logged_at: datetime
    cluster_id: str | None = None
    related: tuple[str, ...] = ()
    former_group: str | None = None
    by_tools: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """What snapshots have settled: each tie's side and since when, and each stratum's draws."""

    sides: Mapping[str, Side] = field(default_factory=dict[str, Side])
    drawn: Mapping[str, int] = field(default_factory=dict[str, int])
    since: Mapping[str, datetime] = field(default_factory=dict[str, datetime])


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
    owners, ties, tie_count = _tied(members, request_of, _ties)
    knots = _knots(owners, ties, len(requests), tie_count)
    sides = _settled_sides(members, request_of, len(requests), settled)
    met = np.full(int(knots.max()) + 1, UNPLACED)
    np.maximum.at(met, knots, sides)
    drawn = _draw(members, [int(knots[one]) for one in request_of], met, settled, shares)
    followed = [SIDES.index(drawn[k].side) if k in drawn else int(met[k]) for k in knots.tolist()]
    final = np.where(sides == UNPLACED, followed, sides)
    strictest = _strictest(final, owners, ties, tie_count)
    names = _component_names(members, [*requests], request_of)
    standings = [
        _standing(side, strict, name, drawn.get(knot))
        for side, strict, name, knot in zip(
            final.tolist(), strictest.tolist(), names, knots.tolist(), strict=True
        )
    ]
    return [standings[one] for one in request_of]


def _tied(
    members: Sequence[Member],
    request_of: Sequence[int],
    ties_of: Callable[[Member], Iterator[str]],
) -> tuple[Ints, Ints, int]:
    """List each pair of a request and a tie that it has, and count the ties."""
    names: dict[str, int] = {}
    owners: list[int] = []
    ties: list[int] = []
    for member, request in zip(members, request_of, strict=True):
        for tie in ties_of(member):
            owners.append(request)
            ties.append(names.setdefault(tie, len(names)))
    return np.array(owners), np.array(ties), len(names)


def _ties(member: Member) -> Iterator[str]:
    yield from member.ties
    if member.cluster_id is not None:
        yield f"cluster {member.cluster_id}"


def _ties_and_relations(member: Member) -> Iterator[str]:
    yield from _ties(member)
    yield from member.related


def _knots(owners: Ints, ties: Ints, request_count: int, tie_count: int) -> Ints:
    """Number each request's knot: what it is tied to, directly or through others."""
    size = request_count + tie_count
    pairs = (owners, request_count + ties)
    _, knots = connected_components(
        coo_array((np.ones(len(owners), bool), pairs), shape=(size, size)), directed=False
    )
    return knots[:request_count]


def _component_names(
    members: Sequence[Member], requests: Sequence[str], request_of: Sequence[int]
) -> list[str]:
    """Name each request's component by its smallest request, which no order of rows changes."""
    owners, ties, tie_count = _tied(members, request_of, _ties_and_relations)
    numbers = _knots(owners, ties, len(requests), tie_count)
    smallest: dict[int, str] = {}
    for request, number in zip(requests, numbers.tolist(), strict=True):
        smallest[number] = min(request, smallest.get(number, request))
    return [smallest[number] for number in numbers.tolist()]


def _settled_sides(
    members: Sequence[Member], request_of: Sequence[int], count: int, settled: Settled
) -> Ints:
    """Return each request's own settled side, else the strictest of its groups'."""
    sides = np.full(count, UNPLACED)
    for member, request in zip(members, request_of, strict=True):
        if (own := settled.sides.get(member.ties[0])) is not None:
            sides[request] = SIDES.index(own)
            continue
        for tie in [*member.ties[1:], *_former(member, settled)]:
            if tie in settled.sides:
                sides[request] = max(int(sides[request]), SIDES.index(settled.sides[tie]))
    return sides


def _former(member: Member, settled: Settled) -> Iterator[str]:
    """Yield the former group if it was settled when this row was there already."""
    group = member.former_group
    if group and group in settled.since and member.logged_at <= settled.since[group]:
        yield group


def _draw(
    members: Sequence[Member], knots: Sequence[int], met: Ints, settled: Settled, shares: Shares
) -> dict[int, Standing]:
    """Draw the side of each knot that has met no settled request or group, as its first row's."""
    untouched = [
        (knot, one) for knot, one in zip(knots, members, strict=True) if met[knot] == UNPLACED
    ]
    groups: dict[int, str] = {}
    first: dict[int, Member] = {}
    requests: dict[int, set[str]] = defaultdict(set)
    for knot, member in untouched:
        requests[knot].add(member.ties[0])
        if member.by_tools:
            groups[knot] = min(member.ties[1], groups.get(knot, member.ties[1]))
        if knot not in first or _by_time(member) < _by_time(first[knot]):
            first[knot] = member
    by_hash = {knot: Standing(_side(split.by_hash(name), shares)) for knot, name in groups.items()}
    others = {knot: member for knot, member in first.items() if knot not in groups}
    sizes = {knot: len(found) for knot, found in requests.items()}
    return by_hash | _draw_in_sequence(others, sizes, settled, shares)


def _draw_in_sequence(
    first: Mapping[int, Member], sizes: Mapping[int, int], settled: Settled, shares: Shares
) -> dict[int, Standing]:
    # By digest: a label is text that somebody wrote, and what is settled is kept for ever.
    strata = {knot: manifest.digest(["label", member.label]) for knot, member in first.items()}
    in_order = sorted(
        first, key=lambda knot: (strata[knot], sizes[knot].bit_length(), _by_time(first[knot]))
    )
    drawn: dict[int, Standing] = {}
    start = _start([sizes[knot] for knot in in_order], sum(settled.drawn.values()), shares)
    for number, knot in enumerate(in_order, start):
        side = _side(split.in_sequence(SEQUENCE, number), shares)
        drawn[knot] = Standing(side, stratum=strata[knot], draw_id=first[knot].ties[0])
    return drawn


def _start(sizes: Sequence[int], number: int, shares: Shares) -> int:
    """Return where to go on in the sequence: of some numbers the one that keeps the shares best.

    Fewer knots than that go on where the last draw ended: choosing would favour the small ones.
    """
    if len(sizes) < STARTS:
        return number
    weights = np.array(sizes) / sum(sizes)
    points = np.array(
        [split.in_sequence(SEQUENCE, number + n) for n in range(len(sizes) + STARTS - 1)]
    )

    def error(start: int) -> float:
        draws = points[start : start + len(sizes)]
        held = float(weights[draws < shares.holdout].sum())
        validated = float(weights[draws >= 1 - shares.validation].sum())
        return abs(held - shares.holdout) + abs(validated - shares.validation)

    return number + min(range(STARTS), key=error)


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
