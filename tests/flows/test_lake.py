"""What works with a lake."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from components.collect.source import Input
from components.curate.settings import Rules
from components.dataset.freeze_snapshot import Snapshot
from components.extensions.machines.lake_warehouse import Lake
from components.schema import Json
from components.store import warehouse
from flows import settings, snapshots, sources, workload_file
from flows.doctor import diagnosis
from flows.settings import Settings, SettingsError
from flows.workload_file import Workload
from tests.support import forking, lakes, logs, workload_text

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


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ann:geheim@db/flywheel",
        "postgres://ann:top@geheim@db/flywheel",
        "postgres://ann:top/geheim@db/flywheel",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str):
    with pytest.raises(SettingsError, match="FLYWHEEL_WAREHOUSE is no address") as caught:
        settings.load({"FLYWHEEL_WAREHOUSE": url})
    assert "geheim" not in str(caught.value)


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
    assert "missing keys" in flywheel(second, "quarantine").stdout
    retried = flywheel(second, "quarantine", "--retry").stdout
    assert retried == "1 lines tried: 0 new rows, 0 known, 1 lines stay in quarantine\n"
    assert "1 new rows" in flywheel(first, "collect", "--dry-run", other).stdout
    assert "1 new rows" in flywheel(second, "collect", other).stdout


def home_at(folder: Path, place: Lake | None) -> Settings:
    folder.mkdir()
    return replace(Settings(folder, 4200, 5000), shared_warehouse=place)


def workload_of(home: Settings, name: str) -> Workload:
    (home.home / "base").mkdir(exist_ok=True)
    (home.home / "base/config.json").write_text("{}")
    logs.write(home.home / "any.jsonl", [])
    written = workload_text.write(home.home, workload=name, sources={"logs": ["any.jsonl"]})
    rules = Rules(holdout_share=0.4, validation_share=0.2)
    return workload_file.read_workload(written).model_copy(update={"curate": rules})


def lines_of(workload: str, numbers: Sequence[int]) -> list[dict[str, Json]]:
    return [
        logs.interaction(
            f"{workload} {n} {n} {n}: how is it there?", response_id=f"r{n}", workload_id=workload
        )
        for n in numbers
    ]


def collect(home: Settings, path: Path) -> None:
    list(sources.load_inputs(home.tables, [Input(str(path))], now=logs.NOW))


def freeze(home: Settings, name: str) -> Snapshot:
    frozen = snapshots.freeze_workload(workload_of(home, name), home, now=logs.NOW, ask=False)
    assert frozen.snapshot is not None
    return frozen.snapshot


@pytest.mark.slow
def test_a_curation_reads_and_writes_a_file_as_it_did(tmp_path: Path):
    home = home_at(tmp_path / "file", None)
    collect(home, logs.write(tmp_path / "log.jsonl", lines_of("weather", range(12))))
    assert freeze(home, "weather").key == freeze(home, "weather").key


@pytest.mark.lake
def test_a_snapshot_from_a_lake_is_that_from_a_file_and_rows_keep_their_sides(tmp_path: Path):
    file = home_at(tmp_path / "file", None)
    shared = home_at(tmp_path / "shared", lakes.new(tmp_path / "lake"))
    path = logs.write(tmp_path / "log.jsonl", lines_of("weather", range(20)))
    more = logs.write(tmp_path / "more.jsonl", lines_of("weather", range(20, 30)))
    for home in (file, shared):
        collect(home, path)
    assert freeze(shared, "weather").key == freeze(file, "weather").key
    for home in (file, shared):
        collect(home, more)
    assert freeze(shared, "weather").key == freeze(file, "weather").key
    with warehouse.connect(shared.tables) as con:
        recorded = con.execute("select count(*) from raw.manifests").fetchall()
        sides = con.execute("select count(*), count(distinct group_id) from curated.sides")
        assert recorded == [(2,)]
        assert len(set(sides.fetchall()[0])) == 1


def curate_at_once(home: Settings, name: str, folder: Path, others: Sequence[str]) -> None:
    """Freeze a workload once all have begun; write down when, and the snapshot's key."""
    (folder / f"{name}.began").write_text(str(time.time()))
    while not all((folder / f"{other}.began").exists() for other in others):
        time.sleep(0.01)
    key = freeze(home, name).key
    (folder / f"{name}.done").write_text(f"{time.time()} {key}")


def load_files(home: Settings, paths: Sequence[Path]) -> None:
    list(sources.load_inputs(home.tables, [Input(str(path)) for path in paths], now=logs.NOW))


@pytest.mark.lake
@pytest.mark.timeout(1500)
def test_two_curations_beside_two_loaders_and_a_killed_one_are_those_made_alone(tmp_path: Path):
    place, names = lakes.new(tmp_path / "lake"), ("north", "south")
    alone = home_at(tmp_path / "alone", None)
    first = home_at(tmp_path / "first", place)
    for name in (*names, "west"):
        path = logs.write(tmp_path / f"{name}.jsonl", lines_of(name, range(60)))
        collect(alone, path)
        collect(first, path)
    expected = {name: freeze(alone, name).key for name in names}
    overlapping = [
        logs.write(tmp_path / f"east{n}.jsonl", lines_of("east", range(n * 10, n * 10 + 20)))
        for n in range(8)
    ]
    running = [
        forking.process(
            curate_at_once, home_at(tmp_path / name, place), name, tmp_path, [*names, "west"]
        )
        for name in names
    ]
    running += [
        forking.process(
            load_files, home_at(tmp_path / f"loader{n}", place), overlapping[:: 1 - 2 * n]
        )
        for n in range(2)
    ]
    killed = forking.process(
        curate_at_once, home_at(tmp_path / "west", place), "west", tmp_path, [*names, "west"]
    )
    for process in (*running, killed):
        process.start()
    while not (tmp_path / "west.began").exists():
        time.sleep(0.01)
    killed.kill()
    for process in running:
        process.join()
        assert process.exitcode == 0
    done = {name: (tmp_path / f"{name}.done").read_text().split() for name in names}
    assert {name: key for name, (_, key) in done.items()} == expected
    began = [float((tmp_path / f"{name}.began").read_text()) for name in names]
    assert max(began) < min(float(ended) for ended, _ in done.values())
    with warehouse.connect(place) as con:
        sql = "select count(*), count(distinct interaction_id) from raw.interactions"
        assert con.execute(f"{sql} where workload_id = 'east'").fetchall() == [(90, 90)]


@pytest.mark.lake
def test_the_doctor_opens_the_lake_and_says_what_keeps_it_shut(tmp_path: Path):
    good = home_at(tmp_path / "good", lakes.new(tmp_path / "lake"))
    assert [result.state for result in diagnosis.check_shared_warehouse(good)] == [
        str(good.shared_warehouse)
    ]
    gone = Lake("postgres://ann:geheim@127.0.0.1:1/gone", str(tmp_path / "gone"))
    (result,) = diagnosis.check_shared_warehouse(home_at(tmp_path / "bad", gone))
    assert result.level == "wrong"
    assert "postgres://127.0.0.1:1/gone" in result.state
    assert "geheim" not in result.state
    assert [*diagnosis.check_shared_warehouse(home_at(tmp_path / "file", None))] == []
