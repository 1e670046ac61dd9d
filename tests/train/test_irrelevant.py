"""Made requests offer tools that don't fit, and are answered as the application answers then."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.schema import Json
from components.train import irrelevant, offers
from components.train.offers import Request
from tests.train.rows import tool

NAMES = ("add", "cut", "dig", "fly")
REFUSALS = ("No.", "No.", "Never.")


def request(called: str | None, offered: Sequence[str], answer: str = "{}") -> Request:
    messages: list[dict[str, Json]] = [{"role": "user", "content": f"{called} of {offered}"}]
    calls = (called,) if called else ()
    return Request(messages, [tool(name) for name in offered], calls, answer, 1)


def names(made: Request) -> set[str]:
    return {offers.name(tool) for tool in made.tools}


OFFERS = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


@st.composite
def call(draw: st.DrawFn) -> Request:
    offered = draw(OFFERS)
    return request(draw(st.sampled_from(offered)), offered)


VAIN = [request(None, ("add",), refusal) for refusal in REFUSALS]


@given(st.lists(call()), st.floats(0, 1), st.integers(0, 3))
def test_the_called_tool_is_never_offered_and_the_commonest_refusal_is_the_answer(
    calls: list[Request], share: float, seed: int
):
    logged = [*calls, *VAIN]
    called = {str(one.messages): one.called for one in calls}
    made = irrelevant.make(logged, share, seed)
    assert made == irrelevant.make(logged, share, seed)
    assert len(made) <= round(share * len(calls))
    for one in made:
        assert one.offers_in_vain
        assert not names(one) & set(called[str(one.messages)])
        assert one.answer == "No."


def test_a_request_with_one_tool_is_offered_that_of_another():
    calls = [request("add", ("add",)), request("cut", ("cut",))]
    made = irrelevant.make([*calls, *VAIN], 1.0, seed=0)
    assert {str(one.messages): names(one) for one in made} == {
        str(calls[0].messages): {"cut"},
        str(calls[1].messages): {"add"},
    }


def test_where_all_requests_offer_the_same_tool_none_is_made():
    assert irrelevant.make([request("add", ("add",)), *VAIN], 1.0, seed=0) == []


def test_logs_without_a_refusal_are_refused_and_say_what_to_set():
    calls = [request("add", ("add",)), request("cut", ("cut",))]
    with pytest.raises(ValueError, match="set irrelevant_share to 0, or log such requests"):
        irrelevant.make(calls, 1.0, seed=0)


def test_a_share_of_zero_makes_none_and_wants_no_refusal():
    assert irrelevant.make([request("add", ("add",))], 0.0, seed=0) == []
