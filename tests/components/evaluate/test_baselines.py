"""Baselines without a language model are scored on the same requests as every model."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from components import scorecard
from components.evaluate import baselines, harness, score_conditions
from components.evaluate.baselines import BaselineRequest
from components.evaluate.settings import EvaluationSettings
from components.schema import Answer, Call
from components.scorecard import CONSTANT, HOLDOUT, NEAREST, TFIDF, Scorecard
from components.store import manifest, output_folders
from tests.support import holdouts
from tests.support.holdouts import NOW, Case

SETTINGS = EvaluationSettings(precision="fp32", batch_size=4, max_new_tokens=2)
ROME, OSLO = (Answer(calls=(Call("weather", {"city": city}),)) for city in ("Rome", "Oslo"))
NEWS = Answer(calls=(Call("news", {}),))
NO_TOOL = Answer("No tool fits.")


def measured(
    tmp_path: Path,
    base: Path,
    learned: Sequence[Case],
    held_out: Sequence[Case],
    *,
    tools: bool,
    settings: EvaluationSettings = SETTINGS,
) -> dict[str, Scorecard]:
    """Evaluate the base, and read the scorecards of the holdout by model."""
    snapshot = holdouts.build(tmp_path, held_out, learned, tools=holdouts.TOOLS if tools else [])
    root = tmp_path / "scorecards"
    folders = harness.evaluate(
        snapshot, base, {"base": None}, root, settings, report=lambda _: None, now=NOW
    )
    return {model: scorecard.read(cards[HOLDOUT]) for model, cards in folders.items()}


def value(card: Scorecard, metric: str) -> float | None:
    return card.scores[metric].value


def test_calls_have_a_constant_and_a_nearest_baseline(tmp_path: Path, tiny_base: Path) -> None:
    learned = [
        Case("Weather in Rome now?", ROME),
        Case("Weather in Oslo now?", OSLO),
        Case("Sing a song", NO_TOOL),
        Case("Write a poem", NO_TOOL),
        Case("Tell a joke", NO_TOOL),
    ]
    held_out = [
        Case("Weather in Oslo today?", OSLO),
        Case("Is the weather good in Rome?", ROME),
        Case("Paint a poem", NO_TOOL),
    ]
    cards = measured(tmp_path, tiny_base, learned, held_out, tools=True)
    assert [*cards] == ["base", CONSTANT, NEAREST]
    assert value(cards[CONSTANT], "correct") == pytest.approx(1 / 3)
    assert value(cards[CONSTANT], "name_and_arguments") == 0
    assert value(cards[CONSTANT], "abstention") == 1
    assert value(cards[NEAREST], "correct") == 1
    requests = [sample.request for sample in cards["base"].samples]
    assert [sample.request for sample in cards[NEAREST].samples] == requests
    assert {sample.output for sample in cards[CONSTANT].samples} == {"No tool fits."}


def test_labels_have_a_constant_and_a_linear_baseline(tmp_path: Path, tiny_base: Path) -> None:
    beginnings = {"refund": "I want my money back for", "parcel": "where is my parcel with"}
    things = ("shoes", "lamps", "books", "pens", "cups", "hats")
    learned = [
        Case(f"{text} {thing}", Answer(label))
        for label, text in beginnings.items()
        for thing in (things if label == "refund" else things[:5])
    ]
    held_out = [
        Case("where is my parcel with socks", Answer("parcel")),
        Case("I want my money back for socks", Answer("refund")),
        Case("my parcel with cups", Answer("parcel")),
    ]
    cards = measured(tmp_path, tiny_base, learned, held_out, tools=False)
    assert [*cards] == ["base", CONSTANT, TFIDF]
    for metric in ("label", "choice"):
        assert value(cards[CONSTANT], metric) == pytest.approx(1 / 3)
        assert value(cards[TFIDF], metric) == 1


def test_very_many_labels_have_a_linear_baseline(tmp_path: Path, tiny_base: Path) -> None:
    numbers = range(150)
    learned = [Case(f"topic {n} x{n} {more}", Answer(f"t{n}")) for n in numbers for more in "abcde"]
    held_out = [Case(f"topic {n} x{n} f", Answer(f"t{n}")) for n in (3, 99, 149)]
    cards = measured(tmp_path, tiny_base, learned, held_out, tools=False)
    assert [*cards] == ["base", CONSTANT, TFIDF]
    assert [*cards["base"].scores] == [*cards[TFIDF].scores] == ["label"]
    assert value(cards[TFIDF], "label") == 1


def test_json_has_a_constant_and_a_nearest_baseline(tmp_path: Path, tiny_base: Path) -> None:
    learned = [
        Case("A trip to Oslo for two", Answer('{"to": "Oslo", "seats": 2}')),
        Case("Two of us want to go to Oslo", Answer('{"seats": 2.0, "to": "Oslo"}')),
        Case("A flight to Rome, alone", Answer('{"to": "Rome", "seats": 1}')),
        Case("Rome, one seat, please", Answer('{"to": "Rome", "seats": 1, "class": "first"}')),
        Case("Nice weather", Answer("I only book trips.")),
    ]
    schema = '{"properties": {"seats": {"minimum": 1}}, "required": ["seats"]}'
    held_out = [
        Case("Two seats to Oslo", Answer('{"to":"Oslo","seats":2}'), schema=schema),
        Case("alone, a flight to Rome", Answer('{"to":"Rome","seats":1}')),
        Case("Hello", Answer("I only book trips.")),
    ]
    settings = SETTINGS.model_copy(update={"kind": "json"})
    cards = measured(tmp_path, tiny_base, learned, held_out, tools=False, settings=settings)
    assert [*cards] == ["base", CONSTANT, NEAREST]
    constant, nearest = (cards[name].scores for name in (CONSTANT, NEAREST))
    # Two answers that differ in their order of keys alone are the most frequent one.
    assert (constant["exact"].value, constant["exact"].n) == (pytest.approx(1 / 3), 3)
    assert (constant["fields"].value, constant["fields"].n) == (0.5, 2)
    assert (constant["valid_json"].value, constant["schema_valid"].n) == (1, 1)
    assert (nearest["fields"].value, nearest["schema_valid"].value) == (1, 1)
    assert nearest["exact"].value == pytest.approx(2 / 3)


def test_baselines_are_measured_once_and_record_their_snapshot(
    tmp_path: Path, tiny_base: Path
) -> None:
    cards = measured(tmp_path, tiny_base, [Case("Rome?", ROME)], [Case("Oslo?", OSLO)], tools=True)
    again = score_conditions.folders(
        tmp_path / "snapshot", tiny_base, {"base": None}, tmp_path / "scorecards", SETTINGS
    )
    assert all(output_folders.fetch(folders[HOLDOUT]) for folders in again.values())
    key = manifest.read(tmp_path / "snapshot")["key"]
    # By this an erasure finds the scorecards whose answers come from training rows.
    assert [cards[name].conditions["examples"] for name in (CONSTANT, NEAREST)] == [key, key]
    other = EvaluationSettings(precision="fp32", batch_size=4, max_new_tokens=3)
    named = score_conditions.folders(
        tmp_path / "snapshot", tiny_base, {"base": None}, tmp_path / "scorecards", other
    )
    assert named[CONSTANT] != again[CONSTANT]


def test_there_is_no_baseline_without_training_rows(tmp_path: Path, tiny_base: Path) -> None:
    cards = measured(tmp_path, tiny_base, [], [Case("Oslo?", OSLO)], tools=True)
    assert [*cards] == ["base"]


@pytest.mark.parametrize(
    ("learned", "expected"),
    [
        pytest.param([ROME, OSLO, OSLO, NO_TOOL, NO_TOOL], OSLO, id="the-call-with-its-arguments"),
        pytest.param([ROME, NEWS, NO_TOOL, Answer(" No tool fits.")], NO_TOOL, id="no-call"),
        pytest.param([ROME, OSLO], OSLO, id="a-tie-is-the-first-in-order"),
    ],
)
def test_the_constant_answer_is_that_of_the_most_frequent_function(
    learned: list[Answer], expected: Answer
) -> None:
    assert baselines.constant_answer(learned, "tool_calls") == expected


def both(text: str) -> BaselineRequest:
    return BaselineRequest(text, text)


def test_a_long_template_around_each_request_does_not_hide_the_label() -> None:
    template = "You are our support desk. Answer politely, in one word, from this list: a, b. " * 5
    learned = [both(f"{template} refund {n}") for n in "abcdef"]
    learned += [both(f"{template} parcel {n}") for n in "abcdef"]
    labels = ["refund"] * 6 + ["parcel"] * 6
    asked = [both(f"{template} {word} z") for word in ("parcel", "refund")]
    assert baselines.classify_requests(learned, labels, asked) == ["parcel", "refund"]


def test_classification_also_uses_the_newest_message_of_a_long_conversation() -> None:
    """Over the whole conversations, words of both labels are equally frequent."""
    chance = random.Random(0)

    def talk(label: str, number: int) -> BaselineRequest:
        before = ["x", "y"] * 20
        before.remove(label)
        chance.shuffle(before)
        return BaselineRequest(f"{label} {number}", " ".join([*before, label, str(number)]))

    learned = [talk(label, number) for label in "xy" for number in range(8)]
    labels = ["x"] * 8 + ["y"] * 8
    asked = [talk(label, 8 + number) for label in "xy" for number in range(4)]
    assert baselines.classify_requests(learned, labels, asked) == ["x"] * 4 + ["y"] * 4


@pytest.mark.parametrize(
    ("texts", "labels", "expected"),
    [
        pytest.param(["a", "b", "c"], ["x", "x", "x"], "x", id="one-label"),
        pytest.param(["?!", "...", ""], ["x", "y", "y"], "y", id="no-words"),
        pytest.param(["退货 鞋子", "包裹 在哪", "退货 灯"], ["r", "p", "r"], "p", id="chinese"),
    ],
)
def test_every_request_gets_a_label(texts: list[str], labels: list[str], expected: str) -> None:
    asked = [both("我的包裹在哪里")]
    assert baselines.classify_requests([both(text) for text in texts], labels, asked) == [expected]
