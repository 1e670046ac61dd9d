"""Arguments are validated against their tool's own schema, and no schema makes a row fail."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.chat.tool_schema import reduce_schema
from components.curate import interaction
from components.curate.rules.structure import breaks_schema
from components.schema import Json
from tests.support import logs
from tests.support.curated_rows import row

PARAMETERS: dict[str, Json] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "where": {"type": "object", "properties": {"zip": {"type": "string"}}},
        "note": {"type": "string", "nullable": True},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def found(parameters: Json, arguments: Json) -> str | None:
    """Call a tool with these parameters."""
    tool: Json = {"type": "function", "function": {"name": "w", "parameters": parameters}}
    return breaks_schema(interaction.read(row(tools=[tool], message=logs.call("w", arguments))))


@pytest.mark.parametrize(
    ("arguments", "mark"),
    [
        pytest.param({"city": "Rome", "days": 2, "unit": "C"}, None, id="right"),
        pytest.param({"city": "Rome", "days": 2.0}, None, id="whole-number"),
        pytest.param({"city": "Rome", "note": None}, None, id="nullable"),
        pytest.param({"days": 2}, "w: required", id="missing"),
        pytest.param({"city": 3}, "w.city: type", id="type"),
        pytest.param({"city": "Rome", "days": "2"}, "w.days: type", id="number-as-text"),
        pytest.param({"city": "Rome", "days": 0}, "w.days: minimum", id="bound"),
        pytest.param({"city": "Rome", "unit": "K"}, "w.unit: enum", id="choice"),
        pytest.param({"city": "Rome", "town": "x"}, "w: additionalProperties", id="unknown"),
        pytest.param({"city": "Rome", "tags": ["a", 1]}, "w.tags[]: type", id="item"),
        pytest.param({"city": "Rome", "where": {"zip": 1}}, "w.where.zip: type", id="nested"),
    ],
)
def test_arguments_are_validated_against_the_schema(arguments: Json, mark: str | None):
    assert found(PARAMETERS, arguments) == mark


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"type": "dict", "properties": {"a": {"type": "float"}}}, id="python-types"),
        pytest.param({"properties": {"a": {"type": "any"}}}, id="any"),
        pytest.param({"properties": {"a": {"type": ["tuple", "string"]}}}, id="one-of-unknown"),
        pytest.param({"properties": {"a": {"type": "integer", "$ref": "#/x"}}}, id="reference"),
        pytest.param({"$ref": "https://example.org/schema.json"}, id="reference-elsewhere"),
        pytest.param({"properties": {"a": {"pattern": "(a+)+$"}}}, id="pattern"),
        pytest.param({"required": True}, id="required-is-no-list"),
        pytest.param({"properties": ["a"]}, id="properties-are-a-list"),
        pytest.param({"properties": {"a": {"enum": "x|y"}}}, id="enum-is-text"),
        pytest.param({"properties": {"a": {"enum": []}}}, id="empty-enum"),
        pytest.param(
            {"additionalProperties": False, "patternProperties": {"a": {}}}, id="pattern-properties"
        ),
        pytest.param(
            {"oneOf": [{"properties": {"a": {"type": "dict"}}}, {"required": ["a"]}]}, id="one-of"
        ),
    ],
)
def test_invalid_json_schema_is_not_checked(parameters: Json):
    assert found(parameters, {"a": "x"}) is None


def test_arguments_nested_deeper_than_can_be_checked_pass():
    deep: dict[str, Json] = {}
    for _ in range(400):
        deep = {"a": deep}
    assert found(PARAMETERS, json.dumps({"city": "Rome"} | deep)) in (
        None,
        "w: additionalProperties",
    )


names = st.sampled_from(["a", "b", "object", "string", "dict"])
keywords = st.sampled_from(
    ["type", "enum", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf"]
) | st.sampled_from(
    ["allOf", "minimum", "maxLength", "nullable", "$ref", "pattern", "not", "patternProperties"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab$", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(keywords | names, inner, max_size=4)
    ),
    max_leaves=12,
)
schemas = st.dictionaries(keywords, values | names | st.lists(names), max_size=5)


@given(schemas, st.dictionaries(names, values, max_size=3))
def test_no_schema_makes_a_row_fail_and_none_becomes_stricter(
    schema: dict[str, Json], arguments: dict[str, Json]
):
    reduced = jsonschema_rs.Draft202012Validator(reduce_schema(schema))
    try:
        whole = jsonschema_rs.Draft202012Validator(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
        return
    if whole.is_valid(arguments):
        assert reduced.is_valid(arguments)
