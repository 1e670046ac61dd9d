"""Keep each client from crowding out the clients of a workload that came before it.

A client's rank is its place in the order in which clients were first loaded. The first is bounded
by nothing here, so a workload of one client is as if there were no clients. Of a later one, new
requests count only up to its share of a side; what a snapshot has had stays. Rows that are held out
for a later client may displace only a share of what an earlier one trains on: near-duplicates of
them, overlaps with them, and rows that offer their tools. Clients that the workload's file takes
together are one.
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
    """Who an interaction came from, and when; ``is_ahead`` if its log says a later time."""

    interaction_id: str
    client_id: str
    loaded_at: datetime | None
    is_ahead: bool


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of a workload: the rank of each, and where each interaction came from."""

    ranks: Mapping[str, int]
    origins: Mapping[str, ClientOrigin]

    @property
    def are_several(self) -> bool:
        """Whether there is anybody to crowd out."""
        return len(self.ranks) > 1

    def of(self, judged: RowJudgement) -> str:
        """Return the client that an interaction came from."""
        return self.origins[judged.interaction_id].client_id

    def rank(self, judged: RowJudgement) -> int:
        """Return the rank of that client; 0 is the first."""
        return self.ranks[self.of(judged)]


def read(con: Connection, workload_id: str) -> Clients:
    """Read who sent the interactions under curation, and note who is seen for the first time."""
    warehouse.append(con, "curated/clients", workload_id=workload_id)
    known = con.execute(
        "select client_id from curated.clients where workload_id = $workload_id"
        " order by first_loaded_at asc nulls last, client_id asc",
        {"workload_id": workload_id},
    ).fetchall()
    rows = con.execute(
        "select interaction_id, coalesce(party_id, client_id), loaded_at, coalesce(is_ahead, false)"
        " from staging.interactions"
    ).fetchall()
    origins = {row[0]: ClientOrigin(*row) for row in rows}
    present = {origin.client_id for origin in origins.values()}
    order = [client_id for (client_id,) in known if client_id in present]
    return Clients({client_id: rank for rank, client_id in enumerate(order)}, origins)


def flag_ahead(judgements: Iterable[RowJudgement], clients: Clients) -> list[RowJudgement]:
    """Flag the interactions whose log says a time after they were loaded; they count as of then."""
    mark = "the log says a time after it was loaded; it counts as of when it was loaded"
    flag = Flag(AHEAD, 1.0, mark)
    return [
        replace(judged, screened=replace(judged.screened, flags=(*judged.screened.flags, flag)))
        if clients.origins[judged.interaction_id].is_ahead
        else judged
        for judged in judgements
    ]


def cap_tested(
    judgements: Sequence[RowJudgement], clients: Clients, known: SettledSides, shares: ClientShares
) -> list[RowJudgement]:
    """Leave out what a later client has of the holdout or of the validation side over its share."""
    over: set[str] = set()
    for side in TESTED:
        placed = [judged for judged in judgements if _stands_on(judged, side)]
        over |= _over(placed, clients, known, shares.holdout)
    return leave_out(judgements, over, "over_client_holdout")


def cap_trained(
    judgements: Sequence[RowJudgement], clients: Clients, known: SettledSides, shares: ClientShares
) -> list[RowJudgement]:
    """Leave out what a later client has of the training side over its share."""
    placed = [judged for judged in judgements if _is_trained(judged)]
    over = _over(placed, clients, known, shares.train)
    return [
        replace(judged, objection="over_client_train") if judged.interaction_id in over else judged
        for judged in judgements
    ]


def displacing(
    stood: Sequence[RowJudgement],
    cleaned: Sequence[RowJudgement],
    clients: Clients,
    *,
    split_by: SplitBy,
    overlap: Overlap,
    most: float,
) -> set[str]:
    """Find the held-out rows of later clients that displace too much of an earlier one's training.

    Args:
        stood: The judgements before they were compared with what is held out.
        cleaned: The same after it.
        clients: Who sent them.
        split_by: What the holdout shows; only where it is tools do these displace a row.
        overlap: What is too much of a held-out text.
        most: The share of a client's requests to train on that may be displaced.
    """
    tested = [judged for judged in stood if judged.objection is None and _is_tested(judged)]
    held_out = {judged.interaction_id: judged for judged in tested}
    holders = _holders(tested, by_tools=split_by == "tools")
    highest = {name: min(map(clients.rank, rows)) for name, rows in holders.items()}
    trained: dict[str, list[tuple[RowJudgement, RowJudgement]]] = defaultdict(list)
    for before, after in zip(stood, cleaned, strict=True):
        if _stands_on(before, "train"):
            trained[clients.of(before)].append((before, after))
    found: set[str] = set()
    for client_id, pairs in trained.items():
        rank = clients.ranks[client_id]
        displaced, names, overlapping = set[str](), set[str](), dict[str, str]()
        for before, after in pairs:
            shared = [name for name in _held_in_common(before) if name in holders]
            if shared and min(highest[name] for name in shared) > rank:
                names.update(shared)
                displaced.add(_request(before))
            if after.objection in OVERLAPS and _names_later(after, held_out, clients, rank):
                overlapping[before.interaction_id] = before.asked
                displaced.add(_request(before))
        if len(displaced) > most * len({_request(before) for before, _ in pairs}):
            found |= {judged.interaction_id for name in names for judged in holders[name]}
            found |= _overlapped(tested, overlapping, clients, rank, overlap)
    return found


def leave_out(
    judgements: Sequence[RowJudgement], ids: AbstractSet[str], objection: str
) -> list[RowJudgement]:
    """Object to rows that keep their side, and to those that are still near to a stricter side."""
    left = [
        replace(judged, objection=objection) if judged.interaction_id in ids else judged
        for judged in judgements
    ]
    if not ids:
        return left
    ties: dict[str, set[str]] = defaultdict(set)
    for judged in left:
        if judged.member is not None:
            ties[_request(judged)] |= _ties(judged)
    strictest: dict[str, int] = {}
    for judged in left:
        if _is_active(judged) and judged.standing is not None:
            side = SIDES.index(judged.standing.side)
            for tie in ties[_request(judged)]:
                strictest[tie] = max(side, strictest.get(tie, 0))
    return [_with_nearness(judged, ties, strictest) for judged in left]


def _with_nearness(
    judged: RowJudgement, ties: Mapping[str, AbstractSet[str]], strictest: Mapping[str, int]
) -> RowJudgement:
    if not _is_active(judged) or judged.standing is None:
        return judged
    side = SIDES.index(judged.standing.side)
    strict = max(strictest[tie] for tie in ties[_request(judged)])
    return replace(judged, objection=f"near_{SIDES[strict]}" if strict > side else None)


def _over(
    placed: Sequence[RowJudgement], clients: Clients, known: SettledSides, share: float
) -> set[str]:
    """Find the new rows of later clients beyond their share; which ones is settled by their ids."""
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
        settled = {
            name
            for name, rows in of_client.items()
            if any(_was_settled(row, clients, known) for row in rows)
        }
        new = sorted(
            of_client.keys() - settled, key=lambda name: split.side_by_hash(f"client {name}")
        )
        for name in new[max(0, room - len(settled)) :]:
            over |= {row.interaction_id for row in of_client[name]}
    return over


def _was_settled(judged: RowJudgement, clients: Clients, known: SettledSides) -> bool:
    """Return whether a snapshot that was frozen after the row was loaded settled its request."""
    since = known.since.get(_request(judged))
    loaded_at = clients.origins[judged.interaction_id].loaded_at
    return since is not None and loaded_at is not None and loaded_at <= since


def _names_later(
    judged: RowJudgement, held_out: Mapping[str, RowJudgement], clients: Clients, rank: int
) -> bool:
    """Return whether the held-out row that a mark names is a later client's."""
    named = held_out.get((judged.mark or "").partition(",")[0])
    return named is not None and clients.rank(named) > rank


def _overlapped(
    tested: Sequence[RowJudgement],
    displaced: Mapping[str, str],
    clients: Clients,
    rank: int,
    overlap: Overlap,
) -> set[str]:
    """Find every row of later clients that overlaps with one of the displaced texts."""
    if not displaced:
        return set()
    rows = {
        judged.interaction_id: UserTexts(judged.asked, "")
        for judged in tested
        if clients.rank(judged) > rank
    }
    without_guards = overlap.model_copy(update={"guards": ()})
    return set(decontamination.decontaminate(rows, displaced, without_guards))


def _holders(tested: Iterable[RowJudgement], *, by_tools: bool) -> dict[str, list[RowJudgement]]:
    """List by each tie, and where tools are split by by each tool, the tested rows that have it."""
    holders: dict[str, list[RowJudgement]] = defaultdict(list)
    for judged in tested:
        for name in _ties(judged):
            holders[name].append(judged)
        for name in _tools(judged) if by_tools else ():
            holders[name].append(judged)
    return holders


def _held_in_common(judged: RowJudgement) -> set[str]:
    return _ties(judged) | _tools(judged)


def _tools(judged: RowJudgement) -> set[str]:
    return {f"offers {name}" for name in judged.tool_names}


def _ties(judged: RowJudgement) -> set[str]:
    member = judged.member
    if member is None:
        return set()
    cluster = () if member.cluster_id is None else (f"cluster {member.cluster_id}",)
    return {*member.ties, *cluster}


def _request(judged: RowJudgement) -> str:
    assert judged.member is not None
    return judged.member.ties[0]


def _is_active(judged: RowJudgement) -> bool:
    """Return whether nothing but its nearness to another side is held against a placed row."""
    return judged.standing is not None and (judged.objection or "near_").startswith("near_")


def _stands_on(judged: RowJudgement, side: str) -> bool:
    return _is_active(judged) and judged.standing is not None and judged.standing.side == side


def _is_tested(judged: RowJudgement) -> bool:
    return any(_stands_on(judged, side) for side in TESTED)


def _is_trained(judged: RowJudgement) -> bool:
    return judged.objection is None and _stands_on(judged, "train")
