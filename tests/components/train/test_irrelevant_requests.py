"""Made requests offer tools that don't fit, and have the application's refusal as answer."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.schema import Json
from components.train import augmentation
from components.train.augmentation import ToolRequest
from tests.support.training_rows import tool

NAMES = ("add", "cut", "dig", "fly")
REFUSALS = ("No.", "No.", "No.", "Never.")


def request(called: str | None, offered: Sequence[str], answer: str = "{}") -> ToolRequest:
    messages: list[dict[str, Json]] = [{"role": "user", "content": f"{called} of {offered}"}]
    calls = (called,) if called else ()
    return ToolRequest(messages, [tool(name) for name in offered], calls, answer, 1)


def names(made: ToolRequest) -> set[str]:
    return {augmentation.tool_name(tool) for tool in made.tools}


OFFERS = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


@st.composite
def call(draw: st.DrawFn) -> ToolRequest:
    offered = draw(OFFERS)
    return request(draw(st.sampled_from(offered)), offered)


VAIN = [request(None, ("add",), refusal) for refusal in REFUSALS]


@given(st.lists(call()), st.integers(0, 3))
def test_no_distractor_of_a_made_request_is_the_tool_that_was_called(
    calls: list[ToolRequest], seed: int
):
    called = {str(call.messages): call.called for call in calls}
    made, _ = augmentation.make_irrelevant([*calls, *VAIN], 1.0, seed)
    logged = [*calls, *VAIN]
    for varied in augmentation.vary_offers([*logged, *made], 1.0, seed)[len(logged) :]:
        assert not names(varied) & set(called[str(varied.messages)])


@given(st.lists(call()), st.floats(0, 1), st.integers(0, 3))
def test_the_called_tool_is_not_offered_and_the_commonest_refusal_is_the_answer(
    calls: list[ToolRequest], share: float, seed: int
):
    logged = [*calls, *VAIN]
    called = {str(call.messages): call.called for call in calls}
    made, objection = augmentation.make_irrelevant(logged, share, seed)
    assert (made, objection) == augmentation.make_irrelevant(logged, share, seed)
    assert len(made) <= round(share * len(calls))
    for repeated in made:
        assert repeated.offers_in_vain
        assert not names(repeated) & set(called[str(repeated.messages)])
        assert repeated.answer == "No."


def test_a_request_with_one_tool_gets_another_requests_tool():
    calls = [request("add", ("add",)), request("cut", ("cut",))]
    made, _ = augmentation.make_irrelevant([*calls, *VAIN], 1.0, seed=0)
    assert {str(repeated.messages): names(repeated) for repeated in made} == {
        str(calls[0].messages): {"cut"},
        str(calls[1].messages): {"add"},
    }


def test_nothing_is_made_if_all_requests_offer_the_same_tool():
    made, objection = augmentation.make_irrelevant([request("add", ("add",)), *VAIN], 1.0, seed=0)
    assert (made, objection) == ([], "all requests offer the same one tool")


CALLS = [request("add", ("add", "cut")), request("cut", ("cut",))]
ASKS = "Could you please provide your user ID?"
ORDER = "I can't go on without the number of the order."


def vain(*answers: str) -> list[ToolRequest]:
    return [request(None, ("add",), answer) for answer in answers]


def talk(answer: str, *, calls: bool, number: int) -> ToolRequest:
    """Return a conversation that continues after an answer, with a call or with text."""
    messages: list[dict[str, Json]] = [
        {"role": "user", "content": f"Please, {number}"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "And now?"},
    ]
    called = ("add",) if calls else ()
    return ToolRequest(messages, [tool("add")], called, "{}" if calls else "Bye, no more.", 1)


@pytest.mark.parametrize(
    ("logged", "reason"),
    [
        pytest.param([], "no user's request was answered without a call", id="calls-only"),
        pytest.param(vain("No.", "No."), "occurs 2 times, expected at least 3", id="twice"),
        pytest.param(
            vain(*["No."] * 3, *map(str, range(4))), "of 7 answers .* occurs 3 times", id="rare"
        ),
        pytest.param(vain(*[ASKS] * 20), "asks a question", id="asks-for-what-a-call-needs"),
        pytest.param(vain(*["I can't find it. Which one?"] * 9), "asks", id="denies-and-asks"),
        pytest.param(vain(*["Gladly, give me your ID."] * 9), "has no negation", id="says-yes"),
        pytest.param(
            [*vain(*[ORDER] * 5), *(talk(ORDER, calls=True, number=n) for n in range(3))],
            "preceded a call in 3 of 3 conversations",
            id="a-call-comes-next",
        ),
    ],
)
def test_without_a_clear_refusal_in_the_log_nothing_is_made_and_the_reason_is_returned(
    logged: list[ToolRequest], reason: str
):
    made, objection = augmentation.make_irrelevant([*CALLS, *logged], 1.0, seed=0)
    assert made == []
    assert objection is not None
    assert re.search(reason, objection)


@pytest.mark.parametrize(
    "refusal",
    [
        *("No tool fits this request.", "Sorry, that's beyond me.", "I can\u2019t do that."),
        *("Dafür habe ich kein Werkzeug.", "Aucun outil ne convient.", "该请求没有合适的工具。"),
        *(
            "Нет подходящего инструмента.",
            "No hay ninguna herramienta.",
            "適切なツールがありません",
        ),
    ],
)
def test_a_refusal_is_recognised_by_its_frequency_and_its_negation(refusal: str):
    others = vain("Hello.", "Done: 3.")
    ends = [talk(refusal, calls=n == 0, number=n) for n in range(3)]
    made, objection = augmentation.make_irrelevant(
        [*CALLS, *vain(*[refusal] * 3, f" {refusal} ", refusal.upper()), *others, *ends], 1.0, 0
    )
    assert objection is None
    assert made
    assert {request.answer for request in made} == {refusal}


def test_answers_to_a_tools_result_are_not_refusals():
    messages: list[dict[str, Json]] = [{"role": "user", "content": "?"}, {"role": "tool"}]
    answered = [ToolRequest(messages, [tool("add")], (), "There is no such order.", 1)] * 9
    made, objection = augmentation.make_irrelevant([*CALLS, *answered], 1.0, seed=0)
    assert (made, objection) == (
        [],
        "no user's request was answered without a call where tools were offered",
    )


def test_a_share_of_zero_makes_nothing_and_needs_no_refusal():
    assert augmentation.make_irrelevant([request("add", ("add",))], 0.0, seed=0) == ([], None)
