"""Rows of other sets are read in every format, each once, except rows that overlap with tests."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate import replay
from components.curate.replay import ReplayError, SpokenFor
from components.curate.row_budget import Budget
from components.schema import Answer, Call, Json
from tests.support import logs

ASKED: Json = [{"role": "user", "content": "Weather in Rome?"}]


def line(answer: Json, **more: Json) -> str:
    assert isinstance(ASKED, list)
    return json.dumps({"messages": [*ASKED, answer], **more}) + "\n"


def test_lines_of_fine_tuning_files_are_read_packed_or_not(tmp_path: Path):
    text = line(logs.call("weather", "{}"), tools=[logs.WEATHER]) + "\n" + line(logs.say("Sunny."))
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    rows = replay.read_replayed([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"])
    assert len(rows) == 2, "what both hold is read once"
    assert all(json.loads(row.messages) == ASKED for row in rows)
    assert sorted(len(json.loads(row.tools)) for row in rows) == [0, 1]
    assert all(row.replay_id.startswith("replay-") for row in rows)
    assert rows == replay.read_replayed([tmp_path / "b.jsonl.gz"]), "the order is the rows' own"


def test_the_training_rows_of_a_snapshot_are_read_as_they_were_logged(tmp_path: Path):
    answer = Answer("", (Call("weather", {"city": "Rome"}),))
    columns = {"messages": [json.dumps(ASKED)], "tools": ["[]"], "answer": [answer.to_json()]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    (row,) = replay.read_replayed([tmp_path])
    assert replay.read_replayed([tmp_path / "train.parquet"]) == [row]
    assert json.loads(row.message)["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": {"city": "Rome"},
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.jsonl", "{oops", id="no-json"),
        pytest.param("a.jsonl", '{"text": "x"}', id="no-messages"),
        pytest.param("a.jsonl", '{"messages": [{"role": "user"}]}', id="no-answer"),
        pytest.param("a.jsonl", "[1]", id="no-object"),
        pytest.param("a.jsonl", "[" * 100_000, id="nested-too-deep"),
        pytest.param("a.jsonl.gz", gzip.compress(b"x" * 99)[:-9], id="cut-off"),
        pytest.param("a.jsonl.gz", gzip.compress(b"x" * 99)[:10] + b"x" * 20, id="damaged"),
        pytest.param("a.parquet", "x", id="no-parquet"),
        pytest.param("gone.jsonl", None, id="gone"),
    ],
)
def test_an_invalid_source_is_rejected_with_its_name(
    tmp_path: Path, name: str, content: str | bytes | None
):
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ReplayError, match=f"replaying .*{name}: .*expected a snapshot folder"):
        replay.read_replayed([tmp_path / name])


def test_the_line_of_a_file_that_is_wrong_is_named(tmp_path: Path):
    source = tmp_path / "a.jsonl"
    source.write_text(line(logs.say("Sunny.")) + "\n" + '{"messages": []}\n')
    with pytest.raises(ReplayError, match=r'line 3 has no messages .*: {"messages": \[\]}'):
        replay.read_replayed([source])


def test_shared_requests_ties_and_tools_are_forbidden():
    spoken_for = SpokenFor(
        requests=frozenset({replay.request_key('[{"a": 1, "b": 2}]', "[]")}),
        ties=frozenset({"conversation"}),
        tools=frozenset({"weather"}),
    )
    assert spoken_for.forbids('[{"b":2,"a":1}]', "[]", [], []), "however its JSON is written"
    assert spoken_for.forbids("[]", "[]", ["request", "conversation"], [])
    assert spoken_for.forbids("[]", "[]", [], ["weather"])
    assert not spoken_for.forbids("[]", "[]", ["request"], ["news"])


@given(st.lists(st.integers(1, 20)), st.floats(0.01, 0.9), st.integers(1, 50), st.integers(1, 500))
def test_replayed_rows_keep_to_their_share_of_the_budget(
    tokens: list[int], share: float, rows: int, most: int
):
    count = replay.reserve(tokens, share, Budget(rows, most))
    assert count <= len(tokens)
    assert count <= rows * share
    assert sum(tokens[:count]) <= most * share


def test_the_share_is_of_all_training_rows():
    assert replay.replay_count(90, 0.1) == 10
    assert replay.reserve([0] * 7, 0.5, Budget(None, None)) == 7
