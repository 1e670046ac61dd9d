"""Assign each row to a side (training, validation, holdout) by a hash; once assigned, it stays."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.curate.settings import SplitBy
from components.schema import Answer
from components.store import manifest
from components.store.warehouse import Connection

Side = Literal["train", "validation", "holdout"]

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


def side_by_hash(name: str) -> float:
    """Draw a number from [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def in_sequence(stratum: str, number: int) -> float:
    """Draw the ``number``-th point, from 0, of a stratum's sequence in [0, 1)."""
    return (side_by_hash(stratum) + number * GOLDEN) % 1.0


def side(draw: float, holdout_share: float, validation_share: float) -> Side:
    """Give the side of a draw; a larger share of one side takes from train only."""
    if draw < holdout_share:
        return "holdout"
    return "validation" if draw >= 1 - validation_share else "train"


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
class SettledSides:
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
class Placement:
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


def place(members: Sequence[Member], settled: SettledSides, shares: Shares) -> list[Placement]:
    """Place rows by the rule above; neither their order nor the clusters' names matter.

    Rows of one request are one: they have each other's ties.
    """
    if not members:
        return []
    requests: dict[str, int] = {}
    request_of = [requests.setdefault(one.ties[0], len(requests)) for one in members]
    owners, ties, tie_count = _tied(members, request_of, _ties)
    knots = _connected(owners, ties, len(requests), tie_count)
    sides = _settled_sides(members, request_of, len(requests), settled)
    met = np.full(int(knots.max()) + 1, UNPLACED)
    np.maximum.at(met, knots, sides)
    drawn = _draw(members, [int(knots[one]) for one in request_of], met, settled, shares)
    followed = [SIDES.index(drawn[k].side) if k in drawn else int(met[k]) for k in knots.tolist()]
    final = np.where(sides == UNPLACED, followed, sides)
    strictest = _strictest_side(final, owners, ties, tie_count)
    names = _component_names(members, [*requests], request_of)
    standings = [
        _placement(side, strict, name, drawn.get(knot))
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


def _connected(owners: Ints, ties: Ints, request_count: int, tie_count: int) -> Ints:
    """Number each request's knot: what it is tied to, directly or through others."""
    # Whoever reads a workload file loads this module, and SciPy takes half a second.
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

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
    numbers = _connected(owners, ties, len(requests), tie_count)
    smallest: dict[int, str] = {}
    for request, number in zip(requests, numbers.tolist(), strict=True):
        smallest[number] = min(request, smallest.get(number, request))
    return [smallest[number] for number in numbers.tolist()]


def _settled_sides(
    members: Sequence[Member], request_of: Sequence[int], count: int, settled: SettledSides
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


def _former(member: Member, settled: SettledSides) -> Iterator[str]:
    """Yield the former group if it was settled when this row was there already."""
    group = member.former_group
    if group and group in settled.since and member.logged_at <= settled.since[group]:
        yield group


def _draw(
    members: Sequence[Member],
    knots: Sequence[int],
    met: Ints,
    settled: SettledSides,
    shares: Shares,
) -> dict[int, Placement]:
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
    by_hash = {knot: Placement(_side(side_by_hash(name), shares)) for knot, name in groups.items()}
    others = {knot: member for knot, member in first.items() if knot not in groups}
    sizes = {knot: len(found) for knot, found in requests.items()}
    return by_hash | _draw_in_sequence(others, sizes, settled, shares)


def _draw_in_sequence(
    first: Mapping[int, Member], sizes: Mapping[int, int], settled: SettledSides, shares: Shares
) -> dict[int, Placement]:
    # By digest: a label is text that somebody wrote, and what is settled is kept for ever.
    strata = {knot: manifest.digest(["label", member.label]) for knot, member in first.items()}
    in_order = sorted(
        first, key=lambda knot: (strata[knot], sizes[knot].bit_length(), _by_time(first[knot]))
    )
    drawn: dict[int, Placement] = {}
    start = _start([sizes[knot] for knot in in_order], sum(settled.drawn.values()), shares)
    for number, knot in enumerate(in_order, start):
        side = _side(in_sequence(SEQUENCE, number), shares)
        drawn[knot] = Placement(side, stratum=strata[knot], draw_id=first[knot].ties[0])
    return drawn


def _start(sizes: Sequence[int], number: int, shares: Shares) -> int:
    """Return where to go on in the sequence: of some numbers the one that keeps the shares best.

    Fewer knots than that go on where the last draw ended: choosing would favour the small ones.
    """
    if len(sizes) < STARTS:
        return number
    weights = np.array(sizes) / sum(sizes)
    points = np.array([in_sequence(SEQUENCE, number + n) for n in range(len(sizes) + STARTS - 1)])

    def error(start: int) -> float:
        draws = points[start : start + len(sizes)]
        held = float(weights[draws < shares.holdout].sum())
        validated = float(weights[draws >= 1 - shares.validation].sum())
        return abs(held - shares.holdout) + abs(validated - shares.validation)

    return number + min(range(STARTS), key=error)


def _by_time(member: Member) -> tuple[datetime, tuple[str, ...]]:
    return member.logged_at, member.ties


def _side(draw: float, shares: Shares) -> Side:
    return side(draw, shares.holdout, shares.validation)


def _strictest_side(sides: Ints, owners: Ints, ties: Ints, tie_count: int) -> Ints:
    """Give for each request the strictest side that it has a tie in common with, its own too."""
    of_tie = np.zeros(tie_count, np.int64)
    np.maximum.at(of_tie, ties, sides[owners])
    found = sides.copy()
    np.maximum.at(found, owners, of_tie[ties])
    return found


def _placement(side: int, strictest: int, component_id: str, drawn: Placement | None) -> Placement:
    objection = f"near_{SIDES[strictest]}" if strictest > side else None
    return Placement(
        SIDES[side],
        component_id,
        drawn.stratum if drawn else None,
        drawn.draw_id if drawn else None,
        objection,
    )


def read_settled(con: Connection, workload_id: str, split_by: SplitBy) -> SettledSides:
    """Read a workload's settled sides, and how many knots of each stratum were drawn.

    Raises:
        SplitChangedError: They were drawn in another way than ``split_by``.
    """
    named = {"workload_id": workload_id}
    found = con.execute(
        "select group_id, side, split_by, settled_at from curated.sides"
        " where workload_id = $workload_id",
        named,
    ).fetchall()
    if others := {drawn_by for _, _, drawn_by, _ in found} - {split_by}:
        raise SplitChangedError(
            f"curating {workload_id}: its snapshots were split by {', '.join(others)}, the config "
            f"says {split_by}. That would test on rows that were trained on: set split_by "
            "back, or start a workload of another name"
        )
    drawn = con.execute(
        "select stratum, count(distinct draw_id) from curated.sides"
        " where workload_id = $workload_id and stratum is not null group by stratum",
        named,
    ).fetchall()
    return SettledSides(
        {group_id: side for group_id, side, _, _ in found},
        dict(drawn),
        {group_id: since for group_id, _, _, since in found},
    )
