"""A row keeps its side permanently, and no training row is tied to a tested row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from components.curate.split import SIDES, SettledSides, Shares, Side
from tests.support import placing
from tests.support.cases import cases
from tests.support.placing import Placed, Row

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS, GROUPS = 24, 10


def member(row: int, group: int, *more: str, label: str = "a", cluster: str | None = None) -> Row:
    return Row(
        (f"row {row}", f"group {group}", *more), label, START + timedelta(hours=row), cluster
    )


@dataclass(frozen=True)
class Turn:
    """Changes before a snapshot: rows, near-duplicates, objections, shares."""

    arriving: frozenset[int]
    near: tuple[tuple[int, int], ...]
    objected: frozenset[int]
    shares: tuple[float, float]
    is_frozen: bool


rows = st.integers(0, ROWS - 1)
turns = st.builds(
    Turn,
    arriving=st.frozensets(rows, max_size=10),
    near=st.lists(st.tuples(rows, rows), max_size=3).map(tuple),
    objected=st.frozensets(rows, max_size=3),
    shares=st.tuples(st.floats(0.05, 0.6), st.floats(0, 0.3)),
    is_frozen=st.booleans(),
)
traffic = st.lists(
    st.tuples(
        st.integers(0, GROUPS - 1),
        st.none() | st.integers(0, 3),
        st.sampled_from("abc"),
    ),
    min_size=ROWS,
    max_size=ROWS,
)


@dataclass
class World:
    """The traffic so far, its clusters, which only merge, and the sides settled by snapshots."""

    traffic: Sequence[tuple[int, int | None, str]]
    arrived: set[int] = field(default_factory=set[int])
    near: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    sides: dict[str, Side] = field(default_factory=dict[str, Side])
    draws: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def members(self, objected: frozenset[int]) -> list[Row]:
        members: list[Row] = []
        for row in sorted(self.arrived - objected):
            group, conversation, label = self.traffic[row]
            more = [] if conversation is None else [f"conversation {conversation}"]
            row_member = member(row, group, *more, label=label, cluster=self.cluster(row))
            members.append(
                replace(row_member, ties=(f"request {row * 2 // 3}", *row_member.ties[1:]))
            )
        return members

    def cluster(self, row: int) -> str | None:
        """Name the cluster by its current first member: the name changes as it grows."""
        together, before = {row}, set[int]()
        while together != before:
            before = set(together)
            for pair in self.near:
                if together & set(pair):
                    together |= set(pair) & self.arrived
        return f"{min(together)}" if len(together) > 1 else None

    def settled(self) -> SettledSides:
        return placing.settled(self.sides, sum(map(len, self.draws.values())))

    def freeze(self, members: Sequence[Row], standings: Sequence[Placed]) -> None:
        """Settle every unsettled tie on its strictest side."""
        fresh: dict[str, Side] = {}
        for frozen_member, standing in zip(members, standings, strict=True):
            for tie in frozen_member.ties:
                known = fresh.get(tie, standing.side)
                is_stricter = SIDES.index(standing.side) > SIDES.index(known)
                fresh[tie] = standing.side if is_stricter else known
            if standing.stratum is not None and standing.draw_id is not None:
                self.draws.setdefault(standing.stratum, set()).add(standing.draw_id)
        self.sides = fresh | self.sides


@given(traffic, st.lists(turns, min_size=2, max_size=6), st.sampled_from(["tools", "user"]))
@cases(150)
def test_no_row_ever_changes_side(
    traffic: list[tuple[int, int | None, str]], grown: list[Turn], split_by: str
):
    world, first = World(traffic), dict[str, Side]()
    for turn in grown:
        world.arrived |= turn.arriving
        world.near += turn.near
        members = world.members(turn.objected)
        shares = Shares("tools" if split_by == "tools" else "user", *turn.shares)
        standings = placing.place(members, world.settled(), shares)
        assert_apart(members, standings)
        for placed_member, standing in zip(members, standings, strict=True):
            assert first.get(placed_member.ties[0], standing.side) == standing.side
        one_side_each = {(m.ties[0], s.side) for m, s in zip(members, standings, strict=True)}
        assert len(one_side_each) == len({request for request, _ in one_side_each})
        if turn.is_frozen:
            world.freeze(members, standings)
            first |= {m.ties[0]: s.side for m, s in zip(members, standings, strict=True)}


def assert_apart(members: Sequence[Row], standings: Sequence[Placed]) -> None:
    """No training row is tied to a holdout or validation row."""
    ties: dict[str, set[str]] = {}
    for row in members:
        near = set() if row.cluster is None else {f"cluster {row.cluster}"}
        ties[row.ties[0]] = ties.get(row.ties[0], set()) | set(row.ties) | near
    held: dict[str, set[Side]] = {}
    for row, standing in zip(members, standings, strict=True):
        for tie in ties[row.ties[0]]:
            held.setdefault(tie, set()).add(standing.side)
    for row, standing in zip(members, standings, strict=True):
        strictest = max((s for tie in ties[row.ties[0]] for s in held[tie]), key=SIDES.index)
        objection = None if strictest == standing.side else f"near_{strictest}"
        assert standing.objection == objection


@given(traffic, turns, st.data())
@cases(60)
def test_neither_the_order_of_rows_nor_the_names_of_clusters_matter(
    traffic: list[tuple[int, int | None, str]], turn: Turn, data: st.DataObject
):
    world = World(traffic, arrived=set(turn.arriving), near=list(turn.near))
    members = world.members(frozenset())
    shares = Shares("conversation", *turn.shares)
    expected = placing.place(members, placing.settled(), shares)
    order = data.draw(st.permutations(range(len(members))))
    renamed = [
        replace(members[n], cluster=members[n].cluster and f"x{members[n].cluster}") for n in order
    ]
    placements = placing.place(renamed, placing.settled(), shares)
    assert placements == [expected[n] for n in order]


def sides(members: Sequence[Row], settled: Mapping[str, Side], share: float = 0.5) -> list[Side]:
    shares = Shares("user", share, 0.0)
    return [
        placement.side for placement in placing.place(members, placing.settled(settled), shares)
    ]


def test_a_new_row_follows_its_settled_group_though_its_cluster_is_held_out():
    members = [member(1, 1, cluster="c"), member(2, 2, cluster="c")]
    settled: dict[str, Side] = {"group 1": "train", "row 2": "holdout"}
    assert sides(members, settled) == ["train", "holdout"]
    placed = placing.place(members, placing.settled(settled), Shares("user", 0.5, 0.0))
    assert [placement.objection for placement in placed] == ["near_holdout", None]


def test_new_rows_follow_their_near_rows_to_the_strictest_side():
    chain = [member(1, 1, cluster="c"), member(2, 2, cluster="c"), member(3, 2, cluster="d")]
    chain.append(member(4, 4, cluster="d"))
    assert sides(chain, {"row 4": "holdout"}) == ["holdout"] * 4
    assert sides(chain, {"row 4": "validation"}) == ["validation"] * 4
    assert sides(chain, {"row 4": "train"}, share=0.99) == ["train"] * 4
    assert sides(chain, {"row 4": "train", "row 1": "holdout"})[1:3] == ["holdout"] * 2


def test_a_stratum_has_its_share_though_it_grows_by_one_row_a_night():
    settled = dict[str, Side]()
    for night in range(50):
        shares, before = Shares("conversation", 0.2, 0.1), placing.settled(settled, night)
        (placed,) = placing.place([member(night, night)], before, shares)
        settled |= {f"row {night}": placed.side, f"group {night}": placed.side}
    counted = [settled[f"row {night}"] for night in range(50)]
    assert 9 <= counted.count("holdout") <= 11
    assert 4 <= counted.count("validation") <= 6


def test_each_label_and_each_month_of_it_has_its_share():
    members = [member(n, n, label="abcde"[n % 5]) for n in range(1000)]
    placed = placing.place(members, placing.settled(), Shares("conversation", 0.2, 0.0))
    held = [n for n, placement in enumerate(placed) if placement.side == "holdout"]
    for label in range(5):
        assert 38 <= sum(n % 5 == label for n in held) <= 42
    for month in range(5):
        assert 35 <= sum(n // 200 == month for n in held) <= 45


def test_tools_are_drawn_by_their_names_alone():
    few = [replace(member(1, 1), by_tools=True)]
    many = [replace(member(n, n, label=f"{n % 3}"), by_tools=True) for n in range(100)]
    shares = Shares("tools", 0.5, 0.0)
    alone = placing.place(few, placing.settled(), shares)
    assert alone[0] == placing.place(many, placing.settled(), shares)[1]


def test_neighbours_in_time_are_parted_no_more_often_than_by_chance():
    members = [member(n, n) for n in range(4000)]
    shares = Shares("conversation", 0.2, 0.1)
    placed = [at.side for at in placing.place(members, placing.settled(), shares)]
    held = [n for n, side in enumerate(placed[:-1]) if side == "holdout"]
    assert 0.65 < sum(placed[n + 1] == "train" for n in held) / len(held) < 0.75
