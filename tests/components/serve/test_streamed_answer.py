"""What streams is, in the end, exactly what is read from the whole text; calls come whole."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.chat import dialects
from components.chat.dialects import Dialect
from components.schema import Call
from components.serve.streamed_answer import Delta, StreamedAnswer

CALL = '{"name": "weather", "arguments": {"city": "Oslo {\\"x\\"}"}}'
PARTS = [
    CALL,
    '{"name": "f", "parameters": {"a": [1, {"b": "}"}]}}',
    '{"arguments": {}, "name": "late"}',
    '{"name": "no"}',
    '{"a": {"name": "inner", "arguments": {}}}',
    "{ return x; }",
    "{'name': 'single', 'arguments': {}}",
    '{"name": "cut", "arguments": {"a": ',
    '"unbalanced',
    "<tool_call>",
    "</tool_call>",
    "<tool_",
    "<|python_tag|>",
    "<think>",
    "</think>",
    "<",
    "{",
    "}",
    '"',
    "\\",
    " ",
    "\n",
    "; ",
    "Hello, world",
    "ß\U0001f30d",
]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=8).map("".join)
FORMS: list[Dialect] = ["written", "hermes", "llama3"]


def stream(answer: StreamedAnswer, pieces: list[str]) -> list[Delta]:
    return [*(answer.feed(piece) for piece in pieces), answer.finish()]


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True)]


@given(
    text=TEXTS,
    places=st.lists(st.integers(0, 400), max_size=12),
    form=st.sampled_from(FORMS),
    reads_calls=st.booleans(),
)
@example(text="; a", places=[1, 2], form="llama3", reads_calls=True)
@example(text="<think> {}</think> a", places=[3, 9], form="hermes", reads_calls=True)
@example(text="\n<think>never closed", places=[3, 9], form="hermes", reads_calls=False)
def test_what_streams_is_what_the_whole_text_means(
    text: str, places: list[int], form: Dialect, reads_calls: bool
):
    answer = StreamedAnswer(form, reads_calls=reads_calls)
    deltas = stream(answer, cut(text, places))
    whole = dialects.read_answer(form, text, offers_tools=reads_calls)
    assert "".join(delta.text for delta in deltas) == whole.text == answer.text
    assert tuple(call for delta in deltas for call in delta.calls) == whole.calls == answer.calls


@pytest.mark.parametrize("form", FORMS)
def test_text_streams_at_once(form: Dialect):
    answer = StreamedAnswer(form, reads_calls=True)
    words = ["It", " is", " dry", " in", " Oslo."]
    assert [answer.feed(word).text for word in words] == words


def test_a_call_is_held_back_until_it_is_whole():
    answer = StreamedAnswer("written", reads_calls=True)
    deltas = [answer.feed(character) for character in f"I look.\n{CALL}\nDone"]
    assert "".join(delta.text for delta in deltas) == "I look.\n\nDone"
    (at,) = [number for number, delta in enumerate(deltas) if delta.calls]
    assert at == len(f"I look.\n{CALL}") - 1
    assert deltas[at].calls == (Call("weather", json.loads(CALL)["arguments"]),)


@pytest.mark.parametrize("form", FORMS)
def test_what_a_cut_call_has_inside_is_no_call(form: Dialect):
    answer = StreamedAnswer(form, reads_calls=True)
    half = '{"name": "plan", "arguments": {"next": {"name": "delete_all", "arguments": {}}'
    deltas = [answer.feed(f"{CALL} and "), answer.feed(half), answer.finish(is_cut=True)]
    assert [call.name for delta in deltas for call in delta.calls] == ["weather"]
    assert "".join(delta.text for delta in deltas) == f"and {half}"


def test_braces_that_begin_no_call_stream_at_once():
    answer = StreamedAnswer("written", reads_calls=True)
    assert answer.feed("f() { return").text == "f() { return"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_a_call_elsewhere_streams_at_once_where_no_tool_was_offered(form: Dialect):
    answer = StreamedAnswer(form, reads_calls=False)
    pieces = [
        "Hermes writes <tool",
        "_call>",
        CALL[:19],
        CALL[19:],
        "</tool_call>, Llama <|python_tag|>.",
    ]
    assert [answer.feed(piece).text for piece in pieces] == pieces
    assert answer.finish() == Delta()


def test_thoughts_are_not_streamed():
    answer = StreamedAnswer("hermes", reads_calls=True)
    deltas = stream(answer, ["<th", "ink>It ", "may {} rain.</th", "ink>\n\n", "It rains."])
    assert [delta.text for delta in deltas] == ["", "", "", "", "It rains.", ""]


def test_a_long_answer_with_many_braces_is_read_in_time():
    answer = StreamedAnswer("written", reads_calls=True)
    for _ in range(4000):
        answer.feed('{"a":')
    assert answer.finish().calls == ()
