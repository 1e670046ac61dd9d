"""No refused record is lost, neither one of several parts nor one that can't be serialized."""

import base64
from pathlib import Path

import pytest

from components.collect.source import Defaults, Input
from components.schema import Json
from tests.components.extensions.sources.test_mlflow_traces import span, trace
from tests.support import logs, warehouses


def test_every_refused_part_is_kept_with_its_own_reason(tmp_path: Path):
    line = trace(span(1, spanInputs=None), span(2, spanOutputs=None), span(3))
    path = logs.write(tmp_path / "a.jsonl", [line])
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        loaded = logs.load_input(con, Input(str(path), defaults=Defaults("w", "c")), now=logs.NOW)
        kept = con.execute("select line, reason, content from raw.quarantine").fetchall()
    assert (loaded.new, loaded.quarantined) == (1, 2)
    assert {number for number, _, _ in kept} == {1}
    assert len({reason for _, reason, _ in kept}) == 2
    spans = [base64.b64encode(bytes([number] * 8)) for number in (1, 2)]
    assert all(sum(span in content for _, _, content in kept) == 1 for span in spans)


def test_a_record_that_is_nested_too_deeply_is_quarantined_whole(tmp_path: Path):
    deep = '{"timestamp":1760000000,"client_id":"c","response":{},"request":{"messages":[],"x":'
    line = deep + "[" * 201 + "]" * 201 + "}}"
    (tmp_path / "a.jsonl").write_text(line + "\n")
    item = Input(str(tmp_path / "a.jsonl"), source="fivekey", defaults=Defaults("w", "c"))
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        loaded = logs.load_input(con, item, now=logs.NOW)
        kept = con.execute("select content::blob from raw.quarantine").fetchall()
    assert (loaded.new, loaded.quarantined) == (0, 1)
    assert kept == [(line.encode(),)]


def test_a_fully_unreadable_file_is_quarantined_line_by_line(tmp_path: Path):
    lines: list[dict[str, Json]] = [{"unknown": number} for number in range(2_500)]
    item = Input(str(logs.write(tmp_path / "a.jsonl", lines)), defaults=Defaults("w", "c"))
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        assert logs.load_input(con, item, now=logs.NOW).quarantined == 2_500
        ((kept,),) = con.execute("select count(distinct line) from raw.quarantine").fetchall()
    assert kept == 2_500


@pytest.mark.parametrize(
    "line",
    [
        pytest.param({"custom_id": "1", "method": "POST", "url": "/v1", "body": {}}, id="asked"),
        pytest.param(
            {"id": "b", "custom_id": "1", "response": {"body": {}}, "error": None}, id="answered"
        ),
        pytest.param({"custom_id": "1", "params": {"messages": []}}, id="asked-of-anthropic"),
        pytest.param({"custom_id": "1", "result": {"message": {}}}, id="answered-by-anthropic"),
        pytest.param({"key": "1", "request": {"contents": []}}, id="asked-of-gemini"),
        pytest.param({"key": "1", "response": {"candidates": []}}, id="answered-by-gemini"),
        pytest.param(
            {"id": "e", "type": "generation-create", "timestamp": "2026-01-01", "body": {}},
            id="an-event-of-langfuse",
        ),
    ],
)
def test_a_part_of_a_call_is_of_no_known_form_and_the_remedy_says_how_to_join_it(
    line: dict[str, Json], tmp_path: Path
):
    item = Input(str(logs.write(tmp_path / "a.jsonl", [line])), defaults=Defaults("w", "c"))
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        (reason,) = logs.load_input(con, item, now=logs.NOW).reasons
    assert reason.reason.startswith("missing keys: ")
    assert reason.remedy.startswith("no source recognizes these records")
    assert "the two files of a batch are joined" in reason.remedy
