from pathlib import Path

import pytest

from components.collect import retention
from components.collect.retention import SnapshotGoneError
from components.curate.settings import Rules
from components.schema import Json
from components.store import ledger, warehouse
from components.store.warehouse import Connection
from tests.support import curations, logs

RULES = Rules(holdout_share=0.5, split_by="conversation")
DAY = 86_400


def days_before_now(days: int) -> Json:
    return int(logs.NOW.timestamp()) - days * DAY


def line(days: int, **changes: Json) -> dict[str, Json]:
    number = str(days)
    return logs.interaction(
        f"What about {number}?",
        response_id=f"r{number}",
        message=logs.say(f"Sunny, I believe, with {number} clouds."),
        timestamp=days_before_now(days),
        **changes,
    )


def ids(con: Connection, table: str) -> set[str]:
    rows = warehouse.rows(con, f"select payload ->> '$.response.id' as id from {table}")
    return {str(row["id"]) for row in rows}


def archive(con: Connection, folder: Path, days: int = 90) -> int:
    return retention.archive(
        con,
        str(folder / "archive"),
        "weather",
        snapshots=folder / "snapshots",
        days=days,
        now=logs.NOW,
    )


def test_old_rows_go_to_parquet_by_month_whole_and_stay_known(con: Connection, tmp_path: Path):
    path = logs.write(tmp_path / "log.jsonl", [line(10), line(100), line(101), line(200)])
    logs.load(con, path, now=logs.NOW)
    (before,) = warehouse.rows(
        con,
        "select * exclude (content_hash, likeness) from raw.interactions"
        " where payload ->> '$.response.id' = 'r200'",
    )
    assert archive(con, tmp_path) == 3
    assert ids(con, "raw.interactions") == {"r10"}
    files = sorted((tmp_path / "archive").rglob("*.parquet"))
    assert [file.parent.name for file in files] == ["2025-06", "2025-09"]
    assert warehouse.rows(con, f"from '{files[0]}'") == [before]
    again = logs.write(tmp_path / "again.jsonl", [line(200), line(10), line(300)])
    loaded = logs.load(con, again, now=logs.NOW)
    assert (loaded.new, loaded.known) == (1, 2)
    assert archive(con, tmp_path, days=250) == 1


def test_rows_named_by_an_example_or_a_snapshot_are_kept(con: Connection, tmp_path: Path):
    rows = [line(days) for days in range(100, 130)] + [line(130, response={"error": "timeout"})]
    logs.load(con, logs.write(tmp_path / "log.jsonl", rows), now=logs.NOW)
    curations.curate(con, "weather", RULES, now=logs.NOW)
    frozen = curations.freeze(con, tmp_path / "snapshots", "weather", rules=RULES, now=logs.NOW)
    ledger.record_output(con, "weather", frozen.path, now=logs.NOW)
    con.execute("delete from curated.examples")
    assert archive(con, tmp_path) == 1
    assert ids(con, "raw.interactions") == {f"r{days}" for days in range(100, 130)}
    curations.curate(con, "weather", RULES, now=logs.NOW)
    again = curations.freeze(con, tmp_path / "snapshots", "weather", rules=RULES, now=logs.NOW)
    assert again.holdout_version == frozen.holdout_version


def test_rows_named_by_a_snapshot_of_another_machine_are_kept(con: Connection, tmp_path: Path):
    rows = [line(days) for days in range(100, 130)]
    logs.load(con, logs.write(tmp_path / "log.jsonl", rows), now=logs.NOW)
    curations.curate(con, "weather", RULES, now=logs.NOW)
    there = tmp_path / "there" / "snapshots"
    frozen = curations.freeze(con, there, "weather", rules=RULES, now=logs.NOW)
    ledger.record_output(con, "weather", frozen.path, now=logs.NOW)
    con.execute("delete from curated.examples")
    there.rename(tmp_path / "snapshots")  # as it is pulled into this machine's home
    assert archive(con, tmp_path) == 0


def test_nothing_is_dropped_while_a_snapshot_can_not_be_read(con: Connection, tmp_path: Path):
    rows = [line(days) for days in range(100, 130)]
    logs.load(con, logs.write(tmp_path / "log.jsonl", rows), now=logs.NOW)
    curations.curate(con, "weather", RULES, now=logs.NOW)
    frozen = curations.freeze(con, tmp_path / "snapshots", "weather", rules=RULES, now=logs.NOW)
    ledger.record_output(con, "weather", frozen.path, now=logs.NOW)
    (frozen.path / "holdout.parquet").unlink()
    with pytest.raises(SnapshotGoneError, match=r"holdout\.parquet is gone") as raised:
        archive(con, tmp_path)
    assert len(ids(con, "raw.interactions")) == 30
    con.execute(str(raised.value).partition("warehouse: ")[2])  # as it says
    archive(con, tmp_path)


def test_feedback_goes_with_its_interaction_and_waits_without_one(con: Connection, tmp_path: Path):
    events = [
        logs.feedback(response_id="r100", timestamp=days_before_now(99)),
        logs.feedback(response_id="r10", timestamp=days_before_now(99)),
        logs.feedback(response_id="unknown", timestamp=days_before_now(99)),
    ]
    logs.load(con, logs.write(tmp_path / "l.jsonl", [line(100), line(10)]), now=logs.NOW)
    logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", events), now=logs.NOW)
    assert archive(con, tmp_path) == 2
    left = warehouse.rows(con, "select response_id from raw.feedback order by all")
    assert [row["response_id"] for row in left] == ["r10", "unknown"]


def test_rows_without_a_time_stay(con: Connection, tmp_path: Path):
    path = logs.write(tmp_path / "log.jsonl", [logs.interaction(timestamp=0)])
    logs.load(con, path, now=logs.NOW)
    assert archive(con, tmp_path) == 0
