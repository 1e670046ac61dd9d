"""Production's tokens: as logged, else counted from the texts, else unknown."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.chat import token_counts
from components.costs import Usage
from components.schema import Answer, Call, Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs, tiny, warehouses

TOOL: Json = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASKED: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
]
CALL = Answer(calls=(Call("weather", {"city": "Rome"}),))


def holdout(folder: Path, ids: list[str], answer: Answer = CALL, **more: str | None) -> Path:
    row = {
        "interaction_ids": ids,
        "messages": json.dumps(ASKED, indent=1),
        "tools": json.dumps([TOOL], indent=1),
        "answer": answer.to_json(),
        # Of the compact text that our models read; an API bills what was sent.
        "prompt_tokens": 9,
        "answer_tokens": 3,
        **more,
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "holdout.parquet")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base with a tokenizer of bytes."""
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def logged(con: Connection, folder: Path, used: Json, model: str = "large") -> list[str]:
    """Load an interaction whose response has this ``usage``, and return the ids of all."""
    line = logs.interaction()
    response = line["response"]
    assert isinstance(response, dict)
    line["response"] = {**response, "usage": used, "model": model}
    logs.load(con, logs.write(folder / f"{model}.jsonl", [line]), now=logs.NOW)
    return [str(row["interaction_id"]) for row in warehouse.rows(con, "from raw.interactions")]


def production(folder: Path, snapshot: Path, base: Path, ratio: float = 1.0) -> Usage | None:
    return token_counts.production_usage(
        warehouses.location(folder / "warehouse.duckdb"),
        folder / "scratch",
        snapshot,
        base,
        ratio,
    )


def test_logged_tokens_take_precedence_over_counted_ones(tmp_path: Path, base: Path) -> None:
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        ids = logged(con, tmp_path, {"prompt_tokens": 120, "completion_tokens": 8})
    found = production(tmp_path, holdout(tmp_path, ids), base, ratio=3)
    assert found == Usage(120, 8, 1, token_counts.LOGGED)


def test_several_models_that_are_priced_as_one_are_named_as_such(
    tmp_path: Path, base: Path
) -> None:
    used: Json = {"prompt_tokens": 120, "completion_tokens": 8}
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        for model in ("large", "small"):
            ids = logged(con, tmp_path, used, model)
    found = production(tmp_path, holdout(tmp_path, ids), base)
    assert found is not None
    assert found.source == f"{token_counts.LOGGED}, of 2 models that are priced as one"


def test_without_usage_in_the_logs_messages_and_schemas_are_counted_as_they_were_sent(
    tmp_path: Path, base: Path
) -> None:
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        ids = logged(con, tmp_path, None)
    found = production(tmp_path, holdout(tmp_path, ids), base)
    dearer = production(tmp_path, holdout(tmp_path, ids), base, ratio=1.5)
    schema = json.dumps(TOOL, separators=(",", ":"))
    texts = len("Be brief.") + len("Weather in Rome?") + len(schema)
    called = len('{"name":"weather","arguments":{"city":"Rome"}}')
    asked = texts + token_counts.MESSAGE_TOKENS * 3
    assert found == Usage(asked, called, 1, token_counts.describe_count(1))
    assert dearer is not None
    assert dearer == Usage(1.5 * asked, 1.5 * called, 1, token_counts.describe_count(1.5))
    assert "x 1.5 (cost.production_token_ratio)" in dearer.source


def test_the_logged_answer_is_counted_and_not_its_correction(tmp_path: Path, base: Path) -> None:
    snapshot = holdout(tmp_path, ["i"], logged_answer=Answer("I do not know").to_json())
    found = production(tmp_path, snapshot, base)
    assert found is not None
    assert found.output == len("I do not know")


def test_a_base_whose_tokenizer_cannot_be_read_here_leaves_the_tokens_unknown(
    tmp_path: Path,
) -> None:
    assert production(tmp_path, holdout(tmp_path, ["i"]), tmp_path / "no base") is None
