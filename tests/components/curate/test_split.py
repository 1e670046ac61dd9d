import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate import split
from components.curate.settings import SplitBy
from components.curate.split import Side
from components.schema import Answer, Call

names = st.lists(st.text(min_size=1), min_size=1, max_size=6)
shares = st.floats(0.01, 0.99)
draws = st.floats(0, 1, exclude_max=True)


@given(names, st.data())
def test_the_group_of_tools_depends_on_neither_order_nor_question_nor_user(
    names: list[str], data: st.DataObject
):
    shuffled = data.draw(st.permutations(names))
    group = split.group("tools", names, "one", "ann")
    assert group == split.group("tools", shuffled, "two", None)


@pytest.mark.parametrize("split_by", ["tools", "user"])
@given(opening=st.text(), tools=names)
def test_requests_without_tools_and_user_are_grouped_by_conversation(
    split_by: SplitBy, opening: str, tools: list[str]
):
    expected = split.group("conversation", tools, opening, "ann")
    assert split.group(split_by, [], opening, None) == expected


def test_a_user_is_one_group_for_any_request():
    assert split.group("user", ["a"], "one", "ann") == split.group("user", [], "two", "ann")
    assert split.group("user", [], "one", "ann") != split.group("user", [], "one", "bob")


@given(draws, shares, shares, st.floats(0, 0.5))
def test_a_larger_share_never_takes_a_draw_out_of_the_holdout(
    draw: float, share: float, other_share: float, validation: float
):
    small, large = sorted((share, other_share))
    if split.side(draw, small, validation) == "holdout":
        assert split.side(draw, large, validation) == "holdout"


def test_a_later_release_draws_rows_and_groups_as_this_one():
    """Else a home that is curated anew, or one beside it, would hold out other rows."""
    drawn = split.in_sequence(split.SEQUENCE, 0, 3).tolist()
    assert drawn == pytest.approx([0.879887, 0.497921, 0.115955], abs=1e-6)
    assert (split.tools(["b", "a"]), split.user("u")) == ("8133f19a689d737c", "7571e60ac1ee1961")


def test_each_side_gets_its_share_of_many_groups():
    sides = [split.side(split.side_by_hash(f"group {n}"), 0.2, 0.1) for n in range(10_000)]
    assert 1_900 < sides.count("holdout") < 2_100
    assert 900 < sides.count("validation") < 1_100


@given(st.text(), st.integers(0, 10_000), st.integers(1, 400), st.floats(0.05, 0.5))
def test_any_stretch_of_a_stratum_has_nearly_its_share(
    stratum: str, start: int, length: int, share: float
):
    stretch = split.in_sequence(stratum, start, length).tolist()
    sides: list[Side] = [split.side(draw, share, 0.1) for draw in stretch]
    assert abs(sides.count("holdout") - length * share) < 4
    assert abs(sides.count("validation") - length * 0.1) < 4


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        pytest.param(Answer("book_flight"), "book_flight", id="a class"),
        pytest.param(Answer(" book\nflight "), "book flight", id="white space does not matter"),
        pytest.param(Answer("I have booked the flight that you asked for."), "text", id="prose"),
        pytest.param(
            Answer("", (Call("b", {}), Call("a", {}), Call("b", {}))), "a + b", id="calls"
        ),
    ],
)
def test_the_label_is_shared_by_similar_answers(answer: Answer, label: str):
    assert split.label(answer) == label
