"""A snapshot's pairs and labels, from people's feedback."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.curate.settings import Rules
from components.dataset.snapshot_figures import Snapshot
from components.schema import Json
from components.store import manifest
from components.store.warehouse import Connection
from tests.support import curations, logs, warehouses

RULES = Rules(holdout_share=0.5, validation_share=0)
ROWS = 40


@pytest.fixture
def con(tmp_path: Path):
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        lines = [
            logs.interaction(
                f"ask {n}",
                tools=[logs.tool(f"tool_{n}")],
                message=logs.call(f"tool_{n}", {"unit": "C", "city": "Rome"}),
                response_id=f"r{n}",
            )
            for n in range(ROWS)
        ]
        logs.load(con, logs.write(tmp_path / "log.jsonl", lines), now=logs.NOW)
        yield con


def freeze(con: Connection, folder: Path, feedback: Sequence[dict[str, Json]] = ()) -> Snapshot:
    folder.mkdir(exist_ok=True)
    logs.load_feedback(con, logs.write(folder / "feedback.jsonl", feedback), now=logs.NOW)
    curations.curate(con, "weather", RULES, now=logs.NOW)
    return curations.freeze(con, folder, "weather", rules=RULES, now=logs.NOW)


def on_all(kind: str, value: Json) -> list[dict[str, Json]]:
    return [logs.feedback(kind, value, response_id=f"r{n}") for n in range(ROWS)]


def read(frozen: Snapshot, name: str) -> list[dict[str, object]]:
    return pq.read_table(frozen.path / f"{name}.parquet").to_pylist()


def messages(row: dict[str, object]) -> str:
    found = json.loads(str(row["request"]))["messages"]
    return json.dumps(found, separators=(",", ":"))


def test_corrections_become_pairs_of_the_train_side_in_trls_form(con: Connection, tmp_path: Path):
    frozen = freeze(con, tmp_path, on_all("correction", logs.say("No tool fits.")))
    pairs = read(frozen, "preferences")
    trained = {str(row["messages"]) for row in read(frozen, "train")}
    assert {messages(row) for row in pairs} == trained
    assert manifest.read(frozen.path)["rows"] == {
        "train": len(trained),
        "validation": 0,
        "holdout": ROWS - len(trained),
        "preferences": len(trained),
        "labels": 0,
        "holdout_preferences": ROWS - len(trained),
    }
    won = manifest.read(frozen.path)["pairs_won_by"]
    assert won == {"longer": 0, "shorter": len(trained)}
    row = pairs[0]
    assert row["prompt"] == next(
        one["prompt"] for one in read(frozen, "train") if one["messages"] == messages(row)
    )
    assert row["chosen"] == [{"role": "assistant", "content": "No tool fits."}]
    (tool,) = json.loads(str(row["request"]))["tools"]
    name = tool["function"]["name"]
    arguments = '{"unit": "C", "city": "Rome"}'
    called = f'{{"name": "{name}", "arguments": {arguments}}}'
    assert row["rejected"] == [{"role": "assistant", "content": called}]
    assert row["source"] == "correction"


def test_held_out_pairs_have_their_own_file_with_clusters_and_slices(
    con: Connection, tmp_path: Path
):
    frozen = freeze(con, tmp_path, on_all("correction", logs.say("No tool fits.")))
    held, tested = read(frozen, "holdout_preferences"), read(frozen, "holdout")
    assert {messages(row) for row in held} == {str(row["messages"]) for row in tested}
    assert not {messages(row) for row in held} & {
        messages(row) for row in read(frozen, "preferences")
    }
    assert {row["group"] for row in held} == {row["group"] for row in tested}
    assert {(row["client_id"], row["source"]) for row in held} == {("app", "correction")}
    fates = dict(con.execute("select feedback_id, fate from curated.fates").fetchall())
    ids = {one for row in held for one in row["feedback_ids"]}  # pyright: ignore[reportGeneralTypeIssues] - a list
    assert {fates[one] for one in ids} <= {"used_to_measure", "used_as_target"}


def test_votes_become_labels_even_if_the_answer_is_not_an_example(con: Connection, tmp_path: Path):
    from datasets import load_dataset

    frozen = freeze(con, tmp_path, on_all("thumb", "up")[:20] + on_all("thumb", "down")[20:38])
    files = {"train": str(frozen.path / "labels.parquet")}
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    opened: list[dict[str, Any]] = loaded["train"].to_list()
    assert {row["label"] for row in opened} == {True, False}
    assert {row["completion"][0]["role"] for row in opened} == {"assistant"}
    liked = [row["feedback_ids"] for row in opened if row["label"]]
    assert sorted(map(str, liked)) == sorted(
        str(row["feedback_ids"]) for row in read(frozen, "train") if row["feedback_ids"]
    )
    ids = {one for row in opened for one in row["feedback_ids"]}
    fates = dict(con.execute("select feedback_id, fate from curated.fates").fetchall())
    assert ids == {one for one, fate in fates.items() if fate == "used_as_label"}
    assert set(fates.values()) == {"used_as_label", "not_on_train_side"}


def test_no_column_name_misleads_trl_about_a_rows_type(con: Connection, tmp_path: Path):
    """TRL detects a row's type by any column name that it knows."""
    feedback = [*on_all("regenerate", True), *on_all("correction", logs.say("right"))]
    frozen = freeze(con, tmp_path, feedback)
    known = {"prompt", "chosen", "rejected", "completion", "messages", "tools", "label"}
    assert read(frozen, "preferences")[0].keys() & known == {"prompt", "chosen", "rejected"}
    assert read(frozen, "labels")[0].keys() & known == {"prompt", "completion", "label"}


def test_without_feedback_the_files_are_empty(con: Connection, tmp_path: Path):
    frozen = freeze(con, tmp_path)
    assert read(frozen, "preferences") == []
    assert read(frozen, "labels") == []


@pytest.mark.slow
def test_more_feedback_makes_a_new_snapshot_and_equal_feedback_equal_bytes(
    con: Connection, tmp_path: Path
):
    first = freeze(con, tmp_path / "one")
    feedback = [*on_all("regenerate", True), *on_all("correction", logs.say("right"))]
    second = freeze(con, tmp_path / "two", feedback)
    third = freeze(con, tmp_path / "three")
    assert first.key != second.key == third.key
    for name in ("preferences.parquet", "holdout_preferences.parquet", "labels.parquet"):
        assert (second.path / name).read_bytes() == (third.path / name).read_bytes()
