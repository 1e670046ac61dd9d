import signal
from dataclasses import replace

import pytest

from components.curate import row_judgement
from components.curate.interaction import CandidateRow
from components.curate.settings import Rules
from components.schema import Answer, Call, Json
from tests.support import logs
from tests.support.curated_rows import row


def objection(row: CandidateRow, rules: Rules | None = None) -> str | None:
    return row_judgement.judge(row, rules or Rules()).objection


def test_no_timer_is_left_which_would_end_the_process():
    row_judgement.judge(row(), Rules())
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def user(content: Json) -> Json:
    return [{"role": "user", "content": content}]


IMAGE: Json = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "arguments", [pytest.param({"city": "Rome"}, id="object"), '{"city": "Rome"}']
)
def test_arguments_may_be_an_object_or_its_text(arguments: Json):
    judged = row_judgement.judge(row(message=logs.call("weather", arguments)), Rules())
    assert judged.objection is None
    assert judged.answer is not None
    expected = Answer("", (Call("weather", {"city": "Rome"}),))
    assert Answer.from_json(judged.answer) == expected


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(row(message=logs.say("Sunny.")), id="text"),
        pytest.param(row(message=logs.say([{"type": "text", "text": "Sunny."}])), id="text-part"),
        pytest.param(row(tools=[], message=logs.say("Sunny.")), id="no-tools"),
        pytest.param(row(finish_reason=None), id="unknown-end"),
        pytest.param(
            row(acceptable=[{"name": "weather", "arguments": {"city": ["Rome", "Roma"]}}]),
            id="acceptable",
        ),
        pytest.param(
            row(
                messages=[
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Weather?"},
                    logs.call("weather", "{}"),
                    {"role": "tool", "tool_call_id": "call_1", "content": "which city?"},
                ]
            ),
            id="conversation-with-calls",
        ),
    ],
)
def test_sound_interactions_are_kept(good: CandidateRow):
    assert objection(good) is None


@pytest.mark.parametrize(
    ("bad", "slug"),
    [
        pytest.param(row(messages=user(IMAGE)), "unsupported_content", id="image"),
        pytest.param(row(message=logs.say(IMAGE)), "unsupported_content", id="image-answer"),
        pytest.param(row(message=logs.call("weather", "{oops")), "arguments_not_json"),
        pytest.param(row(message=logs.call("weather", "[1]")), "arguments_not_json", id="array"),
        pytest.param(row(message=logs.call("weather", None)), "arguments_not_json", id="none"),
        pytest.param(row(message=logs.call("weather", DEEP)), "arguments_not_json", id="deep"),
        pytest.param(
            row(message=logs.call("weather", '{"city": "\\ud800"}')),
            "arguments_not_json",
            id="half-a-character",
        ),
        pytest.param(
            row(message=logs.call("weather", '{"city": NaN}')), "arguments_not_json", id="nan"
        ),
        pytest.param(row(message=logs.say("  \n")), "empty_answer", id="blank"),
        pytest.param(row(message=logs.say(None)), "empty_answer", id="null-content"),
        pytest.param(row(finish_reason="length"), "cut_off", id="limit"),
        pytest.param(row(finish_reason="content_filter"), "cut_off", id="filter"),
        pytest.param(row(message=logs.call("traffic", {})), "unknown_tool", id="not-offered"),
        pytest.param(row(tools=[]), "unknown_tool", id="none-offered"),
        pytest.param(row(acceptable={"name": "weather"}), "malformed_acceptable", id="no-list"),
        pytest.param(
            row(acceptable=[{"name": "weather", "arguments": {"city": "Rome"}}]),
            "malformed_acceptable",
            id="value-not-in-a-list",
        ),
        pytest.param(row(acceptable=["weather"]), "malformed_acceptable", id="call-is-text"),
        pytest.param(
            row(messages=[logs.call("weather", "{oops"), {"role": "user", "content": "x"}]),
            "malformed_history",
            id="earlier-call",
        ),
        pytest.param(row(messages=user("x" * 20_000)), "too_long", id="long"),
        pytest.param(row(messages=["hi"]), "malformed_request", id="message-is-text"),
        pytest.param(row(tools="weather"), "malformed_request", id="tools-are-text"),
        pytest.param(row(tools=[{"name": "weather"}]), "malformed_tools", id="bare-tool"),
        pytest.param(
            row(messages=[{"role": "wizard", "content": "x"}]), "malformed_messages", id="role"
        ),
        pytest.param(
            row(messages=[{"role": "system", "content": "x"}]),
            "malformed_messages",
            id="no-question",
        ),
        pytest.param(row(message="Sunny."), "malformed_answer", id="answer-is-text"),
    ],
)
def test_unsound_interactions_are_left_out_with_the_reason(bad: CandidateRow, slug: str):
    assert objection(bad) == slug


@pytest.mark.parametrize("text", [pytest.param("NaN", id="nan"), pytest.param(DEEP, id="deep")])
def test_json_that_other_readers_refuse_is_left_out(text: str):
    good = row()
    bad = replace(good, messages=text)
    assert objection(bad) == "unreadable"


def test_a_missing_answer_is_left_out():
    good = row()
    bad = replace(good, message=None, finish_reason=None)
    assert objection(bad) == "empty_answer"


def test_the_limit_counts_the_prompt_as_the_model_reads_it():
    verbose: dict[str, Json] = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"$comment": "x" * 20_000}},
    }
    assert objection(row(tools=[verbose]), Rules(max_prompt_chars=200)) is None
    assert objection(row(), Rules(max_prompt_chars=100)) == "too_long"
