"""Which answers a request's grammar allows, by form, tools, choice and format."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import pytest

from components.chat import answer_grammar, dialects
from components.chat.answer_grammar import UnsupportedSchemaError
from components.chat.dialects import Dialect
from components.models.constrained import Vocabulary
from components.schema import Json
from tests.support import tiny

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Reach: TypeAlias = Callable[[str | None, str], str]

WEATHER: dict[str, Json] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city"],
}
ODD = 'q"\\ 100%\né\t{}'
FORMS: tuple[Dialect, ...] = ("written", "hermes", "llama3")


def tool(name: str, parameters: Json = None) -> dict[str, Json]:
    """Return an OpenAI tool."""
    body: dict[str, Json] = {"name": name}
    if parameters is not None:
        body["parameters"] = parameters
    return {"type": "function", "function": body}


NOTHING: dict[str, Json] = {"type": "object", "additionalProperties": False}
TOOLS = [tool("get_weather", WEATHER), tool("get", NOTHING), tool(ODD, {"type": "object"})]


@pytest.fixture(scope="module")
def vocabulary() -> "tuple[PreTrainedTokenizerFast, Vocabulary]":
    """Return the tests' tokenizer, whose tokens are bytes."""
    tokenizer = tiny.tokenizer()
    made = Vocabulary(tokenizer, len(tokenizer))
    return tokenizer, made


@pytest.fixture(name="reach")
def reaching(vocabulary: "tuple[PreTrainedTokenizerFast, Vocabulary]") -> Reach:
    """Return how far a grammar follows a text: to a possible end, into its midst, or not at all."""
    tokenizer, made = vocabulary

    def reach(grammar: str | None, text: str) -> str:
        assert grammar is not None
        matcher = made.start(grammar)
        for token in tokenizer.encode(text, add_special_tokens=False):
            if not matcher.allows(token):
                return "refused"
            matcher.consume(token)
        return "may end" if matcher.may_end else "goes on"

    return reach


def call(form: Dialect, name: str, arguments: dict[str, Json]) -> str:
    """Return a call as the form writes it."""
    return dialects.write_answer(form, dialects.Answer("", (dialects.Call(name, arguments),)))


SEPARATOR: dict[Dialect, str] = {"written": "\n", "hermes": "\n", "llama3": "; "}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("answer", "reached"),
    [
        pytest.param("", "may end", id="nothing"),
        pytest.param('Braces {x} {} {{"a": 1}, "quotes', "may end", id="braces-and-quotes"),
        pytest.param('{"name"} or {"name": 5}', "may end", id="begins-like-a-call"),
        pytest.param('"arguments": {} and "name": "x"', "may end", id="keys-outside-of-an-object"),
        pytest.param('{"id": 1, "name": "x", "n": {}}', "may end", id="data-with-a-name"),
        pytest.param(call("written", "get_weather", {"city": "Bern"}), None, id="a-call"),
        pytest.param(call("written", ODD, {"a": [{"name": "x"}]}), None, id="odd-name"),
        pytest.param(call("written", "get", {}) + " and text", None, id="text-after-a-call"),
        pytest.param('{ "name" :\n"get" , "arguments" : { } }', None, id="blanks"),
        pytest.param('{"name": "nobody', "refused", id="unknown-tool"),
        pytest.param('a {\n"name":"nobody', "refused", id="unknown-tool-after-text"),
        pytest.param(call("written", "get", {"a": 1}), "refused", id="no-parameters"),
        pytest.param(call("written", "get_weather", {}), "refused", id="required-one-missing"),
        pytest.param(
            call("written", "get_weather", {"city": "", "unit": "K"}), "refused", id="not-in-enum"
        ),
        pytest.param('{"arguments": {}, "name": "x"}', "refused", id="arguments-first"),
        pytest.param(
            '{"id": 1, "\\u0061rgu\\u006dents" : {', "refused", id="arguments-in-another-spelling"
        ),
        pytest.param(
            '{"arguments": {"name": "get", "arguments": {}}', "refused", id="a-call-in-arguments"
        ),
        pytest.param('{"name": "get", "argu', "goes on", id="cut-off"),
    ],
)
def test_text_is_free_and_calls_are_of_offered_tools(
    reach: Reach, form: Dialect, answer: str, reached: str | None
):
    grammar = answer_grammar.of_request(form, TOOLS)
    assert reach(grammar, answer) == (reached or "may end")


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_is_text_and_calls_as_the_form_writes_them(reach: Reach, form: Dialect):
    calls = SEPARATOR[form].join([call(form, "get", {}), call(form, "get_weather", {"city": "x"})])
    assert reach(answer_grammar.of_request(form, TOOLS), f"Sure:\n{calls}") == "may end"


@pytest.mark.parametrize(
    ("answer", "reached"),
    [
        pytest.param("<tool_call>\n", "goes on", id="a-tag-begins-a-call"),
        pytest.param('<tool_call>{"na', "goes on", id="without-a-line"),
        pytest.param("<tool_call>text", "refused", id="a-tag-without-a-call"),
        pytest.param("x</tool_call>", "refused", id="an-end-without-a-beginning"),
        pytest.param(
            '{"arguments": <tool_call>{"name": "get", "arguments": {}}</tool_call>',
            "refused",
            id="tags-that-the-reader-drops",
        ),
        pytest.param('<think>{"name": "x"', "goes on", id="thoughts-must-end"),
        pytest.param('<think>{"name": "x"</think>{"name": "x', "refused", id="a-call-after-them"),
        pytest.param('<think>{"name": "x"</think>\n\nNo.', "may end", id="text-after-them"),
        pytest.param('a <think>{"name": "x', "refused", id="thoughts-come-first"),
    ],
)
def test_hermes_tags_and_thoughts(reach: Reach, answer: str, reached: str):
    assert reach(answer_grammar.of_request("hermes", TOOLS), answer) == reached


def test_llama3_calls_have_either_key_and_may_follow_a_python_tag(reach: Reach):
    grammar = answer_grammar.of_request("llama3", TOOLS)
    for key in ("parameters", "arguments"):
        assert reach(grammar, f'<|python_tag|>{{"name": "get", "{key}": {{}}}}') == "may end"
    assert reach(grammar, '{"parameters": {') == "refused"


@pytest.mark.parametrize("form", FORMS)
def test_tool_choice(reach: Reach, form: Dialect):
    get, weather = call(form, "get", {}), call(form, "get_weather", {"city": ""})

    never = answer_grammar.of_request(form, TOOLS, "none")
    assert [reach(never, text) for text in (get, "No {calls}")] == ["refused", "may end"]

    always = answer_grammar.of_request(form, TOOLS, "required")
    both = f"{get}{SEPARATOR[form]}{weather}"
    assert [reach(always, text) for text in (get, both)] == ["may end", "may end"]
    assert [reach(always, text) for text in ("", "Hi", f"{get} x")] == ["goes on", *["refused"] * 2]

    named: dict[str, Json] = {"type": "function", "function": {"name": "get"}}
    only = answer_grammar.of_request(form, TOOLS, named, parallel=False)
    assert [reach(only, text) for text in (get, weather, both)] == ["may end", *["refused"] * 2]

    some: dict[str, Json] = {"mode": "auto", "tools": [named]}
    allowed = answer_grammar.of_request(
        form, TOOLS, {"type": "allowed_tools", "allowed_tools": some}
    )
    assert [reach(allowed, text) for text in (get, weather, "Hi")] == [
        *("may end", "refused", "may end")
    ]


@pytest.mark.parametrize("form", FORMS)
def test_one_call_at_most_unless_parallel(reach: Reach, form: Dialect):
    get = call(form, "get", {})
    grammar = answer_grammar.of_request(form, TOOLS, parallel=False)
    assert reach(grammar, f"Hi {get} bye") == "may end"
    assert reach(grammar, f"{get}{SEPARATOR[form]}{get}") == "refused"


PERSON: dict[str, Json] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("form", FORMS)
def test_response_format(reach: Reach, form: Dialect):
    schema: dict[str, Json] = {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": PERSON},
    }
    alone = answer_grammar.of_request(form, [], None, schema)
    assert [reach(alone, text) for text in ('{"name": "Bob", "age": 3}', "Bob", '{"age": 3}')] == [
        *("may end", "refused", "refused")
    ]
    beside_tools = answer_grammar.of_request(form, TOOLS, None, schema)
    allowed = ('{"name": "get_weather", "age": 3}', call(form, "get_weather", {"city": "x"}))
    assert {reach(beside_tools, text) for text in allowed} == {"may end"}
    assert {reach(beside_tools, text) for text in ("Hi", call(form, "Bob", {}))} == {"refused"}
    anything = answer_grammar.of_request(form, [], None, {"type": "json_object"})
    assert [reach(anything, text) for text in ('{"a": [1]}', "[]")] == ["may end", "refused"]


def test_no_constraint_where_nothing_is_asked_for():
    assert answer_grammar.of_request("written", []) is None
    assert answer_grammar.of_request("written", [], "none", {"type": "text"}) is None


def test_labels(reach: Reach):
    grammar = answer_grammar.of_labels(["a", "ab", ODD])
    assert [reach(grammar, text) for text in ("a", "ab", ODD)] == ["may end"] * 3
    assert [reach(grammar, text) for text in ("", "abc", "b")] == ["goes on", *["refused"] * 2]


def test_of_two_tools_with_one_name_the_last_counts(reach: Reach):
    tools = [tool("get", WEATHER), tool("get", {"type": "object", "additionalProperties": False})]
    grammar = answer_grammar.of_request("written", tools)
    assert reach(grammar, call("written", "get", {})) == "may end"
    assert reach(grammar, call("written", "get", {"city": "x"})) == "refused"


def test_a_tool_without_parameters_takes_any_arguments(reach: Reach):
    grammar = answer_grammar.of_request("written", [tool("get")])
    several: list[dict[str, Json]] = [{}, {"city": [1, {"a": None}]}]
    for arguments in several:
        assert reach(grammar, call("written", "get", arguments)) == "may end"


def test_recursive_schema(reach: Reach):
    tree: dict[str, Json] = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"$ref": "#"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    grammar = answer_grammar.of_request("written", [tool("get", tree)])
    deep: dict[str, Json] = {"value": 1, "next": {"value": 2, "next": {"value": 3}}}
    assert reach(grammar, call("written", "get", deep)) == "may end"
    wrong: dict[str, Json] = {"value": 1, "next": {"value": "x"}}
    assert reach(grammar, call("written", "get", wrong)) == "refused"


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"type": "string"}, id="not-an-object"),
        pytest.param([], id="not-a-schema"),
        pytest.param({"not": {"required": ["a"]}}, id="not"),
        pytest.param({"properties": {"a": {"pattern": "^(?=a)"}}}, id="lookahead"),
        pytest.param({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, id="a-file"),
        pytest.param({"properties": {"a": False}, "required": ["a"]}, id="impossible"),
        pytest.param({"properties": {"a": {"minItems": 10**9}}}, id="a-billion-items"),
        pytest.param({"properties": {"\ud800": True}}, id="a-lone-surrogate"),
        pytest.param({"enum": [str(n) for n in range(100_000)]}, id="huge"),
    ],
)
def test_unsupported_schema_is_refused(parameters: Json):
    with pytest.raises(UnsupportedSchemaError, match="constraining"):
        answer_grammar.of_request("written", [tool("get", parameters)])


def test_deep_schema_is_refused():
    schema: dict[str, Json] = {"type": "string"}
    for _ in range(100):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(UnsupportedSchemaError, match="40 levels"):
        answer_grammar.of_request("written", [tool("get", schema)])


def referring(count: int, names: str = "d{}") -> dict[str, Json]:
    """Return a schema of a list in a list, so many times, each by a reference."""
    places = [names.format(number) for number in range(count)]
    lists: dict[str, Json] = {
        name: {"type": "array", "items": {"$ref": f"#/$defs/{following}"}}
        for name, following in zip(places, [*places[1:], "last"], strict=True)
    }
    first: Json = {"$ref": f"#/$defs/{places[0]}"}
    last: dict[str, Json] = {"last": {"type": "null"}}
    return {"properties": {"a": first}, "$defs": lists | last}


@pytest.mark.parametrize("names", ["d{}", 'd"{}', "d%20{}"])
def test_references_that_would_overflow_the_stack_are_refused(names: str):
    with pytest.raises(UnsupportedSchemaError, match="at most 600 are supported"):
        answer_grammar.of_request("written", [tool("get", referring(1900, names))])


def test_many_references_are_followed(reach: Reach):
    grammar = answer_grammar.of_request("written", [tool("get", referring(190))])
    assert reach(grammar, call("written", "get", {"a": [[[]]]})) == "may end"
    assert reach(grammar, call("written", "get", {"a": [[[1]]]})) == "refused"


def test_nested_objects_that_refer_to_each_other_are_followed(reach: Reach):
    objects: dict[str, Json] = {
        f"d{n}": {"type": ["object", "null"], "properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}}}
        for n in range(148)
    }
    schema: Json = {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**objects, "d148": {}}}
    grammar = answer_grammar.of_request("written", [tool("get", schema)])
    assert reach(grammar, call("written", "get", {"a": {"a": {}}})) == "may end"
    assert reach(grammar, call("written", "get", {"a": {"a": 1}})) == "refused"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param({"type": "any"}, 1, id="an-unknown-type-checks-nothing"),
        pytest.param({"type": "string", "format": "password"}, "x", id="unknown-format"),
        pytest.param({"type": "string", "nullable": True}, None, id="nullable"),
        pytest.param({"type": "array", "maxItems": 10**12}, [1], id="vast-maximum"),
        pytest.param({"type": "array", "uniqueItems": False}, [1, 1], id="uniqueItems-false"),
        pytest.param({"minimum": 1, "exclusiveMinimum": False}, 1, id="draft-4"),
        pytest.param({"x-guidance": {"lenient": True}, "type": "string"}, "x", id="an-extension"),
    ],
)
def test_what_json_schema_ignores_is_ignored(reach: Reach, schema: Json, value: Json):
    grammar = answer_grammar.of_request("written", [tool("get", {"properties": {"a": schema}})])
    assert reach(grammar, call("written", "get", {"a": value})) == "may end"


@pytest.mark.parametrize(
    ("tools", "choice", "form"),
    [
        pytest.param([{"name": "get"}], None, None, id="tool"),
        pytest.param(TOOLS, "always", None, id="choice"),
        pytest.param(TOOLS, {"type": "function", "function": {"name": "x"}}, None, id="name"),
        pytest.param([], "required", None, id="required-without-tools"),
        pytest.param([], None, {"type": "yaml"}, id="format"),
    ],
)
def test_malformed_request_is_refused(
    tools: Sequence[Mapping[str, Json]], choice: Json, form: Json
):
    with pytest.raises(ValueError, match=r"expected|offered"):
        answer_grammar.of_request("written", tools, choice, form)


NESTED: dict[str, Json] = {
    "type": "object",
    "properties": {
        "where": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": "integer", "minimum": 10}},
            "required": ["city", "zip"],
            "additionalProperties": False,
        },
        "days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 1, "maxItems": 2},
        "note": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/day"}]},
    },
    "required": ["where"],
    "$defs": {
        "day": {
            "type": "object",
            "properties": {"day": {"enum": ["Mon", "Tue"]}, "hour": {"type": "integer"}},
            "required": ["day"],
        }
    },
}


@pytest.mark.parametrize(
    ("arguments", "reached"),
    [
        pytest.param({"where": {"city": "x", "zip": 10}}, "may end", id="in-order"),
        pytest.param(
            {"days": [{"hour": 1, "day": "Mon"}], "where": {"zip": 10, "city": "x"}},
            "may end",
            id="in-another-order",
        ),
        pytest.param(
            {"more": [1, {}], "note": {"hour": 1, "day": "Tue", "m": 2}, "where": None},
            "refused",
            id="more-first-and-a-wrong-value",
        ),
        pytest.param(
            {"more": [1, {}], "note": None, "where": {"zip": 10, "city": ""}, "n": "x"},
            "may end",
            id="more-anywhere",
        ),
        pytest.param({"days": [{"day": "Mon"}]}, "refused", id="without-a-required-one"),
        pytest.param({"where": {"zip": 9, "city": "x"}}, "refused", id="too-small"),
        pytest.param({"where": {"zip": 10, "city": "", "x": 1}}, "refused", id="one-too-many"),
        pytest.param({"days": [], "where": {"zip": 10, "city": ""}}, "refused", id="too-few"),
        pytest.param({"days": [{"day": "Mon"}] * 3}, "refused", id="too-many"),
    ],
)
def test_arguments_come_in_any_order(reach: Reach, arguments: dict[str, Json], reached: str):
    grammar = answer_grammar.of_request("written", [tool("get", NESTED)])
    assert reach(grammar, call("written", "get", arguments)) == reached


@pytest.mark.parametrize("again", ['"city"', '"\\u0063ity"'])
def test_no_argument_comes_twice_in_any_spelling(reach: Reach, again: str):
    grammar = answer_grammar.of_request("written", [tool("get", WEATHER)])
    text = f'{{"name": "get", "arguments": {{"city": "x", {again}: 5}}}}'
    assert reach(grammar, text) == "refused"


def test_definitions_that_multiply_take_no_time(reach: Reach):
    parts: dict[str, dict[str, Json]] = {
        f"d{n}": {
            "type": "object",
            "properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}},
        }
        for n in range(30)
    }
    schema: dict[str, Json] = {**parts["d0"], "$defs": {**parts, "d30": {"type": "integer"}}}
    grammar = answer_grammar.of_request("written", [tool("get", schema)])
    assert reach(grammar, call("written", "get", {"b": {"b": {"a": {}}}})) == "may end"
    assert reach(grammar, call("written", "get", {"b": {"b": 1}})) == "refused"
