"""A warehouse from before sources existed."""

from pathlib import Path

import duckdb
import pytest

from components.store import warehouse
from tests.support import logs, warehouses

SQL = Path(warehouse.__file__).parents[2] / "sql" / "migrations"


@pytest.mark.slow
def test_rows_from_before_sources_existed_are_known_when_their_files_are_loaded_again(
    tmp_path: Path,
):
    old = tmp_path / "old"
    old.mkdir()
    for name in ("0001_raw.sql", "0002_curated.sql", "0003_registry.sql"):
        (old / name).write_text((SQL / name).read_text())
    log = logs.write(tmp_path / "log.jsonl", [logs.interaction(), {"x": 1}])
    votes = logs.write(tmp_path / "votes.jsonl", [logs.feedback()])
    with warehouses.connect(tmp_path / "new.duckdb") as con:
        logs.load(con, log, now=logs.NOW)
        logs.load_feedback(con, votes, now=logs.NOW)
        kept = {
            table: warehouse.rows(con, f"from raw.{table}")
            for table in ("interactions", "feedback", "quarantine", "files")
        }
    path = tmp_path / "old.duckdb"
    with duckdb.connect(path) as con:
        con.execute("set timezone = 'UTC'")
        warehouse.migrate(con, old)
        for table, rows in kept.items():
            for row in rows:
                row["kind"] = "feedback" if row["source"] == "feedback" else "interactions"
                if table == "feedback":
                    row["kind"] = "thumb"
            columns = [name for (name, *_) in con.execute(f"describe raw.{table}").fetchall()]
            warehouse.insert(con, f"raw.{table}", [{c: row[c] for c in columns} for row in rows])
    with warehouse.connect(path) as con:
        assert logs.load(con, log, now=logs.NOW).skipped
        assert logs.load_feedback(con, votes, now=logs.NOW).skipped
        more = logs.write(tmp_path / "more.jsonl", [logs.interaction(), logs.interaction("New?")])
        assert logs.load(con, more, now=logs.NOW).new == 1
        assert (
            logs.load_feedback(
                con, logs.write(tmp_path / "v.jsonl", [logs.feedback()] * 2), now=logs.NOW
            ).new
            == 0
        )
        quarantined = warehouse.rows(con, "select source from raw.quarantine")
        assert quarantined == [{"source": "fivekey"}]


def test_rows_from_before_reconciliation_are_known_in_another_wording(tmp_path: Path):
    log = logs.write(tmp_path / "log.jsonl", [logs.interaction()])
    with warehouses.connect(tmp_path / "new.duckdb") as con:
        logs.load(con, log, now=logs.NOW)
        (row,) = warehouse.rows(con, "from raw.interactions")
    old = tmp_path / "old"
    old.mkdir()
    for file in SQL.glob("*.sql"):
        if int(file.name[:4]) < 25:
            (old / file.name).write_text(file.read_text())
    path = tmp_path / "old.duckdb"
    with duckdb.connect(path) as con:
        con.execute("set timezone = 'UTC'")
        warehouse.migrate(con, old)
        del row["content_hash"], row["likeness"]
        warehouse.insert(con, "raw.interactions", [row])
    line = logs.interaction(metadata={"reward": 1})
    reworded = logs.write(tmp_path / "again.jsonl", [{key: line[key] for key in reversed(line)}])
    with warehouse.connect(path) as con:
        loaded = logs.load(con, reworded, now=logs.NOW)
        (kept,) = warehouse.rows(con, "select interaction_id, record from raw.interactions")
    assert (loaded.new, loaded.known, loaded.merged) == (0, 1, 1)
    assert kept["interaction_id"] == row["interaction_id"]
    assert '"reward": 1' in str(kept["record"])
