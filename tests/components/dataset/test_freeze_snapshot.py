import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.chat import prompt
from components.curate.settings import Rules
from components.dataset import freeze_snapshot
from components.dataset.freeze_snapshot import EmptySideError
from components.dataset.snapshot_figures import Snapshot
from components.schema import Answer, Call, Json
from components.store import manifest, output_folders
from components.store.warehouse import Connection
from tests.support import curations, logs, warehouses

RULES = Rules(holdout_share=0.5, validation_share=0)
ACCEPTABLE: Json = [{"name": "weather_3", "arguments": {"city": ["Rome", "Roma"], "unit": [""]}}]


def line(n: int) -> dict[str, Json]:
    called = logs.call(f"weather_{n}", {"unit": "C", "city": "Rome"})
    metadata: Json = {"acceptable": ACCEPTABLE} if n == 3 else {}
    tools: Json = [logs.tool(f"weather_{n}")]
    return logs.interaction(
        message=called, tools=tools, response_id=f"r{n}", metadata=metadata, timestamp=n
    )


@pytest.fixture
def con(tmp_path: Path):
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        path = logs.write(tmp_path / "log.jsonl", [line(n) for n in range(30)])
        logs.load(con, path, now=logs.NOW)
        yield con


def freeze(con: Connection, root: Path, rules: Rules = RULES, **later: int) -> Snapshot:
    now = logs.NOW + timedelta(**later)
    curations.curate(con, "weather", rules, now=now)
    return curations.freeze(con, root, "weather", rules=rules, now=now, commit="abc123")


def rows(frozen: Snapshot) -> list[dict[str, object]]:
    paths = [frozen.path / "train.parquet", frozen.path / "holdout.parquet"]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


GERMAN = "Wie wird das Wetter morgen in Rom, und soll ich einen Schirm mitnehmen?"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Connection, Snapshot]]:
    """A snapshot of calls, one of them liked, and of German, without an empty answer."""
    folder = tmp_path_factory.mktemp("frozen")
    message: dict[str, Json] = {"role": "user", "content": f"{GERMAN} Danke."}
    request: Json = {"messages": [message, logs.say("Well, it will rain all day long."), message]}
    lines = [
        *(line(n) for n in range(30)),
        logs.interaction(response_id="german", request=request, timestamp=30),
        logs.interaction(message=logs.say(""), response_id="empty", timestamp=31),
    ]
    thumb = logs.feedback("thumb", "up", response_id="r3")
    with warehouses.connect(folder / "warehouse.duckdb") as con:
        logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
        logs.load_feedback(con, logs.write(folder / "f.jsonl", [thumb]), now=logs.NOW)
        yield con, freeze(con, folder / "snapshots")


@pytest.fixture
def frozen(home: tuple[Connection, Snapshot]) -> Snapshot:
    return home[1]


def test_datasets_opens_it_as_prompt_completion_rows(frozen: Snapshot, tmp_path: Path):
    from datasets import load_dataset

    files = {side: str(frozen.path / f"{side}.parquet") for side in ("train", "holdout")}
    opened = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert opened["train"].num_rows == frozen.train_rows
    assert opened["holdout"].num_rows == frozen.holdout_rows
    learned: list[dict[str, Any]] = opened["train"].to_list()
    row = next(row for row in learned if GERMAN not in row["prompt"][-1]["content"])
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["completion"][0]["role"] == "assistant"
    assert row["completion"][0]["content"].endswith('"arguments": {"unit": "C", "city": "Rome"}}')


def test_a_row_has_the_request_the_answer_and_their_origin(home: tuple[Connection, Snapshot]):
    con, frozen = home
    (row,) = [row for row in rows(frozen) if row["acceptable"] is not None]
    question = "What is the weather in Rome?"
    assert json.loads(str(row["messages"])) == [{"role": "user", "content": question}]
    assert json.loads(str(row["tools"])) == [logs.tool("weather_3")]
    assert json.loads(str(row["acceptable"])) == ACCEPTABLE
    answer = Answer("", (Call("weather_3", {"unit": "C", "city": "Rome"}),))
    assert row["answer"] == answer.to_json()
    assert row["completion"] == [{"role": "assistant", "content": prompt.render_answer(answer)}]
    assert (row["weight"], row["client_id"]) == (RULES.preferences.lift, "app")
    held = con.execute("select interaction_id from raw.interactions where line = 4").fetchall()
    assert row["interaction_ids"] == [held[0][0]]
    assert row["feedback_ids"] == [
        con.execute("select feedback_id from raw.feedback").fetchall()[0][0]
    ]


def test_rows_keep_the_language_of_user_messages(frozen: Snapshot):
    spoken = {GERMAN in str(row["messages"]): row["language"] for row in rows(frozen)}
    assert spoken == {True: "de", False: None}


def test_the_manifest_counts_rows_and_dropped_interactions(frozen: Snapshot):
    found = manifest.read(frozen.path)
    learned = pq.read_table(frozen.path / "train.parquet").to_pylist()
    assert frozen.counts == {"empty_answer": 1, "kept": 31}
    assert found["kind"] == "snapshot"
    assert found["key"] == frozen.key == frozen.path.name
    assert found["workload"] == "weather"
    sides = {"train": frozen.train_rows, "validation": 0, "holdout": frozen.holdout_rows}
    assert found["rows"] == {
        **sides,
        "preferences": 0,
        "labels": sum(bool(row["feedback_ids"]) for row in learned),
        "holdout_preferences": 0,
    }
    assert found["counts"] == frozen.counts
    config = RULES.model_dump(mode="json")
    config["preferences"] |= freeze_snapshot.FIXED_PREFERENCES
    assert found["config"] == config
    assert found["holdout_version"] == frozen.holdout_version
    assert found["prompt_format"] == prompt.FORMAT
    assert found["commit"] == "abc123"


def test_equal_input_gives_equal_bytes_at_any_place_and_time(con: Connection, tmp_path: Path):
    one = freeze(con, tmp_path / "one")
    two = freeze(con, tmp_path / "two", days=1)
    assert two.key == one.key
    for name in ("train.parquet", "holdout.parquet"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


@pytest.mark.parametrize(
    "forget",
    [
        pytest.param("delete from curated.example_digests", id="not-kept", marks=pytest.mark.slow),
        pytest.param("update curated.examples set content_digest = null", id="older-home"),
    ],
)
def test_a_night_freezes_what_a_home_without_digests_does(
    con: Connection, tmp_path: Path, forget: str
):
    first = freeze(con, tmp_path / "night")
    fixes = [
        logs.feedback("correction", logs.say("No tool fits."), response_id=f"r{n}")
        for n in range(0, 30, 3)
    ]
    logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", fixes), now=logs.NOW)
    night = freeze(con, tmp_path / "night")
    con.execute(forget)
    anew = curations.freeze(con, tmp_path / "anew", "weather", rules=RULES, now=logs.NOW)
    assert (night.key, night.holdout_version) == (anew.key, anew.holdout_version)
    assert (night.key, night.holdout_version) != (first.key, first.holdout_version)


def test_a_chart_of_one_bar_is_not_drawn(frozen: Snapshot):
    drawn = {path.stem for path in frozen.path.glob("*.png")}
    assert drawn == {"verdicts", "labels"}
    shown = (frozen.path / "README.md").read_text()
    assert "verdicts.png" in shown
    assert "times.png" not in shown


def test_who_only_looks_a_snapshot_up_does_not_wait_for_matplotlib():
    code = "import sys, components.dataset.freeze_snapshot; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_freezing_is_idempotent(con: Connection, tmp_path: Path):
    first = freeze(con, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    assert freeze(con, tmp_path, days=1) == first
    assert {path: path.stat().st_mtime_ns for path in first.path.iterdir()} == before


@pytest.mark.slow
def test_an_unfinished_snapshot_is_written_again(con: Connection, tmp_path: Path):
    first = freeze(con, tmp_path)
    (first.path / manifest.NAME).unlink()
    (first.path / "train.parquet").write_bytes(b"half a file")
    again = freeze(con, tmp_path)
    assert again == first
    assert output_folders.fetch(again.path)
    assert len(rows(again)) == 30


@pytest.mark.slow
def test_a_different_config_makes_a_new_snapshot_of_the_same_holdout(
    con: Connection, tmp_path: Path
):
    one = freeze(con, tmp_path)
    two = freeze(
        con, tmp_path, Rules(holdout_share=0.5, validation_share=0, max_prompt_chars=15_000)
    )
    assert one.key != two.key
    assert one.holdout_version == two.holdout_version


@pytest.mark.slow
def test_the_holdout_version_changes_only_with_the_measured_rows(con: Connection, tmp_path: Path):
    first = freeze(con, tmp_path)
    row = pq.read_table(first.path / "holdout.parquet").to_pylist()[0]
    response_id = f"r{json.loads(row['tools'])[0]['function']['name'].split('_')[1]}"
    signals = [
        logs.feedback("thumb", "up", response_id=response_id),
        logs.feedback("correction", logs.say("No tool fits."), response_id=response_id),
    ]
    logs.load_feedback(con, logs.write(tmp_path / "up.jsonl", signals[:1]), now=logs.NOW)
    liked = freeze(con, tmp_path)
    logs.load_feedback(con, logs.write(tmp_path / "right.jsonl", signals[1:]), now=logs.NOW)
    corrected = freeze(con, tmp_path)
    assert liked.key != first.key
    assert liked.holdout_version == first.holdout_version
    assert corrected.holdout_version != first.holdout_version


def test_a_workload_without_held_out_examples_is_rejected_with_a_remedy(
    con: Connection, tmp_path: Path
):
    with pytest.raises(EmptySideError, match="no interaction of nothing was collected"):
        curations.freeze(con, tmp_path, "nothing", rules=RULES, now=logs.NOW)
    assert not (tmp_path / "nothing").exists()


def test_rows_are_in_the_order_of_their_ids(frozen: Snapshot):
    ids = pq.read_table(frozen.path / "train.parquet").column("example_id").to_pylist()
    assert ids == sorted(ids)


LARGE = """
    insert into curated.examples by name
    select md5(n::varchar) as example_id, 'weather' as workload_id, 'app' as client_id,
        now() as logged_at, 'conversation' as split_by, (n // 2)::varchar as group_id,
        'train' as side, '' as label, [] as tool_names, '[]' as messages, '[]' as tools,
        '{"text": "Yes.", "calls": []}' as answer, n || repeat(' or so', 300_000) as acceptable,
        1 as weight, [] as interaction_ids, [] as feedback_ids
    from range(40) as numbers(n)
"""


@pytest.mark.slow
def test_large_rows_are_in_the_order_of_their_ids_with_their_clusters(
    con: Connection, tmp_path: Path
):
    curations.curate(con, "weather", RULES, now=logs.NOW)
    con.execute(LARGE)
    frozen = curations.freeze(con, tmp_path, "weather", rules=RULES, now=logs.NOW)
    columns = ["example_id", "acceptable", "cluster"]
    written = pq.read_table(frozen.path / "train.parquet", columns=columns).to_pylist()
    assert [row["example_id"] for row in written] == sorted(row["example_id"] for row in written)
    large = {
        int(row["acceptable"].split()[0]): row
        for row in written
        if (row["acceptable"] or "").endswith(" or so")
    }
    ids = [hashlib.md5(str(n).encode()).hexdigest() for n in range(40)]
    assert [large[n]["example_id"] for n in range(40)] == ids
    assert [large[n]["cluster"] for n in range(40)] == [min(ids[n], ids[n ^ 1]) for n in range(40)]


def test_the_holdout_keeps_the_logged_answer_and_the_reference(con: Connection, tmp_path: Path):
    expected: dict[str, Json] = {"city": "ann@example.org"}
    fixes = [
        logs.feedback("correction", logs.call(f"weather_{n}", expected), response_id=f"r{n}")
        for n in range(30)
    ]
    logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", fixes), now=logs.NOW)
    frozen = freeze(con, tmp_path)
    held_out = pq.read_table(frozen.path / "holdout.parquet").to_pylist()
    arguments = [Answer.from_json(row["logged_answer"]).calls[0].arguments for row in held_out]
    right = [Answer.from_json(row["answer"]).calls[0].arguments for row in held_out]
    assert arguments == [{"city": "Rome", "unit": "C"}] * len(held_out)
    assert all(re.fullmatch(r"\w+@\w+\.org", str(one["city"])) for one in right)
    assert {"city": "ann@example.org"} not in right
    learned = pq.read_table(frozen.path / "train.parquet")["logged_answer"]
    assert learned.null_count == frozen.train_rows
