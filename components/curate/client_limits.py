"""Keep each client from crowding out the earlier clients of a workload.

A client's rank is its position in the order of first load. The first client is unlimited, so a
workload of one client is unaffected. A later client's new requests count only up to its share of a
side; requests in a snapshot stay. Held-out rows of a later client may displace only a share of an
earlier client's training rows: near-duplicates, overlaps, and rows that offer their tools. Clients
under ``together`` in the workload's file count as one.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from components.curate import decontamination, split
from components.curate.decontamination import UserTexts
from components.curate.row_judgement import RowJudgement
from components.curate.rules.screen import Flag
from components.curate.settings import Overlap, SplitBy
from components.curate.split import SIDES, SettledSides
from components.schema import ALWAYS, ClientShares
from components.store import warehouse
from components.store.warehouse import Connection

TESTED = ("holdout", "validation")
OVERLAPS = ("overlaps_holdout", "overlaps_validation")
AHEAD = "future_timestamp"


@dataclass(frozen=True, slots=True)
class ClientOrigin:
    """An interaction's client and load time."""

    client_id: str
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of a workload: their ranks, and the origin of each interaction.

    ``origins`` is empty if there is one client, whom nothing limits. ``ahead`` are the
    interactions whose logged time is later than their load time.
    """

    ranks: Mapping[str, int]
    origins: Mapping[str, ClientOrigin]
    ahead: AbstractSet[str]

    @property
    def are_several(self) -> bool:
        """Whether the workload has more than one client."""
        return len(self.ranks) > 1

    def of(self, judged: RowJudgement) -> str:
        """Return the client of an interaction."""
        return self.origins[judged.interaction_id].client_id

    def rank(self, judged: RowJudgement) -> int:
        """Return the rank of an interaction's client; 0 is the first."""
        return self.ranks[self.of(judged)]


def read(con: Connection, workload_id: str) -> Clients:
    """Read the clients of the staged interactions, and record the new ones."""
    warehouse.append(con, "curated/clients", workload_id=workload_id)
    known = warehouse.texts(
        con,
        "select client_id from curated.clients where workload_id = $workload_id"
        " order by first_loaded_at asc nulls last, client_id asc",
        workload_id=workload_id,
    )
    parties = "select distinct coalesce(party_id, client_id) from staging.interactions"
    present = set(warehouse.texts(con, parties))
    ahead = warehouse.texts(con, "select interaction_id from staging.interactions where is_ahead")
    order = [client_id for client_id in known if client_id in present]
    rows = con.execute(_ORIGINS).fetchall() if len(order) > 1 else []
    origins = {name: ClientOrigin(*origin) for name, *origin in rows}
    ranks = {client_id: rank for rank, client_id in enumerate(order)}
    return Clients(ranks, origins, frozenset(ahead))


_ORIGINS = """
    select interaction_id, coalesce(party_id, client_id), loaded_at
    from staging.interactions
"""


def flag_ahead(judgements: Iterable[RowJudgement], clients: Clients) -> list[RowJudgement]:
    """Flag the interactions logged later than loaded; they count as of the load time."""
    mark = "the log says a time after it was loaded; it counts as of when it was loaded"
    flag = Flag(AHEAD, 1.0, mark)
    return [
        replace(judged, screened=replace(judged.screened, flags=(*judged.screened.flags, flag)))
        if judged.interaction_id in clients.ahead
        else judged
        for judged in judgements
    ]


def cap_tested(
    judgements: Sequence[RowJudgement],
    clients: Clients,
    settled: SettledSides,
    shares: ClientShares,
) -> list[RowJudgement]:
    """Leave out later clients' holdout and validation rows over their share."""
    over: set[str] = set()
    for side in TESTED:
        placed = [judged for judged in judgements if _stands_on(judged, side)]
        over |= _over(placed, clients, settled, shares.holdout)
    return leave_out(judgements, over, "over_client_holdout")


def cap_trained(
    judgements: Sequence[RowJudgement],
    clients: Clients,
    settled: SettledSides,
    shares: ClientShares,
) -> list[RowJudgement]:
    """Leave out later clients' training rows over their share."""
    placed = [
        judged for judged in judgements if judged.objection is None and _stands_on(judged, "train")
    ]
    return _object(judgements, _over(placed, clients, settled, shares.train), "over_client_train")


def _object(
    judgements: Iterable[RowJudgement], ids: AbstractSet[str], objection: str
) -> list[RowJudgement]:
    return [
        replace(judged, objection=objection) if judged.interaction_id in ids else judged
        for judged in judgements
    ]


def displacing(
    placed: Sequence[RowJudgement],
    cleaned: Sequence[RowJudgement],
    clients: Clients,
    *,
    split_by: SplitBy,
    overlap: Overlap,
    most: float,
) -> set[str]:
    """Return ids of later clients' held-out rows that displace too many earlier training rows.

    Args:
        placed: The judgements before decontamination.
        cleaned: The judgements after decontamination.
        clients: The clients of the workload.
        split_by: Shared tools displace a row only if it is ``tools``.
        overlap: The decontamination settings.
        most: The share of a client's training requests that may be displaced.
    """
    tested = [
        judged
        for judged in placed
        if judged.objection is None and any(_stands_on(judged, side) for side in TESTED)
    ]
    held_out = {judged.interaction_id: judged for judged in tested}
    holders = _holders(tested, by_tools=split_by == "tools")
    highest = {name: min(map(clients.rank, rows)) for name, rows in holders.items()}
    trained: dict[str, list[tuple[RowJudgement, RowJudgement]]] = defaultdict(list)
    for before, after in zip(placed, cleaned, strict=True):
        if _stands_on(before, "train"):
            trained[clients.of(before)].append((before, after))
    displacing_ids: set[str] = set()
    for client_id, pairs in trained.items():
        rank = clients.ranks[client_id]
        displaced, names, overlapping = set[str](), set[str](), dict[str, str]()
        for before, after in pairs:
            shared = (_ties(before) | _tools(before)) & holders.keys()
            if shared and min(highest[name] for name in shared) > rank:
                names.update(shared)
                displaced.add(_request(before))
            if after.objection in OVERLAPS and _names_later(after, held_out, clients, rank):
                overlapping[before.interaction_id] = _own_text(before)
                displaced.add(_request(before))
        if len(displaced) > most * len({_request(before) for before, _ in pairs}):
            displacing_ids |= {judged.interaction_id for name in names for judged in holders[name]}
            displacing_ids |= _overlapped(tested, overlapping, clients, rank, overlap)
    return displacing_ids


def leave_out(
    judgements: Sequence[RowJudgement], ids: AbstractSet[str], objection: str
) -> list[RowJudgement]:
    """Object to the rows ``ids``, and redo the ``near_`` objections without them."""
    left = _object(judgements, ids, objection)
    if not ids:
        return left
    ties: dict[str, set[str]] = defaultdict(set)
    for judged in left:
        if judged.member is not None:
            ties[_request(judged)] |= _ties(judged)
    strictest: dict[str, int] = {}
    for judged in left:
        if _is_active(judged) and judged.placement is not None:
            side = SIDES.index(judged.placement.side)
            for tie in ties[_request(judged)]:
                strictest[tie] = max(side, strictest.get(tie, 0))
    return [_with_nearness(judged, ties, strictest) for judged in left]


def _with_nearness(
    judged: RowJudgement, ties: Mapping[str, AbstractSet[str]], strictest: Mapping[str, int]
) -> RowJudgement:
    if not _is_active(judged) or judged.placement is None:
        return judged
    side = SIDES.index(judged.placement.side)
    strict = max(strictest[tie] for tie in ties[_request(judged)])
    return replace(judged, objection=f"near_{SIDES[strict]}" if strict > side else None)


def _over(
    placed: Sequence[RowJudgement], clients: Clients, known: SettledSides, share: float
) -> set[str]:
    """Return the later clients' new rows beyond their share, chosen by a hash of their ids."""
    if share == 1:
        return set()
    requests: dict[str, dict[str, list[RowJudgement]]] = defaultdict(lambda: defaultdict(list))
    for judged in placed:
        requests[clients.of(judged)][_request(judged)].append(judged)
    total = sum(len(of_client) for of_client in requests.values())
    over: set[str] = set()
    for client_id, of_client in requests.items():
        others = total - len(of_client)
        room = max(ALWAYS, int(share / (1 - share) * others))
        if clients.ranks[client_id] == 0 or len(of_client) <= room:
            continue
        new = [
            name
            for name, rows in of_client.items()
            if not any(_was_settled(row, clients, known) for row in rows)
        ]
        new.sort(key=lambda name: split.side_by_hash(f"client {name}"))
        for name in new[max(0, room - (len(of_client) - len(new))) :]:
            over |= {row.interaction_id for row in of_client[name]}
    return over


def _was_settled(judged: RowJudgement, clients: Clients, settled: SettledSides) -> bool:
    """Return whether a snapshot frozen after the row was loaded settled its request."""
    since = settled.since.get(_request(judged))
    loaded_at = clients.origins[judged.interaction_id].loaded_at
    return since is not None and loaded_at is not None and loaded_at <= since


def _names_later(
    judged: RowJudgement, held_out: Mapping[str, RowJudgement], clients: Clients, rank: int
) -> bool:
    """Return whether the mark names a later client's held-out row."""
    named = held_out.get((judged.mark or "").partition(",")[0])
    return named is not None and clients.rank(named) > rank


def _overlapped(
    tested: Sequence[RowJudgement],
    displaced: Mapping[str, str],
    clients: Clients,
    rank: int,
    overlap: Overlap,
) -> set[str]:
    """Return the later clients' rows that overlap with a displaced text."""
    if not displaced:
        return set()
    rows = {
        judged.interaction_id: UserTexts(_own_text(judged), "")
        for judged in tested
        if clients.rank(judged) > rank
    }
    without_guards = overlap.model_copy(update={"guards": ()})
    return set(decontamination.decontaminate(rows, displaced, without_guards))


def _holders(tested: Iterable[RowJudgement], *, by_tools: bool) -> dict[str, list[RowJudgement]]:
    holders: dict[str, list[RowJudgement]] = defaultdict(list)
    for judged in tested:
        for name in _ties(judged) | (_tools(judged) if by_tools else set()):
            holders[name].append(judged)
    return holders


def _tools(judged: RowJudgement) -> set[str]:
    return {f"offers {name}" for name in judged.tool_names}


def _ties(judged: RowJudgement) -> set[str]:
    member = judged.member
    if member is None:
        return set()
    cluster = () if member.cluster_id is None else (f"cluster {member.cluster_id}",)
    return {*member.ties, *cluster}


def _own_text(judged: RowJudgement) -> str:
    return "" if judged.asked is None else judged.asked.own


def _request(judged: RowJudgement) -> str:
    assert judged.member is not None
    return judged.member.ties[0]


def _is_active(judged: RowJudgement) -> bool:
    """Return whether a placed row has no objection but a ``near_`` one."""
    return judged.placement is not None and (judged.objection or "near_").startswith("near_")


def _stands_on(judged: RowJudgement, side: str) -> bool:
    return _is_active(judged) and judged.placement is not None and judged.placement.side == side
