"""Keep each client from crowding out the earlier clients of a workload.

Clients that the workload's file names ``first`` rank first, then the others in the order in which
each had ``ALWAYS`` requests: neither one line of a stranger's before production's nor a flood after
them outranks it. The first client is unlimited, so a workload of one client is unaffected. A later
client's new requests count only up to its share of a
side; requests in a snapshot stay. Held-out rows of a later client may displace only a share of an
earlier client's training rows: near-duplicates, overlaps, and rows that offer their tools. Clients
under ``together`` in the workload's file count as one.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from components.curate import decontamination, split
from components.curate.placed_rows import NEAR, PlacedRows, near_objection
from components.curate.settings import Overlap, SplitBy
from components.curate.split import NEVER, SIDES, SettledSides, Side
from components.schema import ALWAYS, ClientShares
from components.store import warehouse
from components.store.arrow import compute
from components.store.warehouse import Connection

TESTED: tuple[Side, ...] = ("holdout", "validation")
OVERLAPS = ("overlaps_holdout", "overlaps_validation")


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of a workload in order of their ranks, and the origin of each interaction.

    ``origins`` is an Arrow table, ``None`` if there is one client, whom nothing limits. ``ahead``
    are the interactions whose logged time is later than their load time.
    """

    names: Sequence[str]
    origins: Any
    ahead: AbstractSet[str]

    @property
    def are_several(self) -> bool:
        """Whether the workload has more than one client."""
        return len(self.names) > 1


class ClientRows:
    """The placed rows with their clients, by number; a client's name is its rank, 0 the first."""

    def __init__(self, placed: PlacedRows, clients: Clients, settled: SettledSides) -> None:
        ids = placed.judged.ids
        origins = clients.origins.take(
            compute.index_in(ids, value_set=clients.origins.column("interaction_id").cast(ids.type))
        )
        ranks = compute.index_in(origins.column("client_id"), value_set=pa.array(clients.names))
        members = placed.members
        self._names = members.names
        self.ranks: list[int] = ranks.to_pylist()
        self.requests: list[int] = members.requests.tolist()
        loaded_us = compute.fill_null(origins.column("loaded_us"), NEVER).to_numpy()
        _, since_of_names = settled.of(members.names)
        since = since_of_names[members.requests]
        self.was_settled: list[bool] = (
            (since != NEVER) & (loaded_us != NEVER) & (loaded_us <= since)
        ).tolist()
        """Whether a snapshot frozen after the row was loaded settled its request."""
        self._bounds: list[int] = members.ties.bounds.tolist()
        self._ties: list[int] = members.ties.codes.tolist()
        self._clusters: list[int] = (placed.relations.clusters + len(members.names)).tolist()
        self.tool_names = placed.judged.tool_names()

    def ties(self, row: int) -> set[int]:
        """Return what ties a row to others."""
        return {*self._ties[self._bounds[row] : self._bounds[row + 1]], self._clusters[row]}

    def names(self, requests: Sequence[int]) -> list[str]:
        """Return the ids of requests."""
        return self._names.take(np.array(requests, np.int64)).to_pylist()


def read(con: Connection, workload_id: str, first: Sequence[str] = ()) -> Clients:
    """Read the clients of the staged interactions in order of their ranks; record the new ones."""
    warehouse.append(con, "curated/clients", workload_id=workload_id, established=ALWAYS)
    order = warehouse.texts(con, _ORDER, workload_id=workload_id, first=[*first])
    ahead = warehouse.texts(con, "select interaction_id from staging.interactions where is_ahead")
    origins = con.sql(_ORIGINS).to_arrow_table() if len(order) > 1 else None
    return Clients(order, origins, frozenset(ahead))


_ORDER = """
    with parties as (
        select coalesce(party_id, client_id) as client_id, min(loaded_at) as since, count(*) as n
        from staging.interactions
        group by 1
    )

    select parties.client_id
    from parties
    left join curated.clients as known
        on known.client_id = parties.client_id and known.workload_id = $workload_id
    order by
        coalesce(nullif(list_position($first::varchar[], parties.client_id), 0), 1e9) asc,
        known.first_loaded_at asc nulls last,
        parties.since asc nulls last,
        parties.n desc,
        parties.client_id asc
"""

_ORIGINS = """
    select
        interaction_id,
        coalesce(party_id, client_id) as client_id,
        epoch_us(loaded_at) as loaded_us
    from staging.interactions
"""


def cap_tested(rows: ClientRows, placed: PlacedRows, shares: ClientShares) -> PlacedRows:
    """Leave out later clients' holdout and validation rows over their share."""
    over: set[int] = set()
    for side in TESTED:
        over |= _over(rows, _standing(placed, side), shares.holdout)
    return leave_out(rows, placed, over, "over_client_holdout")


def cap_trained(rows: ClientRows, placed: PlacedRows, shares: ClientShares) -> PlacedRows:
    """Leave out later clients' training rows over their share."""
    trained = [row for row in _standing(placed, "train") if placed.objections[row] is None]
    return placed.with_objections(_over(rows, trained, shares.train), "over_client_train")


def displacing(
    rows: ClientRows,
    placed: PlacedRows,
    cleaned: PlacedRows,
    *,
    split_by: SplitBy,
    overlap: Overlap,
    most: float,
) -> set[int]:
    """Return later clients' held-out rows that displace too many earlier training rows.

    Args:
        rows: The rows with their clients.
        placed: The rows before decontamination.
        cleaned: The rows after decontamination.
        split_by: Shared tools displace a row only if it is ``tools``.
        overlap: The decontamination settings.
        most: The share of a client's training requests that may be displaced.
    """
    tested = sorted(
        row for side in TESTED for row in _standing(placed, side) if placed.objections[row] is None
    )
    ids = placed.judged.ids.take(np.array(tested, np.int64)).to_pylist()
    held_out = dict(zip(ids, tested, strict=True))
    holders = _holders(rows, tested, by_tools=split_by == "tools")
    highest = {name: min(rows.ranks[row] for row in held) for name, held in holders.items()}
    trained: dict[int, list[int]] = defaultdict(list)
    for row in _standing(placed, "train"):
        trained[rows.ranks[row]].append(row)
    displacing_rows: set[int] = set()
    for rank, of_client in trained.items():
        displaced, names, overlapping = set[int](), set[int | str](), list[int]()
        for row in of_client:
            shared = (rows.ties(row) | _tools(rows, row)) & holders.keys()
            if shared and min(highest[name] for name in shared) > rank:
                names.update(shared)
                displaced.add(rows.requests[row])
            named = held_out.get(cleaned.marks.get(row, "").partition(",")[0])
            is_later = named is not None and rows.ranks[named] > rank
            if cleaned.objections[row] in OVERLAPS and is_later:
                overlapping.append(row)
                displaced.add(rows.requests[row])
        if len(displaced) > most * len({rows.requests[row] for row in of_client}):
            displacing_rows |= {row for name in names for row in holders[name]}
            later = [row for row in tested if rows.ranks[row] > rank]
            displacing_rows |= _overlapped(placed, later, overlapping, overlap)
    return displacing_rows


def leave_out(
    rows: ClientRows, placed: PlacedRows, left: AbstractSet[int], objection: str
) -> PlacedRows:
    """Object to the rows ``left``, and redo the ``near_`` objections without them."""
    if not left:
        return placed
    after = placed.with_objections(left, objection)
    ties: dict[int, set[int]] = defaultdict(set)
    for row, request in enumerate(rows.requests):
        ties[request] |= rows.ties(row)
    strictest: dict[int, int] = {}
    sides: list[int] = placed.placements.sides.tolist()
    active = [row for row, raised in enumerate(after.objections) if _is_active(raised)]
    for row in active:
        for tie in ties[rows.requests[row]]:
            strictest[tie] = max(sides[row], strictest.get(tie, 0))
    objections = [*after.objections]
    for row in active:
        strict = max(strictest[tie] for tie in ties[rows.requests[row]])
        objections[row] = near_objection(strict) if strict > sides[row] else None
    return replace(after, objections=objections)


def _over(rows: ClientRows, standing: Iterable[int], share: float) -> set[int]:
    """Return the later clients' new rows beyond their share, chosen by a hash of their ids."""
    if share == 1:
        return set()
    requests: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in standing:
        requests[rows.ranks[row]][rows.requests[row]].append(row)
    total = sum(len(of_client) for of_client in requests.values())
    over: set[int] = set()
    for rank, of_client in requests.items():
        others = total - len(of_client)
        room = max(ALWAYS, int(share / (1 - share) * others))
        if rank == 0 or len(of_client) <= room:
            continue
        new = [
            request
            for request, asking in of_client.items()
            if not any(rows.was_settled[row] for row in asking)
        ]
        names = dict(zip(new, rows.names(new), strict=True))
        new.sort(key=lambda request: split.side_by_hash(f"client {names[request]}"))
        for request in new[max(0, room - (len(of_client) - len(new))) :]:
            over |= {*of_client[request]}
    return over


def _overlapped(
    placed: PlacedRows, tested: Sequence[int], displaced: Sequence[int], overlap: Overlap
) -> set[int]:
    """Return the tested rows that overlap with a displaced text."""
    if not displaced:
        return set()
    without_guards = overlap.model_copy(update={"guards": ()})
    return {
        *decontamination.decontaminate(
            placed.asked, np.array(tested), np.array(displaced), without_guards
        )
    }


def _holders(
    rows: ClientRows, tested: Iterable[int], *, by_tools: bool
) -> dict[int | str, list[int]]:
    holders: dict[int | str, list[int]] = defaultdict(list)
    for row in tested:
        for name in rows.ties(row) | (_tools(rows, row) if by_tools else set()):
            holders[name].append(row)
    return holders


def _tools(rows: ClientRows, row: int) -> set[str]:
    return {f"offers {name}" for name in rows.tool_names[row]}


def _is_active(objection: str | None) -> bool:
    """Return whether a row has no objection but a ``near_`` one."""
    return (objection or NEAR).startswith(NEAR)


def _standing(placed: PlacedRows, side: Side) -> list[int]:
    """Return the rows on a side without an objection but a ``near_`` one."""
    rows = np.flatnonzero(placed.placements.sides == SIDES.index(side)).tolist()
    return [row for row in rows if _is_active(placed.objections[row])]
