"""What works with a lake, and what says that it does not yet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.store.lake import Lake
from flows import settings
from flows.settings import NotOnLakeError, SettingsError
from tests.support import lakes, logs

URL = "postgres://ann:geheim@db.example.com/flywheel"


def test_without_the_variable_the_warehouse_is_the_file_of_the_home(tmp_path: Path):
    home = settings.load({"FLYWHEEL_HOME": str(tmp_path)})
    assert home.tables == home.warehouse == tmp_path / "warehouse.duckdb"


@pytest.mark.parametrize(
    ("store", "data"),
    [
        pytest.param("", "{home}/lake", id="folder"),
        pytest.param("s3://bucket/prefix/", "s3://bucket/prefix/lake", id="bucket"),
    ],
)
def test_the_variable_names_a_lake_whose_files_are_in_the_home_or_the_store(
    store: str, data: str, tmp_path: Path
):
    env = {"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_WAREHOUSE": URL, "FLYWHEEL_STORE": store}
    assert settings.load(env).tables == Lake(URL, data.format(home=tmp_path))


def test_an_address_that_is_none_is_refused_without_its_password():
    with pytest.raises(SettingsError, match="FLYWHEEL_WAREHOUSE is no address") as caught:
        settings.load({"FLYWHEEL_WAREHOUSE": "mysql://ann:geheim@db/flywheel"})
    assert "geheim" not in str(caught.value)


def test_what_does_not_work_with_a_lake_yet_says_so(tmp_path: Path):
    home = settings.load({"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_WAREHOUSE": URL})
    with pytest.raises(NotOnLakeError, match="unset FLYWHEEL_WAREHOUSE"):
        _ = home.warehouse
    refused = flywheel({"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_WAREHOUSE": URL}, "held", "list")
    assert refused.returncode == 2
    assert "FLYWHEEL_WAREHOUSE names a lake" in refused.stderr


def flywheel(env: dict[str, str], *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as a person types it, where it may not be installed."""
    command = [sys.executable, "-c", "from flows.cli.main import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.lake
def test_two_homes_collect_into_one_lake(tmp_path: Path):
    with lakes.bucket("shared") as variables:
        named = {"FLYWHEEL_WAREHOUSE": lakes.database("homes"), "FLYWHEEL_STORE": "s3://shared/x"}
        _collect_in_two_homes(tmp_path, {**variables, **named})


def _collect_in_two_homes(tmp_path: Path, common: dict[str, str]) -> None:
    first, second = (common | {"FLYWHEEL_HOME": str(tmp_path / name)} for name in ("a", "b"))
    path = logs.write(tmp_path / "log.jsonl", [logs.interaction(), {"x": 1}])
    other = logs.write(tmp_path / "other.jsonl", [logs.interaction("Else?", response_id="r2")])
    loaded = flywheel(first, "collect", path)
    assert loaded.returncode == 0, loaded.stderr
    summary = "1 new rows from 1 new of 1 files, 1 lines in quarantine"
    assert loaded.stdout.splitlines()[-1] == summary
    assert "loaded before (1 rows)" in flywheel(second, "collect", path).stdout
    assert "missing keys" in flywheel(second, "quarantine", "list").stdout
    retried = flywheel(second, "quarantine", "retry").stdout
    assert retried == "1 lines tried: 0 new rows, 0 known, 1 lines stay in quarantine\n"
    assert "1 new rows" in flywheel(first, "collect", "--dry-run", other).stdout
    assert "1 new rows" in flywheel(second, "collect", other).stdout
