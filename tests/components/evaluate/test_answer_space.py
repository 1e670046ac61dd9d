"""The kind of a workload's answers is detected, and determines the metrics."""

import pytest

from components.evaluate.answer_space import find_answer_space
from components.evaluate.task_metrics import AnswerSpace
from components.schema import Answer, Call

CALL = Answer(calls=(Call("weather", {}),))
LABELS = [Answer(word) for word in ("card", "loan", "card", "rate", "loan ")] * 3
PROSE = [Answer(f"It rains in {city}, and will for days.") for city in ("Rome", "Oslo")] * 5

TRIPS = [Answer(f'{{"to": "Oslo", "seats": {n % 3}}}') for n in range(19)]


@pytest.mark.parametrize(
    ("answers", "offers_tools", "kind"),
    [
        pytest.param([CALL, *PROSE], False, "tool_calls", id="some-call"),
        pytest.param(LABELS, True, "tool_calls", id="none-calls-but-could"),
        pytest.param(LABELS, False, "classification", id="few-short-answers"),
        pytest.param(LABELS[:14], False, "text", id="too-few-of-each"),
        pytest.param([Answer(str(n)) for n in range(150)] * 5, False, "classification", id="many"),
        pytest.param([Answer(str(n)) for n in range(501)] * 5, False, "text", id="too-many"),
        pytest.param(TRIPS, False, "json", id="objects"),
        pytest.param([Answer("[1, 2]"), Answer("[]")] * 9, False, "json", id="lists"),
        pytest.param([Answer("```json\n{}\n```")] * 9, False, "json", id="fenced"),
        pytest.param([*TRIPS, Answer("Sorry.")], False, "json", id="one-apology-in-twenty"),
        pytest.param([*TRIPS, *PROSE[:2]], False, "text", id="too-many-apologies"),
        pytest.param(TRIPS, True, "tool_calls", id="objects-where-tools-could-be-called"),
        pytest.param([Answer(text) for text in ("1", "true", '"a"')] * 9, False, "classification"),
        pytest.param([Answer("yes")] * 20, False, "text", id="always-the-same"),
        pytest.param([Answer("a" * 41), Answer("b")] * 9, False, "text", id="too-long-for-a-label"),
        pytest.param([Answer(""), Answer("b")] * 9, False, "text", id="empty-is-no-label"),
        pytest.param([*PROSE, Answer("A long story. " * 9)], False, "text", id="prose"),
    ],
)
def test_the_kind_is_detected_from_the_answers(
    answers: list[Answer], offers_tools: bool, kind: str
):
    assert find_answer_space(answers, None, offers_tools=offers_tools).kind == kind


def test_answers_to_requests_for_json_are_json_even_where_many_are_cut_off():
    answers = [*TRIPS, *(Answer(trip.text[:-1]) for trip in TRIPS)]
    for asks_for_json, kind in ((True, "json"), (False, "classification")):
        found = find_answer_space(answers, None, offers_tools=False, asks_for_json=asks_for_json)
        assert found.kind == kind


def test_the_likeliest_of_very_many_labels_is_not_measured():
    for count, names in ((100, ["label", "choice"]), (101, ["label"])):
        answers = [Answer(str(number)) for number in range(count)] * 5
        assert [*find_answer_space(answers, None, offers_tools=False).metrics] == names


def test_labels_are_the_distinct_answers():
    assert find_answer_space(LABELS, None, offers_tools=False).labels == (
        "card",
        "loan",
        "rate",
    )


def test_a_configured_kind_overrides_the_detected_one():
    assert find_answer_space(LABELS, "text", offers_tools=False) == AnswerSpace("text")
    few = find_answer_space(LABELS[:4], "classification", offers_tools=False)
    assert few == AnswerSpace("classification", ("card", "loan", "rate"))


@pytest.mark.parametrize("odd", ["I am sorry, but I can not classify this request.", ""])
def test_a_few_answers_that_are_no_labels_do_not_end_a_configured_classification(odd: str):
    answers = [*LABELS, *LABELS, *LABELS, *LABELS, Answer(odd)]
    found = find_answer_space(answers, "classification", offers_tools=False)
    assert found == AnswerSpace("classification", ("card", "loan", "rate"))


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        pytest.param([CALL, *LABELS], "some call tools", id="calls"),
        pytest.param([Answer("yes")] * 9, "there are 1 different ones, expected 2", id="one"),
        pytest.param([Answer(str(n)) for n in range(501)], "501 .* expected 2 to 500", id="many"),
        pytest.param([Answer("b" * 50), Answer("c")], "is not a label of 1 to 40", id="long"),
    ],
)
def test_answers_that_are_not_labels_are_refused_as_a_classification(
    answers: list[Answer], sentence: str
):
    with pytest.raises(ValueError, match=sentence):
        find_answer_space(answers, "classification", offers_tools=False)


def test_answers_that_are_not_json_are_refused_as_such():
    assert find_answer_space(TRIPS, "json", offers_tools=False) == AnswerSpace("json")
    with pytest.raises(ValueError, match="the answers are not JSON: 0% of them are"):
        find_answer_space(PROSE, "json", offers_tools=False)
