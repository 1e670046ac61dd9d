"""Pure refusals are found; answers with content are not refusals."""

import pytest

from components.curate import interaction
from components.curate.rules.bad_answers import empty_answer, refusal
from components.schema import Json
from tests.support import logs
from tests.support.curated_rows import answered, row


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I\u2019m sorry, but I can\u2019t help with that request.",
        "I cannot help you with this.",
        "Sorry, I can't do that.",
        "I'm unable to fulfill that request.",
        "I apologize, but I cannot provide that information.",
        "As an AI language model, I cannot comply with this request.",
        "Unfortunately, I am not able to generate such content.",
        "I won't assist with that.",
        "I'm sorry, but as an AI, I can't engage in that conversation.",
        "I can't help.",
        "I must decline to answer that question.",
        "I cannot create any explicit material.",
    ],
)
def test_refusals_are_found(text: str):
    assert refusal(answered(text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("I'm sorry to hear that. What happened?", id="sympathy"),
        pytest.param(
            "I'm sorry, but I cannot remove a passenger from an existing reservation.", id="policy"
        ),
        pytest.param("Unfortunately, I need the reservation ID to proceed.", id="asks-back"),
        pytest.param(
            "As an AI language model, I don't have feelings, but here are some tips:", id="ai-says"
        ),
        pytest.param(
            "I can't help with that booking. However, the cheapest flight is LX 12.", id="helps-on"
        ),
        pytest.param("I can't do that here, but here is the code:\n```\nx\n```", id="code"),
        pytest.param("I can't help with that. " + "The reason is long. " * 30, id="explains"),
        pytest.param('He said: "I can\'t help with that."', id="quoted"),
        pytest.param("No tool fits this request.", id="abstains"),
        pytest.param("oos", id="label"),
    ],
)
def test_answers_with_content_are_not_refusals(text: str):
    assert refusal(answered(text)) is None


def test_the_mark_does_not_quote_the_request():
    candidate = answered("I understand that Ann Smith is ill, but I can't help with that.")
    assert refusal(candidate) == "i can't help with that"


@pytest.mark.parametrize("content", ["", None])
def test_a_refusal_in_its_own_field_is_a_refusal_and_no_empty_answer(content: str | None):
    said: dict[str, Json] = {"role": "assistant", "content": content, "refusal": "I won't do it."}
    candidate = interaction.read(row(message=said))
    assert candidate.answer.text == "I won't do it."
    assert refusal(candidate) is not None
    assert empty_answer(candidate) is None
    nothing: Json = {**said, "refusal": None}
    assert refusal(interaction.read(row(message=nothing))) is None
    assert empty_answer(interaction.read(row(message=nothing))) is not None


def test_declining_is_an_answer_if_tools_are_offered():
    refused = row(
        message=logs.say("I'm sorry, but I can't assist with that."), tools=[logs.WEATHER]
    )
    assert refusal(interaction.read(refused)) is None


def test_a_correction_is_not_a_refusal():
    assert refusal(answered("I can't assist with that.", is_corrected=True)) is None
