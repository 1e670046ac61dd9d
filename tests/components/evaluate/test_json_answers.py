"""JSON answers are compared by their values, whatever a model writes."""

import json
import time

import pytest

from components.evaluate import json_answers, task_metrics
from components.schema import Json

TRIP = json.dumps({"from": "Paris", "to": "Oslo", "date": "2026-05-01", "seats": 2})


def scores(text: str, reference: str = TRIP, schema: Json = None) -> tuple[float | None, ...]:
    """Return ``valid_json``, ``exact``, ``fields``."""
    scored = json_answers.score_json(text, reference, json.dumps(schema) if schema else "")
    assert [*scored] == [*task_metrics.JSON_METRICS]
    return tuple(scored[name] for name in ("valid_json", "exact", "fields"))


def trip(**changes: Json) -> str:
    return json.dumps({**json.loads(TRIP), **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(TRIP, (1, 1, 1), id="right"),
        pytest.param(
            '{"seats":2,"date":"2026-05-01","to":"Oslo","from":"Paris"}', (1, 1, 1), id="keys-order"
        ),
        pytest.param(json.dumps(json.loads(TRIP), indent=4) + "\n", (1, 1, 1), id="blanks"),
        pytest.param(trip(seats=2.0), (1, 1, 1), id="number-form"),
        pytest.param(trip(**{"from": "Oslo", "to": "Paris"}), (1, 0, 0.5), id="exchanged"),
        pytest.param(trip(seats=20), (1, 0, 0.75), id="another-number"),
        pytest.param(trip(seats="2"), (1, 0, 0.75), id="a-text-is-no-number"),
        pytest.param(trip(seats=True), (1, 0, 0.75), id="true-is-no-number"),
        pytest.param(trip(class_="first"), (1, 0, 8 / 9), id="one-more"),
        pytest.param('{"to": "Oslo"}', (1, 0, 0.4), id="fields-missing"),
        pytest.param(TRIP[:-1], (0, 0, 0), id="brace-missing"),
        pytest.param(f"Here it is: {TRIP}", (0, 0, 0), id="text-around"),
        pytest.param(f"```json\n{TRIP}\n```", (0, 0, 0), id="a-fence-nobody-expects"),
        pytest.param(f'{{"to": "Rome", {TRIP[1:]}', (0, 0, 0), id="a-key-twice"),
        pytest.param("[]", (1, 0, 0), id="a-list"),
        pytest.param("", (0, 0, 0), id="nothing"),
    ],
)
def test_an_answer_is_compared_field_by_field(text: str, expected: tuple[float, ...]):
    assert scores(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        pytest.param("[1, 2, 3]", "[2, 3]", (1, 0, 0.8), id="equal-items-count-wherever-they-are"),
        pytest.param("[2, 1]", "[1, 2]", (1, 0, 1), id="a-list-has-an-order"),
        pytest.param(
            '[{"a": 1, "b": 4}, {"a": 3, "b": 2}]',
            '[{"a": 1, "b": 2}, {"a": 3, "b": 4}]',
            (1, 0, 0.5),
            id="values-of-one-item-are-none-of-another",
        ),
        pytest.param("[1, 1]", "[1]", (1, 0, 2 / 3), id="an-item-twice"),
        pytest.param("{}", "{}", (1, 1, 1), id="empty"),
        pytest.param("{}", "[]", (1, 0, 0), id="empty-of-another-kind"),
        pytest.param('{"a": {}}', '{"a": null}', (1, 0, 0), id="nothing-in-two-ways"),
        pytest.param('["1", 0]', "[1]", (1, 0, 0), id="no-number-is-a-list"),
        pytest.param('{"caf\\u0065\\u0301": 1}', '{"café": 1e0}', (1, 1, 1), id="accents"),
        pytest.param("[0.10, -0, 1e2]", "[1e-1, 0, 100]", (1, 1, 1), id="numbers"),
        pytest.param("[9007199254740993]", "[9007199254740992]", (1, 0, 0), id="large-numbers"),
        pytest.param("[1e400]", "[2e400]", (1, 0, 0), id="numbers-beyond-floats"),
        pytest.param("```\n[1]```", "```json\n[1]\n```", (1, 1, 1), id="a-fence-in-both"),
        pytest.param("[1]", "```json\n[1]\n```", (1, 1, 1), id="no-fence-where-one-is-stripped"),
        pytest.param("I am  sorry.", "I am sorry.", (None, 1, None), id="an-apology"),
        pytest.param("[1]", "I am sorry.", (None, 0, None), id="an-answer-where-it-apologized"),
    ],
)
def test_an_answer_is_compared_as_json_has_it(
    text: str, reference: str, expected: tuple[float | None, ...]
):
    assert scores(text, reference) == pytest.approx(expected)


HOSTILE = {
    "deep": "[" * 1_000_000,
    "deep-objects": '{"a":' * 200_000,
    "deep-but-whole": "[" * 500 + "]" * 500,
    "digits": f"[{'9' * 1_000_000}]",
    "power": f"[1e{'9' * 100_000}]",
    "not-a-number": "[NaN]",
    "infinity": "[-Infinity]",
    "keys": "{" + '"a": 1, ' * 20_000 + '"a": 1}',
    "accents": json.dumps(["a" + "\u0301\u0323" * 200_000], ensure_ascii=False),
    "fence": "```\n" + " " * 1_000_000 + "x```",
    "half-a-pair": '["\\ud800"]',
    "many-items": json.dumps([[n] for n in range(10_000)]),
    "levels-of-items": "[" * 99 + "1," * 20_000 + "1" + "]" * 99,
    "zeros": f"[0.{'0' * 1_000_000}1]",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_a_model_writes_is_scored_at_once(text: str):
    began = time.process_time()
    valid, exact, fields = scores(text, json.dumps([[n] for n in range(0, 10_000, 2)]))
    assert valid in (0, 1)
    assert exact == 0
    assert fields is not None
    assert 0 <= fields < 1
    scores(text, f"```\n{text}\n```", {"type": "array", "items": {"type": "number"}})
    assert time.process_time() - began < 3


SCHEMA: Json = {
    "type": "object",
    "properties": {"seats": {"type": "integer"}, "to": {"enum": ["Oslo", "Rome"]}},
    "required": ["to"],
}


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        pytest.param('{"to": "Rome"}', TRIP, 1, id="fits"),
        pytest.param('{"to": "Paris"}', TRIP, 0, id="no-choice-of-it"),
        pytest.param("{}", TRIP, 0, id="required"),
        pytest.param("Oslo", TRIP, 0, id="no-json"),
        pytest.param('{"to": "\\ud800"}', TRIP, 0, id="half-a-pair"),
        pytest.param('{"to": "Rome"}', '{"to": "Paris"}', None, id="the-right-answer-does-not"),
        pytest.param('{"to": "Rome"}', "I am sorry.", None, id="no-right-json"),
    ],
)
def test_an_answer_fits_the_schema_of_its_request(
    text: str, reference: str, expected: float | None
):
    schema = json.dumps(SCHEMA)
    assert json_answers.score_json(text, reference, schema)["schema_valid"] == expected
    assert json_answers.score_json(text, reference)["schema_valid"] is None
    is_measured = json_answers.is_measured("schema_valid", reference, schema)
    assert is_measured == (expected is not None)
