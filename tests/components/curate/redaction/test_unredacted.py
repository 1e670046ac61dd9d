"""Allowed values are listed, so that a model can be tested for them."""

import pytest

from components.curate.redaction import redactor
from components.curate.redaction.patterns import Kind
from components.curate.settings import Redaction


def test_without_allowed_values_there_is_no_finder():
    assert redactor.unredacted_finder(Redaction()) is None


@pytest.mark.parametrize(
    ("answer", "values"),
    [
        pytest.param("Write to ann@corp.com.", ["ann@corp.com"], id="one"),
        pytest.param(
            "Ask ann@corp.com (or bob@corp.com), then ann@corp.com.",
            ["ann@corp.com", "bob@corp.com"],
            id="each-once",
        ),
        pytest.param("<EMAIL_1> wrote to ann@corp.com", ["ann@corp.com"], id="no-placeholder"),
        pytest.param("It rains.", [], id="none"),
        pytest.param('{"name": "send", "arguments": {"to": "ann@corp.com"}}', ["ann@corp.com"],
                     id="call"),
    ],
)  # fmt: skip
def test_allowed_values_are_found_in_answers(answer: str, values: list[str]):
    find = redactor.unredacted_finder(Redaction(off=(Kind.EMAIL,)))
    assert find is not None
    assert find(answer) == values
