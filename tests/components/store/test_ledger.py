"""The ledger records each output once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.store import ledger, manifest
from components.store.warehouse import Connection

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def output(folder: Path) -> Path:
    """Finish an output folder."""
    folder.mkdir(parents=True)
    (folder / "rows.txt").write_text("rows")
    manifest.write(folder, kind="snapshot", now=NOW, body={"rows": 3})
    return folder


def test_an_output_is_recorded_with_its_manifest(con: Connection, tmp_path: Path) -> None:
    folder = output(tmp_path / "snapshots" / "s1")
    ledger.record_output(con, "support", folder, now=NOW)
    noted = con.execute(
        """
        select key, kind, workload_id, path, recorded_at, manifest ->> '$.files."rows.txt"'
        from raw.manifests
        """
    ).fetchall()
    digest = manifest.file_digest(folder / "rows.txt")
    assert noted == [("s1", "snapshot", "support", str(folder), NOW, digest)]


def test_an_output_recorded_twice_keeps_the_first_record(con: Connection, tmp_path: Path) -> None:
    folder = output(tmp_path / "s1")
    ledger.record_output(con, "support", folder, now=NOW)
    ledger.record_output(con, "support", folder, now=NOW + timedelta(days=1))
    assert con.execute("select recorded_at from raw.manifests").fetchall() == [(NOW,)]


def test_workloads_may_have_outputs_with_equal_keys(con: Connection, tmp_path: Path) -> None:
    for workload in ("sales", "support"):
        ledger.record_output(con, workload, output(tmp_path / workload / "s1"), now=NOW)
    noted = con.execute("select workload_id from raw.manifests order by all").fetchall()
    assert noted == [("sales",), ("support",)]


def test_an_unfinished_output_is_not_recorded(con: Connection, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ledger.record_output(con, "support", tmp_path, now=NOW)
    assert con.execute("select count(*) from raw.manifests").fetchall() == [(0,)]
