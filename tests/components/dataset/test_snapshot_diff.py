"""Two snapshots are compared row by row, with the reason of each difference."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.curate.settings import Rules
from components.dataset import snapshot_figures
from components.dataset.snapshot_figures import Change
from components.schema import Json
from components.store.manifest import SnapshotManifest
from components.store.warehouse import Connection
from tests.support import curations, logs, warehouses

RULES = Rules(holdout_share=0.4, split_by="conversation")


def line(n: int, **changes: Json) -> dict[str, Json]:
    return logs.interaction(f"ask {n}", response_id=f"r{n}", timestamp=1000 + n, **changes)


def load(con: Connection, folder: Path, *lines: dict[str, Json]) -> None:
    logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)


def say(con: Connection, folder: Path, *votes: dict[str, Json]) -> None:
    logs.load_feedback(con, logs.write(folder / "votes.jsonl", votes), now=logs.NOW)


def freeze(con: Connection, root: Path, rules: Rules = RULES) -> Path:
    curations.curate(con, "weather", rules, now=logs.NOW)
    return curations.freeze(con, root, "weather", rules=rules, now=logs.NOW).path


def asked(path: Path) -> dict[str, str]:
    """Return the examples of a snapshot by their question."""
    found: dict[str, str] = {}
    for side in ("train", "validation", "holdout"):
        for row in pq.read_table(path / f"{side}.parquet").to_pylist():
            found[row["example_id"]] = row["prompt"][-1]["content"]
    return found


@pytest.mark.slow
def test_each_differing_row_is_listed_with_the_reason(con: Connection, tmp_path: Path):
    load(con, tmp_path, *(line(n) for n in range(20)))
    before = freeze(con, tmp_path)
    load(con, tmp_path, line(99), line(-500))
    say(
        con,
        tmp_path,
        logs.feedback(response_id="r1"),
        logs.feedback("correction", logs.say("Rainy."), response_id="r2"),
        logs.feedback("thumb", "up", response_id="r3"),
    )
    after = freeze(con, tmp_path)
    found = snapshot_figures.compare(con, before, after)
    names = asked(before) | asked(after)
    assert {(names[one.example_id], one.kind, one.why) for one in found.changes} == {
        ("ask 1", "out", "thumbs_down"),
        ("ask 2", "changed", "answer, weight, feedback"),
        ("ask 3", "changed", "weight, feedback"),
        ("ask 99", "in", "logged since"),
        ("ask -500", "in", "let in or loaded since"),
    }
    for one in found.changes:
        sides = {one.side_before, one.side_after} - {None}
        assert len(sides) == 1, "no row changes side"
    assert [count for *_, count in found.counts()] == [1] * 5


@pytest.mark.slow
def test_a_row_that_would_return_has_its_current_verdict(con: Connection, tmp_path: Path):
    load(con, tmp_path, *(line(n) for n in range(20)))
    before = freeze(con, tmp_path)
    load(con, tmp_path, line(50))
    later = freeze(con, tmp_path)
    (one,) = snapshot_figures.compare(con, later, before).changes
    assert (one.kind, one.why) == ("out", "kept now")
    with warehouses.connect(tmp_path / "empty.duckdb") as empty:
        (one,) = snapshot_figures.compare(empty, later, before).changes
    assert (one.kind, one.why) == ("out", "no longer in the warehouse")


def test_a_snapshot_equals_itself_and_a_changed_setting_is_named(con: Connection, tmp_path: Path):
    load(con, tmp_path, *(line(n) for n in range(20)))
    one = freeze(con, tmp_path)
    other = freeze(con, tmp_path, RULES.model_copy(update={"max_prompt_chars": 15_000}))
    assert snapshot_figures.compare(con, one, one).changes == []
    found = snapshot_figures.compare(con, one, other)
    assert found.changes == []
    assert found.config == {"max_prompt_chars": (16_000, 15_000)}


def test_a_missing_file_is_named(con: Connection, tmp_path: Path):
    load(con, tmp_path, *(line(n) for n in range(20)))
    one = freeze(con, tmp_path)
    (one / "train.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.parquet is missing"):
        snapshot_figures.compare(con, one, one)


def test_changes_are_counted_the_most_frequent_first():
    changes = [
        Change(str(n), "out", "duplicate" if n else "kept now", "train", None) for n in range(3)
    ]
    none = SnapshotManifest(
        kind="snapshot",
        key="s1",
        created_at="",
        files={},
        workload="weather",
        holdout_version="v1",
        rows={},
    )
    found = snapshot_figures.Diff(none, none, {}, changes).counts()
    assert found == [("out", "duplicate", "train", "", 2), ("out", "kept now", "train", "", 1)]
