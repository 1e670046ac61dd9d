"""Requests are rendered completely as plain text, and answers are parsed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.chat import prompt
from components.schema import Answer, Call, Json
from tests.support import tiny

WEATHER: dict[str, Json] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the\n  weather.",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {
                "city": {"type": "string"},
                "units": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
        },
    },
}
CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'


def test_tools_are_rendered_one_per_line_with_their_arguments():
    (system, user) = prompt.render_prompt([{"role": "user", "content": "Rain?"}], [WEATHER])
    line = 'get_weather(city: string, units?: "C"|"F", days?: [integer]) - Tell the weather.'
    assert line in system["content"].splitlines()
    assert user == {"role": "user", "content": "Rain?"}


def test_the_system_message_stays_before_the_tools():
    messages: list[dict[str, Json]] = [
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Be brief."},
    ]
    system = prompt.render_prompt(messages, [WEATHER])[0]["content"]
    assert system.startswith("Be brief.\n\nTools:\n")


def test_without_tools_and_system_the_prompt_is_the_conversation():
    messages: list[dict[str, Json]] = [{"role": "user", "content": "Hi"}]
    assert prompt.render_prompt(messages, []) == messages


def test_calls_and_results_in_the_history_are_rendered_as_text():
    function: Json = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    messages: list[dict[str, Json]] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Rain"}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"function": function}]},
        {"role": "tool", "content": "dry"},
    ]
    contents = [message["content"] for message in prompt.render_prompt(messages, [])]
    assert contents == ["Rain\n?", CALL, "Result: dry"]


def test_a_refusal_in_the_history_is_what_the_assistant_said():
    said: Json = [{"type": "refusal", "refusal": "I can't."}]
    messages: list[dict[str, Json]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "Why?"},
    ]
    assert prompt.render_prompt(messages, [])[1] == {"role": "assistant", "content": "I can't."}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"city": "Oslo"}, id="object"),
        pytest.param('{"city": "Oslo"}', id="text"),
    ],
)
def test_arguments_may_be_an_object_or_json_text(arguments: Json):
    message: dict[str, Json] = {
        "tool_calls": [{"function": {"name": "get_weather", "arguments": arguments}}]
    }
    assert prompt.read_message(message) == Answer(calls=(Call("get_weather", {"city": "Oslo"}),))


@pytest.mark.parametrize("arguments", ["[1]", "{", 7, None])
def test_arguments_that_are_not_an_object_are_refused(arguments: Json):
    with pytest.raises(ValueError):
        prompt.read_message({"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]})


def test_a_tool_without_a_function_is_refused_and_named():
    with pytest.raises(ValueError, match="expected a tool with a `function` with a name, found"):
        prompt.render_prompt([], [{"type": "web_search"}])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
CALLS = st.builds(Call, st.text(min_size=1), st.dictionaries(st.text(), VALUES, max_size=3))


@given(st.lists(CALLS, min_size=1, max_size=3))
def test_rendered_calls_parse_to_the_same_calls(calls: list[Call]):
    answer = Answer(calls=tuple(calls))
    assert prompt.parse_answer(prompt.render_answer(answer)) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("No tool fits.", Answer("No tool fits."), id="text"),
        pytest.param(
            f"Sure: {CALL}", Answer("Sure:", (Call("get_weather", {"city": "Oslo"}),)), id="both"
        ),
        pytest.param('{"name": "f"}', Answer('{"name": "f"}'), id="no-arguments-no-call"),
        pytest.param("{" * 9, Answer("{" * 9), id="braces"),
    ],
)
def test_json_in_the_form_of_a_call_is_a_call_and_the_rest_is_text(text: str, answer: Answer):
    assert prompt.parse_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(CALL, None, id="good-call"),
        pytest.param("No tool fits.", None, id="text"),
        pytest.param(CALL[:-4], "a call was begun but is not JSON", id="broken-off"),
        pytest.param('{"tool": "f"}', "the JSON has not the form", id="other-form"),
    ],
)
def test_only_a_failed_call_has_a_problem(text: str, problem: str | None):
    reported = prompt.answer_problem(text)
    if problem is None:
        assert reported is None
    else:
        assert reported is not None
        assert reported.startswith(problem)


def test_the_text_ends_where_the_answer_begins(tmp_path: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.build(tmp_path))
    text = prompt.to_text(tokenizer, [{"role": "user", "content": "Hi"}])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
