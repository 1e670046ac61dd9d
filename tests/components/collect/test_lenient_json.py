"""What DuckDB reads as JSON and Python doesn't: it neither ends a run nor costs another line."""

import json
from pathlib import Path

import pytest

from components.collect import survey
from components.collect.source import Input
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs

LINE = logs.interaction()
THUMB = logs.feedback()
DIGITS = "1" * 5_000


def add(line: dict[str, Json], text: str) -> str:
    """Write a line with text before its last bracket."""
    return json.dumps(line)[:-1] + text + "}"


@pytest.mark.parametrize("line", [LINE, THUMB], ids=["interaction", "feedback"])
@pytest.mark.parametrize("text", [",", ",\t ", ', "x": [1, ]'])
def test_a_line_with_a_comma_before_a_bracket_is_quarantined(
    line: dict[str, Json], text: str, con: Connection, tmp_path: Path
):
    content = add(line, text)
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(line)}\n{content}\n")
    loaded = logs.load_input(con, Input(str(tmp_path / "a.jsonl")), now=logs.NOW)
    assert (loaded.new, loaded.known, loaded.quarantined) == (1, 0, 1)
    assert con.execute("select line, content from raw.quarantine").fetchall() == [
        (2, content.encode())
    ]


@pytest.mark.parametrize("text", ["[a, ]", 'a ",} b', "\\,]", 'ends in \\",'])
def test_a_text_with_a_comma_before_a_bracket_is_loaded(text: str, con: Connection, tmp_path: Path):
    lines = [logs.interaction(text), logs.feedback("comment", text)]
    for number, line in enumerate(lines):
        path = logs.write(tmp_path / f"{number}.jsonl", [line])
        loaded = logs.load_input(con, Input(str(path)), now=logs.NOW)
        assert (loaded.new, loaded.quarantined) == (1, 0)


def test_a_number_of_too_many_digits_for_python_stays_as_it_is(con: Connection, tmp_path: Path):
    content = add(LINE, f', "metadata": {{"serial": {DIGITS}}}')
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(LINE)}\n{content}\n")
    loaded = logs.load_input(con, Input(str(tmp_path / "a.jsonl")), now=logs.NOW)
    assert (loaded.new, loaded.known, loaded.quarantined) == (1, 1, 0)
    (sample,) = survey.sample(con, "weather")
    assert sample["metadata"] == {"serial": DIGITS}
