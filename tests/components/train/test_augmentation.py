"""Requests are learned with their tools in any order, and some with a tool of another request."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from components.train import augmentation
from components.train.augmentation import ToolRequest
from tests.support.training_rows import tool

NAMES = ("add", "cut", "dig", "fly")
REQUESTS = st.lists(st.lists(st.sampled_from(NAMES), unique=True), max_size=20)


def request(*offered: str) -> ToolRequest:
    return ToolRequest(
        [{"role": "user", "content": "Do."}], [tool(one) for one in offered], (), "", 1
    )


def names(varied: ToolRequest) -> list[str]:
    return [augmentation.tool_name(one) for one in varied.tools]


def wider(varied: Sequence[ToolRequest], logged: Sequence[ToolRequest]) -> int:
    return sum(len(new.tools) > len(old.tools) for new, old in zip(varied, logged, strict=True))


@given(REQUESTS, st.floats(0, 1), st.integers(0, 3))
def test_each_request_keeps_its_tools_and_gets_at_most_one_that_others_offer(
    offered: list[list[str]], share: float, seed: int
):
    logged = [request(*one) for one in offered]
    varied = augmentation.vary_offers(logged, share, seed)
    assert varied == augmentation.vary_offers(logged, share, seed)
    anywhere = {one for tools in offered for one in tools}
    for before, after in zip(offered, map(names, varied), strict=True):
        assert len(after) == len(set(after)) <= len(before) + 1
        assert set(before) <= set(after) <= anywhere
        assert bool(after) == bool(before), "a request without tools stays one"


def test_the_share_says_how_many_get_one_more():
    logged = [request(NAMES[number % 4]) for number in range(400)]
    assert wider(augmentation.vary_offers(logged, 0.0, seed=0), logged) == 0
    assert 70 < wider(augmentation.vary_offers(logged, 0.25, seed=0), logged) < 130
    assert wider(augmentation.vary_offers(logged, 1.0, seed=0), logged) == 400


def test_a_tool_stands_in_every_place_as_often_as_in_any_other():
    varied = augmentation.vary_offers([request("add", "cut", "dig")] * 600, 0.0, seed=0)
    places = Counter(names(one).index("add") for one in varied)
    assert all(160 < places[place] < 240 for place in range(3))


def test_where_nobody_offers_another_tool_none_is_added():
    assert [names(one) for one in augmentation.vary_offers([request("add")] * 2, 1.0, seed=0)] == [
        ["add"]
    ] * 2
