"""Requests are learned with shuffled tools, some with another request's tool."""

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
        [{"role": "user", "content": "Do."}], [tool(name) for name in offered], (), "", 1
    )


def names(varied: ToolRequest) -> list[str]:
    return [augmentation.tool_name(tool) for tool in varied.tools]


def wider(varied: Sequence[ToolRequest], logged: Sequence[ToolRequest]) -> int:
    return sum(len(new.tools) > len(old.tools) for new, old in zip(varied, logged, strict=True))


@given(REQUESTS, st.floats(0, 1), st.integers(0, 3))
def test_each_request_keeps_its_tools_and_gets_at_most_one_of_another_request(
    offered: list[list[str]], share: float, seed: int
):
    logged = [request(*tools) for tools in offered]
    varied = augmentation.vary_offers(logged, share, seed)
    assert varied == augmentation.vary_offers(logged, share, seed)
    anywhere = {name for tools in offered for name in tools}
    for before, after in zip(offered, map(names, varied), strict=True):
        assert len(after) == len(set(after)) <= len(before) + 1
        assert set(before) <= set(after) <= anywhere
        assert bool(after) == bool(before), "a request without tools stays one"


def test_the_share_is_that_of_requests_with_one_more_tool():
    logged = [request(NAMES[number % 4]) for number in range(400)]
    assert wider(augmentation.vary_offers(logged, 0.0, seed=0), logged) == 0
    assert 70 < wider(augmentation.vary_offers(logged, 0.25, seed=0), logged) < 130
    assert wider(augmentation.vary_offers(logged, 1.0, seed=0), logged) == 400


def test_tools_are_shuffled_uniformly():
    varied = augmentation.vary_offers([request("add", "cut", "dig")] * 600, 0.0, seed=0)
    places = Counter(names(request).index("add") for request in varied)
    assert all(160 < places[place] < 240 for place in range(3))


def test_no_tool_is_added_if_no_request_offers_another():
    varied = augmentation.vary_offers([request("add")] * 2, 1.0, seed=0)
    assert [names(kept) for kept in varied] == [["add"]] * 2
