from hypothesis import given
from hypothesis import strategies as st

from components.curate import split
from components.curate.split import Side

names = st.lists(st.text(min_size=1), min_size=1, max_size=6)
shares = st.floats(0.01, 0.99)


@given(names, st.data())
def test_the_group_of_tools_depends_on_neither_order_nor_question(
    names: list[str], data: st.DataObject
):
    shuffled = data.draw(st.permutations(names))
    assert split.group("tools", names, "one") == split.group("tools", shuffled, "two")


@given(st.text(), names)
def test_requests_without_tools_go_by_conversation(opening: str, names: list[str]):
    assert split.group("tools", [], opening) == split.group("conversation", names, opening)


@given(st.text(), shares, shares)
def test_a_larger_share_never_takes_a_group_out_of_the_holdout(group: str, one: float, two: float):
    small, large = sorted((one, two))
    if split.side(group, small) == "holdout":
        assert split.side(group, large) == "holdout"


@given(st.lists(st.tuples(st.text(), shares), min_size=1))
def test_a_settled_group_stays_whatever_the_share_becomes(draws: list[tuple[str, float]]):
    settled: dict[str, Side] = {}
    first: dict[str, Side] = {}
    for group, share in draws:
        settled[group] = split.settle(group, share, settled)
        assert settled[group] == first.setdefault(group, settled[group])


def test_the_share_is_kept_over_many_groups():
    sides = [split.side(f"group {n}", 0.2) for n in range(10_000)]
    assert 1_900 < sides.count("holdout") < 2_100
