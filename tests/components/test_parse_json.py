"""The fast parser reads what `json` reads, as it reads it."""

import json

import pytest

from components.schema import parse_json


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(r'"\ud800, \ud83d\ude00"', id="half-a-pair-beside-a-whole-one"),
        pytest.param("[" * 400 + "1.5" + "]" * 400, id="deeply-nested"),
        pytest.param("[123456789012345678901234567890, -0, -0.0, 1e400, 4.35, 1E5]", id="numbers"),
        pytest.param('{"b": 1, "a": [null, true], "b": {"\u00e9": "\u2028"}}', id="twice-a-key"),
        pytest.param("[NaN, Infinity, -Infinity]", id="not-numbers"),
    ],
)
def test_it_reads_what_json_reads(text: str):
    assert repr(parse_json(text)) == repr(json.loads(text))


def test_what_is_not_json_fails_as_with_json():
    with pytest.raises(json.JSONDecodeError, match="Expecting value"):
        parse_json('{"a": }')
