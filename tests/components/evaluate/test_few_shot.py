"""The base is also measured with solved examples, the nearest of the training side."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from components.evaluate import holdout_task
from components.evaluate.holdout_task import EvaluatedSide, Shot
from components.schema import Answer
from tests.support import holdouts
from tests.support.holdouts import Case

LEARNED = [
    Case("when does my train to Rome leave", Answer("timetable")),
    Case("when does the train leave for Oslo", Answer("timetable")),
    Case("how much is a ticket to Rome", Answer("price")),
    Case("may I bring a dog", Answer("rules")),
    Case("may I bring a cat", Answer("rules")),
]


@pytest.mark.parametrize(
    ("count", "picked"),
    [
        pytest.param(1, [4], id="the-nearest"),
        pytest.param(2, [4, 0], id="of-another-class"),
        pytest.param(3, [4, 0, 1], id="and-of-a-third"),
        pytest.param(4, [4, 3, 0, 1], id="then-the-rest-by-nearness"),
        pytest.param(9, [4, 3, 2, 0, 1], id="no-more-than-there-are"),
    ],
)
def test_each_class_is_represented_and_ordered_by_similarity(count: int, picked: list[int]):
    assert holdout_task.pick_shots([4, 3, 2, 0, 1], ["b", "c", "a", "a", "a"], count) == picked


def test_examples_without_a_word_are_equally_near():
    shots = [Shot(text, [], Answer(), "") for text in (".", "", "\U0001f44d")]
    assert holdout_task.choose_shots([".", "Hello?"], shots, 1) == [shots[:1], shots[:1]]


def ask(folder: Path, base: Path, count: int, room: int = 4096) -> EvaluatedSide:
    cases = [Case("when does the train to Rome leave", Answer("timetable"))]
    snapshot = holdouts.build(folder, cases, LEARNED, tools=[])
    tokenizer = AutoTokenizer.from_pretrained(base)
    return holdout_task.read_side(snapshot, tokenizer, None, num_fewshot=count, room=room)


def test_examples_precede_the_request_the_nearest_last(tmp_path: Path, tiny_base: Path):
    (document,) = ask(tmp_path, tiny_base, 2).documents
    prompt = document["prompt"]
    assert prompt.count("<|im_start|>assistant") == 3
    assert prompt.index("ticket to Rome") < prompt.index("my train to Rome")
    assert "leave<|im_end|>\n<|im_start|>assistant\ntimetable<|im_end|>" in prompt
    assert prompt.endswith("when does the train to Rome leave<|im_end|>\n<|im_start|>assistant\n")
    assert document["request"] == "when does the train to Rome leave"


def test_the_farthest_are_dropped_if_not_all_fit(tmp_path: Path, tiny_base: Path):
    (whole,) = ask(tmp_path / "a", tiny_base, 3).documents
    (short,) = ask(tmp_path / "b", tiny_base, 3, room=150).documents
    (none,) = ask(tmp_path / "c", tiny_base, 3, room=20).documents
    assert [holdout["prompt"].count("assistant") for holdout in (whole, short, none)] == [4, 2, 1]
    assert "my train to Rome" in short["prompt"]


def test_examples_with_tools_show_them_and_the_call(tmp_path: Path, tiny_base: Path):
    snapshot = holdouts.build(tmp_path, holdouts.CASES[1:], holdouts.CASES[:1])
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    bare = holdout_task.read_side(snapshot, tokenizer, None)
    shown = holdout_task.read_side(snapshot, tokenizer, None, num_fewshot=1)
    call = 'assistant\n{"name": "weather", "arguments": {"city": "Rome"}}<|im_end|>'
    assert all(call in document["prompt"] for document in shown.documents)
    assert not any(call in document["prompt"] for document in bare.documents)
    assert all(document["prompt"].count("weather() - Tell") == 2 for document in shown.documents)
    assert [document["length"] for document in shown.documents] == [
        document["length"] for document in bare.documents
    ]
