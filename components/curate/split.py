"""Assign each row to a side (training, validation, holdout) by a hash; once assigned, it stays."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.curate.near.hashed_words import sorted_set
from components.curate.settings import SplitBy
from components.curate.text_codes import MISSING, CodeLists, Ints, Marks, TextCodes, Texts
from components.schema import Answer
from components.store import manifest, warehouse
from components.store.warehouse import Connection

Floats = NDArray[np.float64]

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


@lru_cache(maxsize=1)  # a row's path begins with its group
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


def in_sequence(stratum: str, start: int, count: int) -> Floats:
    """Return points of a stratum's sequence in [0, 1), from point ``start`` (0-based) on."""
    numbers = np.arange(start, start + count, dtype=np.float64)
    return (side_by_hash(stratum) + numbers * GOLDEN) % 1.0


def side(draw: float, holdout_share: float, validation_share: float) -> Side:
    """Return the side of a draw; raising one share takes from train only."""
    if draw < holdout_share:
        return "holdout"
    return "validation" if draw >= 1 - validation_share else "train"


UNPLACED = -1

SEQUENCE = "knots"  # seed of a workload's draw sequence; changing it would move rows

SHUFFLED = 32  # draws in a row that are in no order of time

STARTS = 32  # candidate points of the sequence at which a draw may resume

NEVER = np.iinfo(np.int64).min
"""The time of what was never settled."""


@dataclass(frozen=True, slots=True)
class Member:
    """One row to place.

    ``ties`` are digests of its request and its group. ``label`` is that of its answer.
    """

    ties: tuple[str, ...]
    label: str
    logged_at: datetime


@dataclass(frozen=True, slots=True)
class Members:
    """The rows to place, in columns.

    ``names`` are the texts of all codes but ``labels``, which are codes of ``label_texts``. Of
    ``ties`` a row's first one is its request, the second its group; the others are whatever else
    it shares with other rows. ``clusters`` are near-duplicate clusters, whose names may change
    between curations, as numbers; ``MISSING`` for none. ``former_groups`` are the
    groups of rows that were logged before their group was settled by a release before migration
    0026. ``by_tools`` marks rows whose group is a set of tools. ``logged_us`` is in microseconds.
    """

    names: TextCodes
    ties: CodeLists
    clusters: Ints
    former_groups: Ints
    by_tools: Marks
    label_texts: Sequence[str]
    labels: Ints
    logged_us: Ints

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.logged_us)

    @property
    def requests(self) -> Ints:
        """The rows' requests."""
        return self.ties.at(0)


@dataclass(frozen=True, slots=True)
class SettledSides:
    """Settled by snapshots: ties with their sides and since when, and the number of draws.

    ``ids`` is an Arrow column; ``sides`` are numbers of ``SIDES``; ``since`` is in microseconds,
    ``NEVER`` where unknown.
    """

    ids: Texts
    sides: Ints
    since: Ints
    drawn: int

    def of(self, names: TextCodes) -> tuple[Ints, Ints]:
        """Return each name's settled side and since when, ``UNPLACED`` and ``NEVER`` for none."""
        places = names.find(self.ids)  # MISSING is the place of the last value
        return np.append(self.sides, UNPLACED)[places], np.append(self.since, NEVER)[places]


@dataclass(frozen=True, slots=True)
class Shares:
    """How unsettled rows are drawn."""

    split_by: SplitBy
    holdout: float
    validation: float


@dataclass(frozen=True, slots=True)
class Placements:
    """The sides of rows, in columns; ``sides`` and ``strictest`` are numbers of ``SIDES``.

    ``strictest`` is that of all rows tied to a row. ``draws`` identifies the draw within the
    stratum, whose name is in ``strata``, both ``MISSING`` for a row that was not drawn in the
    sequence. ``draws`` are codes of the members' names.
    """

    sides: Ints
    strictest: Ints
    strata: Ints
    stratum_names: Sequence[str]
    draws: Ints


def place(members: Members, settled: SettledSides, shares: Shares) -> Placements:
    """Return the rows' placements; neither row order nor cluster names matter.

    Rows of one request share all ties. Of rows with equal ties, logged at once, the first one
    decides the label by which they are drawn.
    """
    requests, request_of = np.unique(members.requests, return_inverse=True)
    if not len(requests):
        nothing = np.zeros(0, np.int64)
        return Placements(nothing, nothing, nothing, (), nothing)
    owners, ties, tie_count = numbered_ties([members.ties], members.clusters, request_of)
    components = connected(owners, ties, len(requests), tie_count)
    sides = _settled_sides(members, request_of, len(requests), settled)
    met = np.full(int(components.max()) + 1, UNPLACED)
    np.maximum.at(met, components, sides)
    ranks = members.names.ranks(requests)
    drawn = _draw(members, components, request_of, ranks, met, settled, shares)
    met = np.where(met == UNPLACED, drawn.sides, met)
    final = np.where(sides == UNPLACED, met[components], sides)
    strictest = _strictest_side(final, owners, ties, tie_count)
    of_row = components[request_of]
    return Placements(
        final[request_of],
        strictest[request_of],
        drawn.strata[of_row],
        drawn.stratum_names,
        drawn.draws[of_row],
    )


def numbered_ties(
    lists: Sequence[CodeLists], clusters: Ints, owner_of: Ints
) -> tuple[Ints, Ints, int]:
    """Return (owner, tie) pairs of rows as two arrays, and the number of ties.

    A row's ties are the codes of its ``lists`` and its near-duplicate cluster.
    """
    offset = max(int(each.codes.max(initial=MISSING)) for each in lists) + 1
    has_cluster = np.flatnonzero(clusters != MISSING)
    owners = np.concatenate([*(owner_of[each.rows] for each in lists), owner_of[has_cluster]])
    ties = np.concatenate([*(each.codes for each in lists), clusters[has_cluster] + offset])
    distinct, ties = np.unique(ties, return_inverse=True)
    return owners, ties, len(distinct)


def connected(owners: Ints, ties: Ints, owner_count: int, tie_count: int) -> Ints:
    """Return numbers that are equal for owners which ties connect, directly or through others."""
    # Whoever reads a workload file loads this module, and SciPy takes half a second.
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    size = owner_count + tie_count
    pairs = (owners, owner_count + ties)
    _, components = connected_components(
        coo_array((np.ones(len(owners), bool), pairs), shape=(size, size)), directed=False
    )
    return components[:owner_count]


def _settled_sides(members: Members, request_of: Ints, count: int, settled: SettledSides) -> Ints:
    """Return each request's settled side, else the strictest settled side of its ties."""
    sides = np.full(count, UNPLACED)
    if not len(settled.ids):
        return sides
    of_name, since = settled.of(members.names)
    np.maximum.at(sides, request_of[members.ties.rows], of_name[members.ties.codes])
    former = members.former_groups
    was_former = (former != MISSING) & (since[former] != NEVER)
    was_former &= members.logged_us <= since[former]
    np.maximum.at(sides, request_of[was_former], of_name[former[was_former]])
    own = of_name[members.requests]
    has_own = own != UNPLACED
    sides[request_of[has_own]] = own[has_own]
    return sides


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The draws of components: sides, strata and the request of the draw."""

    sides: Ints
    strata: Ints
    stratum_names: Sequence[str]
    draws: Ints


def _draw(
    members: Members,
    components: Ints,
    request_of: Ints,
    ranks: Ints,
    met: Ints,
    settled: SettledSides,
    shares: Shares,
) -> _Drawn:
    """Draw the side of each component without a settled request or group, by its first row.

    ``components`` and ``ranks``, their order, are by request.
    """
    sides = np.full(len(met), UNPLACED)
    grouped = _groups(members, components[request_of])
    for component, name in grouped.items():
        sides[component] = SIDES.index(side(side_by_hash(name), shares.holdout, shares.validation))
    is_open = met == UNPLACED
    is_open[[*grouped]] = False
    first = _first_rows(members, components[request_of], ranks[request_of])
    others = np.flatnonzero(is_open)
    labels, places = np.unique(members.labels[first[others]], return_inverse=True)
    # Digests: labels are user text, and settled strata are kept indefinitely.
    stratum_names = [manifest.digest(["label", members.label_texts[label]]) for label in labels]
    of_name = np.argsort(np.argsort(np.array(stratum_names, object), kind="stable"))
    sizes = np.bincount(components, minlength=len(met))[others]
    lengths = np.frexp(sizes)[1]  # as `int.bit_length`
    rows = first[others]
    in_order = np.lexsort(
        (ranks[request_of[rows]], members.logged_us[rows], lengths, of_name[places])
    )
    names = members.names.take(members.requests[rows[in_order]]).to_pylist()
    in_order = in_order[_shuffled(np.stack([of_name[places], lengths])[:, in_order], names)]
    start = _start(sizes[in_order], settled.drawn, shares)
    sides[others[in_order]] = _sides(in_sequence(SEQUENCE, start, len(others)), shares)
    strata, draws = np.full(len(met), MISSING), np.full(len(met), MISSING)
    strata[others] = places
    draws[others] = members.requests[rows]
    return _Drawn(sides, strata, stratum_names, draws)


def _shuffled(strata: Ints, names: Sequence[str]) -> Ints:
    """Return an order of rows, which are in that of strata and time, shuffled by their names.

    Only ``SHUFFLED`` neighbours in a stratum change places. The steps of the sequence keep
    neighbours apart: one of two held out would always have the other, perhaps its paraphrase, on
    the training side.
    """
    begins = np.flatnonzero(np.diff(strata, axis=1, prepend=-1).any(axis=0))
    sizes = np.diff(begins, append=strata.shape[1])
    within = np.arange(strata.shape[1]) - np.repeat(begins, sizes)
    stratum = np.repeat(np.arange(len(begins)), sizes)
    hashes = np.array([side_by_hash(f"{SEQUENCE} {name}") for name in names])
    return np.lexsort((hashes, within // SHUFFLED, stratum))


def _groups(members: Members, components: Ints) -> dict[int, str]:
    """Return the first group of each component whose group is a set of tools."""
    rows = np.flatnonzero(members.by_tools)
    count = len(members.names)
    of_component, codes = np.divmod(
        sorted_set(components[rows] * count + members.ties.at(1)[rows]), count
    )
    names = members.names.take(codes).to_pylist()
    groups: dict[int, str] = {}
    for component, name in zip(of_component.tolist(), names, strict=True):
        groups[component] = min(name, groups.get(component, name))
    return groups


def _first_rows(members: Members, components: Ints, ranks: Ints) -> Ints:
    """Return each component's first row by time, then by ties."""
    first = _leading(components, members.logged_us, ranks)
    leads = first[components]
    is_alike = (ranks == ranks[leads]) & (members.logged_us == members.logged_us[leads])
    is_alike &= np.bincount(components[is_alike])[components] > 1
    if (rows := np.flatnonzero(is_alike)).size:  # of one request and time: other ties decide
        lists = members.ties.take(rows)
        longest = int(np.diff(lists.bounds).max())
        others = [members.names.ranks(lists.at(place)) for place in range(1, longest)]
        leading = rows[_leading(components[rows], *others)]
        first[components[leading]] = leading
    return first


def _leading(*keys: Ints) -> Ints:
    """Return for each value of the first key, in order, the first row by the other keys."""
    order = np.lexsort(keys[::-1])
    return order[np.flatnonzero(np.diff(keys[0][order], prepend=-1))]


def _start(sizes: Ints, number: int, shares: Shares) -> int:
    """Return the point of the sequence, out of ``STARTS``, that keeps the shares best.

    Fewer components than ``STARTS`` resume after the last draw: choosing would favour small ones.
    """
    if len(sizes) < STARTS:
        return number
    weights = sizes / int(sizes.sum())
    points = in_sequence(SEQUENCE, number, len(sizes) + STARTS - 1)

    def error(start: int) -> float:
        draws = points[start : start + len(sizes)]
        held = float(weights[draws < shares.holdout].sum())
        validated = float(weights[draws >= 1 - shares.validation].sum())
        return abs(held - shares.holdout) + abs(validated - shares.validation)

    return number + min(range(STARTS), key=error)


def _sides(draws: Floats, shares: Shares) -> Ints:
    validated = np.where(draws >= 1 - shares.validation, SIDES.index("validation"), 0)
    return np.where(draws < shares.holdout, SIDES.index("holdout"), validated)


def _strictest_side(sides: Ints, owners: Ints, ties: Ints, tie_count: int) -> Ints:
    """Return for each request the strictest side among the requests it shares a tie with."""
    of_tie = np.zeros(tie_count, np.int64)
    np.maximum.at(of_tie, ties, sides[owners])
    strictest = sides.copy()
    np.maximum.at(strictest, owners, of_tie[ties])
    return strictest


def read_settled(con: Connection, workload_id: str, split_by: SplitBy) -> SettledSides:
    """Read a workload's settled sides, drawn by ``split_by``, and the number of draws."""
    named = {"workload_id": workload_id}
    drawn_by = warehouse.texts(
        con,
        "select distinct split_by from curated.sides where workload_id = $workload_id",
        **named,
    )
    if others := {*drawn_by} - {split_by}:
        raise SplitChangedError(
            f"curating {workload_id}: its snapshots were split by {', '.join(others)}, but "
            f"split_by is {split_by}. That would test on training rows: set split_by back, or "
            "start a workload under another name"
        )
    rows = con.sql(_SETTLED, params={**named, "sides": [*SIDES]}).to_arrow_table()
    ((drawn,),) = con.execute(_DRAWN, named).fetchall()
    sides, since = (rows.column(name).to_numpy() for name in ("side", "since_us"))
    return SettledSides(rows.column("group_id"), sides, since, drawn)


_SETTLED = """
    select
        group_id,
        list_position($sides, side)::bigint - 1 as side,
        epoch_us(settled_at) as since_us
    from curated.sides
    where workload_id = $workload_id
"""
_DRAWN = """
    select count(*)
    from (
        select distinct stratum, draw_id
        from curated.sides
        where workload_id = $workload_id and stratum is not null and draw_id is not null
    )
"""
