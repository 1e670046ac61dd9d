"""The scores of one output against its reference."""

import json
from collections.abc import Sequence

import pytest

from components.evaluate.metrics import fits_call, score_calls
from components.schema import AcceptableCall, Answer, Call, Json

ROME = Answer(calls=(Call("weather", {"city": "Rome"}),))
NO_CALL = Answer("No tool fits.")


def call(name: str, **arguments: Json) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def scores(text: str, reference: Answer = ROME, acceptable: Sequence[AcceptableCall] | None = None):
    """Return the four metrics that can differ: valid JSON, name, whole call, abstention."""
    scored = score_calls(text, reference, acceptable)
    assert scored["correct"] == (
        scored["name_and_arguments"] if reference.calls else scored["abstention"]
    )
    assert scored["correct_name"] == (scored["name"] if reference.calls else scored["abstention"])
    return tuple(scored[m] for m in ("valid_json", "name", "name_and_arguments", "abstention"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(call("weather", city="Rome"), (1, 1, 1, None), id="right"),
        pytest.param(f"\n {call('weather', city='Rome')}\n", (1, 1, 1, None), id="blanks-around"),
        pytest.param(call("weather", city="Oslo"), (1, 1, 0, None), id="wrong-argument"),
        pytest.param(call("weather", city="rome"), (1, 1, 0, None), id="reference-is-exact"),
        pytest.param(call("weather", city="Rome", unit="C"), (1, 1, 0, None), id="extra-argument"),
        pytest.param(call("weather"), (1, 1, 0, None), id="missing-argument"),
        pytest.param(call("poem", city="Rome"), (1, 0, 0, None), id="wrong-name"),
        pytest.param(call("Weather", city="Rome"), (1, 0, 0, None), id="name-in-other-case"),
        pytest.param(call("weather", city="Rome")[:-1], (0, 0, 0, None), id="cut-off"),
        pytest.param('{"name": "weather"}', (0, 0, 0, None), id="no-arguments-key"),
        pytest.param("It is sunny in Rome.", (0, 0, 0, None), id="text-instead"),
        pytest.param("", (0, 0, 0, None), id="nothing"),
        pytest.param(
            "\n".join([call("weather", city="Rome")] * 2), (1, 0, 0, None), id="the-call-twice"
        ),
        pytest.param(
            call("weather", city="Rome") + '\n{"name": "wea',
            (0, 0, 0, None),
            id="then-a-broken-one",
        ),
        *(
            pytest.param(f'{{"name": "weather", "arguments": {{"city": {loop}', (0, 0, 0, None))
            for loop in ("[" * 5000, "9" * 5000, '{"a": ' * 1500, "9" * 5000 + "}}")
        ),
    ],
)
def test_an_output_where_a_call_is_expected(text: str, expected: tuple[float | None, ...]):
    assert scores(text) == expected


@pytest.mark.parametrize("odd", [call("poem", city="Rome"), call("weather", city="Oslo")])
def test_many_equal_calls_with_an_odd_one_among_them_are_scored_at_once(odd: str):
    name = float("weather" in odd)
    text = "\n".join([call("weather", city="Rome")] * 30 + [odd])
    assert scores(text, Answer(calls=ROME.calls * 31)) == (1, name, 0, None)


@pytest.mark.parametrize(
    ("text", "abstained"),
    [
        pytest.param("No tool fits.", 1, id="said-so"),
        pytest.param("Here is a poem.", 1, id="any-text"),
        pytest.param(call("weather", city="Rome"), 0, id="called"),
        pytest.param("Sure! " + call("weather", city="Rome"), 0, id="text-and-call"),
        pytest.param('{"name": "weather", "argu', 0, id="a-broken-call-is-no-abstention"),
        pytest.param("", 0, id="silence-is-no-answer"),
        pytest.param(" \n", 0, id="blanks-are-no-answer"),
    ],
)
def test_an_output_where_no_tool_fits(text: str, abstained: float):
    assert scores(text, NO_CALL) == (None, None, None, abstained)


CODE = Answer("Write `f = {x: 1}`, or \\frac{a}{b}.")


@pytest.mark.parametrize(
    ("text", "abstained"),
    [
        pytest.param(CODE.text, 1, id="the-right-answer"),
        pytest.param('{"city": "Rome"}', 1, id="other-braces"),
        pytest.param(call("weather", city="Rome"), 0, id="called"),
        pytest.param(CODE.text + '{"name": "wea', 0, id="began-to-call"),
        pytest.param("", 0, id="silence-is-no-answer"),
    ],
)
def test_an_output_where_the_right_answer_has_braces_and_calls_nothing(text: str, abstained: float):
    assert scores(text, CODE) == (None, None, None, abstained)
    assert score_calls(text, CODE, None)["over_triggering"] == float(not abstained and bool(text))


def test_a_tag_without_a_call_is_begun_also_where_the_right_answer_has_braces():
    assert score_calls("<tool_call>\n{", CODE, None, "hermes")["abstention"] == 0
    assert score_calls(CODE.text, CODE, None, "hermes")["abstention"] == 1


WEATHER = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        },
        {"type": "function", "function": {"name": "poem"}},
    ]
)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        pytest.param(call("weather", city="Oslo", days=2), 1, id="as-the-schema-says"),
        pytest.param(call("weather", city="Oslo", days="two"), 0, id="of-another-type"),
        pytest.param(call("weather", days=2), 0, id="required-is-missing"),
        pytest.param(call("weather", city="Oslo", country="NO"), 0, id="not-in-the-schema"),
        pytest.param(call("poem", about="rain"), 1, id="no-schema-to-break"),
        pytest.param(call("sing"), 0, id="never-offered"),
        pytest.param("It rains.", 0, id="no-call"),
        pytest.param(call("weather", city="Oslo") + "\n" + call("sing"), 0, id="one-of-two"),
    ],
)
def test_calls_are_checked_against_the_schemas_of_the_tools(text: str, allowed: float):
    assert score_calls(text, ROME, None, "written", WEATHER)["schema_valid"] == allowed
    assert score_calls(text, NO_CALL, None, "written", WEATHER)["schema_valid"] is None


@pytest.mark.parametrize(
    ("text", "over"),
    [
        pytest.param("No tool fits.", 0, id="said-so"),
        pytest.param("", 0, id="silence-calls-nothing"),
        pytest.param(call("weather", city="Rome"), 1, id="called"),
        pytest.param('{"name": "weather", "argu', 1, id="began-to-call"),
    ],
)
def test_calling_where_no_tool_fits_is_over_triggering(text: str, over: float):
    assert score_calls(text, NO_CALL, None)["over_triggering"] == over
    assert score_calls(text, ROME, None)["over_triggering"] is None


def test_calls_may_come_in_any_order_but_each_once():
    both = Answer(calls=(Call("f", {"x": 1}), Call("f", {"x": 2})))
    assert scores(f"{call('f', x=2)}\n{call('f', x=1)}", both) == (1, 1, 1, None)
    assert scores(f"{call('f', x=1)}\n{call('f', x=1)}", both) == (1, 1, 0, None)


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        pytest.param(1, 1.0, True, id="whole-number-as-float"),
        pytest.param(True, 1, False, id="true-is-not-one"),
        pytest.param(0, False, False, id="zero-is-not-false"),
        pytest.param("1", 1, False, id="text-is-no-number"),
        pytest.param(None, None, True, id="null"),
        pytest.param({"a": [1, {"b": "c"}]}, {"a": [1.0, {"b": "c"}]}, True, id="nested"),
        pytest.param({"a": [1, {"b": "c"}]}, {"a": [1, {"b": "d"}]}, False, id="nested-differs"),
        pytest.param([1, 2], [2, 1], False, id="lists-have-an-order"),
        pytest.param([1], [1, 2], False, id="shorter-list"),
        pytest.param("caf\u00e9", "cafe\u0301", True, id="accents-in-either-form"),
        pytest.param({"a": 1}, {"a": 1, "b": 2}, False, id="fewer-fields"),
    ],
)
def test_arguments_equal_the_reference_as_json(value: Json, expected: Json, same: bool):
    reference = Answer(calls=(Call("f", {"x": expected}),))
    assert scores(call("f", x=value), reference)[2] == same


@pytest.mark.parametrize(
    ("arguments", "acceptable"),
    [
        pytest.param({"d": "April 1, 2024"}, {"d": ["april 1 2024"]}, id="blanks-and-case"),
        pytest.param({"d": "b"}, {"d": ["a", "b"]}, id="any-of-the-values"),
        pytest.param({}, {"d": ["", "a"]}, id="may-be-left-out"),
        pytest.param({"d": ""}, {"d": ["", "a"]}, id="may-be-empty"),
        pytest.param({"d": 5}, {"d": [5.0]}, id="number"),
        pytest.param({"d": "caf\u00e9"}, {"d": ["Cafe\u0301"]}, id="accents-in-either-form"),
        pytest.param({"d": ["a b"]}, {"d": [["AB"]]}, id="list-of-text"),
        pytest.param(
            {"d": {"size": "large", "milk": "oat"}},
            {"d": [{"size": ["small"]}, {"size": ["large"], "milk": ["oat"], "ice": [""]}]},
            id="object-whose-fields-list-values",
        ),
        pytest.param({"d": {"n": 1}}, {"d": [{"n": 1}]}, id="object-with-a-plain-field"),
        pytest.param(
            {"d": [{"n": 1}, {"n": 2}]}, {"d": [[{"n": [1]}, {"n": [2, 3]}]]}, id="list-of-objects"
        ),
    ],
)
def test_acceptable_values_are_accepted(
    arguments: dict[str, Json], acceptable: dict[str, list[Json]]
):
    assert fits_call(Call("f", arguments), AcceptableCall("f", acceptable))


@pytest.mark.parametrize(
    ("arguments", "acceptable"),
    [
        pytest.param({"d": "c"}, {"d": ["a", "b"]}, id="none-of-the-values"),
        pytest.param({}, {"d": ["a"]}, id="required-is-missing"),
        pytest.param({"d": "a", "e": 1}, {"d": ["a"]}, id="argument-that-nobody-knows"),
        pytest.param({"d": "..."}, {"d": ["", "a"]}, id="punctuation-is-not-left-out"),
        pytest.param({"d": ""}, {"d": ["", 5]}, id="an-empty-text-is-no-number"),
        pytest.param({"d": ""}, {"d": [True, ""]}, id="an-empty-text-is-no-truth"),
        pytest.param({"d": ""}, {"d": ["", ["a"]]}, id="an-empty-text-is-no-list"),
        pytest.param({"d": {"n": ""}}, {"d": [{"n": ["", 5]}]}, id="nor-within-an-object"),
        pytest.param({"d": 1}, {"d": ["1"]}, id="number-for-text"),
        pytest.param({"d": True}, {"d": [1]}, id="true-for-one"),
        pytest.param({"d": {"size": "large", "x": 1}}, {"d": [{"size": ["large"]}]}, id="field"),
        pytest.param({"d": {}}, {"d": [{"size": ["large"]}]}, id="field-missing"),
        pytest.param({"d": ["a"]}, {"d": [["a", "b"]]}, id="list-too-short"),
    ],
)
def test_values_that_are_not_acceptable_are_rejected(
    arguments: dict[str, Json], acceptable: dict[str, list[Json]]
):
    assert not fits_call(Call("f", arguments), AcceptableCall("f", acceptable))


def test_acceptable_values_of_a_different_number_of_calls_accept_nothing():
    acceptable = AcceptableCall("weather", {"city": ["Rome"]})
    assert scores(call("weather", city="Rome"), ROME, [acceptable, acceptable]) == (1, 1, 0, None)
    assert scores("No.", ROME, []) == (0, 0, 0, None)


def test_acceptable_values_take_precedence_over_the_reference():
    either = [AcceptableCall("weather", {"city": ["Rome", "Roma"]})]
    assert scores(call("weather", city="ROMA"), ROME, either) == (1, 1, 1, None)
    assert scores(call("other", city="Roma"), ROME, either) == (1, 0, 0, None)
