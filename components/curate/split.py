"""Assign each row to a side (training, validation, holdout) by a hash; once assigned, it stays."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.curate.settings import SplitBy
from components.schema import Answer
from components.store import manifest
from components.store.warehouse import Connection

Side = Literal["train", "validation", "holdout"]

SIDES: tuple[Side, ...] = ("train", "validation", "holdout")
"""By strictness: a row tied to two sides belongs to the later one."""

GOLDEN = (5**0.5 - 1) / 2
"""The step of Kronecker's low-discrepancy sequence (discrepancy of order log n / n: Kuipers and
Niederreiter 1974, ch. 2.3)."""

LABEL_CHARACTERS = 40  # longer texts are not labels


class SplitChangedError(ValueError):
    """Raised when the workload was split by another criterion before; a row never changes side."""


def group(split_by: SplitBy, tool_names: Sequence[str], opening: str, user_id: str | None) -> str:
    """Return the digest of an example's group, its conversation without tools or a user.

    ``opening`` is the conversation's first user message.
    """
    if split_by == "tools" and tool_names:
        return tools(tool_names)
    if split_by == "user" and user_id:
        return user(user_id)
    return opening_group(opening)


def tools(names: Sequence[str]) -> str:
    """Return the digest of a set of tools, in any order."""
    return manifest.digest(["tools", *sorted(set(names))])


def user(user_id: str) -> str:
    """Return the digest of a logged user."""
    return manifest.digest(["user", user_id])


def opening_group(opening: str) -> str:
    """Return the digest shared by requests with one opening."""
    return manifest.digest(["conversation", opening])


def conversation(conversation_id: str) -> str:
    """Return the digest of a logged conversation, whose turns may have different openings."""
    return manifest.digest(["conversation_id", conversation_id])


def label(answer: Answer) -> str:
    """Return an answer's label: its calls, a short text, or ``text`` for longer ones."""
    if answer.calls:
        return " + ".join(sorted({call.name for call in answer.calls}))
    text = " ".join(answer.text.split())
    return text if len(text) <= LABEL_CHARACTERS else "text"


def side_by_hash(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def in_sequence(stratum: str, number: int) -> float:
    """Return point ``number`` (0-based) of a stratum's sequence in [0, 1)."""
    return (side_by_hash(stratum) + number * GOLDEN) % 1.0


def side(draw: float, holdout_share: float, validation_share: float) -> Side:
    """Return the side of a draw; raising one share takes from train only."""
    if draw < holdout_share:
        return "holdout"
    return "validation" if draw >= 1 - validation_share else "train"


Ints = NDArray[np.int64]

UNPLACED = -1

SEQUENCE = "knots"  # seed of a workload's draw sequence; changing it would move rows

STARTS = 32  # candidate points of the sequence at which a draw may resume


@dataclass(frozen=True, slots=True)
class Member:
    """One row to place.

    ``ties`` are digests of its request, its group, and whatever else it shares with other rows;
    ``cluster_id`` is its near-duplicate cluster, whose name may change between curations.
    ``related`` ties it to rows that may be on another side but are not independent of it, such as
    its user's. ``former_group`` is the group of rows that were logged before their group was
    settled by a release before migration 0026. ``by_tools`` is set if the group is a set of tools.
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
    """Settled by snapshots: each tie's side and since when, and the draws per stratum."""

    sides: Mapping[str, Side] = field(default_factory=dict[str, Side])
    drawn: Mapping[str, int] = field(default_factory=dict[str, int])
    since: Mapping[str, datetime] = field(default_factory=dict[str, datetime])


@dataclass(frozen=True, slots=True)
class Shares:
    """How unsettled rows are drawn."""

    split_by: SplitBy
    holdout: float
    validation: float


@dataclass(frozen=True, slots=True)
class Placement:
    """A row's side, and the objection if it is tied to a row of a stricter side.

    ``component_id`` is equal for rows that are tied, directly or through others: they are not
    independent of each other. ``draw_id`` identifies the draw within ``stratum``; both are
    ``None`` for a row that was not drawn in the sequence.
    """

    side: Side
    component_id: str = ""
    stratum: str | None = None
    draw_id: str | None = None
    objection: str | None = None


UNDRAWN = Placement("train")


def place(members: Sequence[Member], settled: SettledSides, shares: Shares) -> list[Placement]:
    """Return each row's placement; neither row order nor cluster names matter.

    Rows of one request share all ties.
    """
    if not members:
        return []
    requests: dict[str, int] = {}
    request_of = [requests.setdefault(member.ties[0], len(requests)) for member in members]
    owners, ties, tie_count = _tied(members, request_of, _ties)
    components = _connected(owners, ties, len(requests), tie_count)
    sides = _settled_sides(members, request_of, len(requests), settled)
    met = np.full(int(components.max()) + 1, UNPLACED)
    np.maximum.at(met, components, sides)
    drawn = _draw(members, [int(components[n]) for n in request_of], met, settled, shares)
    followed = [
        SIDES.index(drawn[k].side) if k in drawn else int(met[k]) for k in components.tolist()
    ]
    final = np.where(sides == UNPLACED, followed, sides)
    strictest = _strictest_side(final, owners, ties, tie_count)
    names = _component_names(members, [*requests], request_of)
    placements = [
        replace(
            drawn.get(component, UNDRAWN),
            side=SIDES[side],
            component_id=name,
            objection=f"near_{SIDES[strict]}" if strict > side else None,
        )
        for side, strict, name, component in zip(
            final.tolist(), strictest.tolist(), names, components.tolist(), strict=True
        )
    ]
    return [placements[request] for request in request_of]


def _tied(
    members: Sequence[Member],
    request_of: Sequence[int],
    ties_of: Callable[[Member], Iterator[str]],
) -> tuple[Ints, Ints, int]:
    """Return the (request, tie) pairs as two arrays, and the number of ties."""
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


def _connected(owners: Ints, ties: Ints, request_count: int, tie_count: int) -> Ints:
    # Whoever reads a workload file loads this module, and SciPy takes half a second.
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    size = request_count + tie_count
    pairs = (owners, request_count + ties)
    _, components = connected_components(
        coo_array((np.ones(len(owners), bool), pairs), shape=(size, size)), directed=False
    )
    return components[:request_count]


def _component_names(
    members: Sequence[Member], requests: Sequence[str], request_of: Sequence[int]
) -> list[str]:
    """Name each request's component by its smallest request, so that row order doesn't matter."""
    owners, ties, tie_count = _tied(
        members, request_of, lambda member: chain(_ties(member), member.related)
    )
    numbers = _connected(owners, ties, len(requests), tie_count)
    smallest: dict[int, str] = {}
    for request, number in zip(requests, numbers.tolist(), strict=True):
        smallest[number] = min(request, smallest.get(number, request))
    return [smallest[number] for number in numbers.tolist()]


def _settled_sides(
    members: Sequence[Member], request_of: Sequence[int], count: int, settled: SettledSides
) -> Ints:
    """Return each request's settled side, else the strictest settled side of its ties."""
    sides = np.full(count, UNPLACED)
    for member, request in zip(members, request_of, strict=True):
        if (own := settled.sides.get(member.ties[0])) is not None:
            sides[request] = SIDES.index(own)
            continue
        ties = list(member.ties[1:])
        since = settled.since.get(member.former_group or "")
        if member.former_group and since and member.logged_at <= since:
            ties.append(member.former_group)
        for tie in ties:
            if tie in settled.sides:
                sides[request] = max(int(sides[request]), SIDES.index(settled.sides[tie]))
    return sides


def _draw(
    members: Sequence[Member],
    components: Sequence[int],
    met: Ints,
    settled: SettledSides,
    shares: Shares,
) -> dict[int, Placement]:
    """Draw the side of each component without a settled request or group, by its first row."""
    groups: dict[int, str] = {}
    first: dict[int, Member] = {}
    requests: dict[int, set[str]] = defaultdict(set)
    for component, member in zip(components, members, strict=True):
        if met[component] != UNPLACED:
            continue
        requests[component].add(member.ties[0])
        if member.by_tools:
            groups[component] = min(member.ties[1], groups.get(component, member.ties[1]))
        if component not in first or _by_time(member) < _by_time(first[component]):
            first[component] = member
    by_hash = {
        component: Placement(side(side_by_hash(name), shares.holdout, shares.validation))
        for component, name in groups.items()
    }
    others = {component: member for component, member in first.items() if component not in groups}
    sizes = {component: len(names) for component, names in requests.items()}
    return by_hash | _draw_in_sequence(others, sizes, settled, shares)


def _draw_in_sequence(
    first: Mapping[int, Member], sizes: Mapping[int, int], settled: SettledSides, shares: Shares
) -> dict[int, Placement]:
    # Digests: labels are user text, and settled strata are kept indefinitely.
    strata = {
        component: manifest.digest(["label", member.label]) for component, member in first.items()
    }
    in_order = sorted(
        first,
        key=lambda component: (
            strata[component],
            sizes[component].bit_length(),
            _by_time(first[component]),
        ),
    )
    drawn: dict[int, Placement] = {}
    start = _start(
        [sizes[component] for component in in_order], sum(settled.drawn.values()), shares
    )
    for number, component in enumerate(in_order, start):
        drawn[component] = Placement(
            side(in_sequence(SEQUENCE, number), shares.holdout, shares.validation),
            stratum=strata[component],
            draw_id=first[component].ties[0],
        )
    return drawn


def _start(sizes: Sequence[int], number: int, shares: Shares) -> int:
    """Return the point of the sequence, out of ``STARTS``, that keeps the shares best.

    Fewer components than ``STARTS`` resume after the last draw: choosing would favour small ones.
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


def _strictest_side(sides: Ints, owners: Ints, ties: Ints, tie_count: int) -> Ints:
    """Return for each request the strictest side among the requests it shares a tie with."""
    of_tie = np.zeros(tie_count, np.int64)
    np.maximum.at(of_tie, ties, sides[owners])
    strictest = sides.copy()
    np.maximum.at(strictest, owners, of_tie[ties])
    return strictest


def read_settled(con: Connection, workload_id: str, split_by: SplitBy) -> SettledSides:
    """Read a workload's settled sides, drawn by ``split_by``, and the draws per stratum."""
    named = {"workload_id": workload_id}
    rows = con.execute(
        "select group_id, side, split_by, settled_at from curated.sides"
        " where workload_id = $workload_id",
        named,
    ).fetchall()
    if others := {drawn_by for _, _, drawn_by, _ in rows} - {split_by}:
        raise SplitChangedError(
            f"curating {workload_id}: its snapshots were split by {', '.join(others)}, but "
            f"split_by is {split_by}. That would test on training rows: set split_by back, or "
            "start a workload under another name"
        )
    drawn = con.execute(
        "select stratum, count(distinct draw_id) from curated.sides"
        " where workload_id = $workload_id and stratum is not null group by stratum",
        named,
    ).fetchall()
    return SettledSides(
        {group_id: side for group_id, side, _, _ in rows},
        dict(drawn),
        {group_id: since for group_id, _, _, since in rows},
    )
