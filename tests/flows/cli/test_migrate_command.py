"""`flywheel migrate`: a home's outputs to an object store, its warehouse to a lake, and back."""

from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from s3fs import S3FileSystem
from typer.testing import CliRunner, Result

from components.store import file_locks, manifest, warehouse
from flows import settings
from flows.cli.main import app
from flows.stack import processes
from tests.support import buckets, lakes, logs
from tests.support.buckets import finish_output


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def system(server: None) -> S3FileSystem:
    return buckets.emptied()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with outputs that were finished before it had a store."""
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    home = tmp_path / "a"
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    for key in ("0123", "4567"):
        finish_output(home, key, key)
    (home / "adapters/shop%20a/89ab").mkdir()
    (home / "adapters/shop%20a/89ab/weights").write_text("of a training that still runs")
    return home


def migrate(to: str, home: Path) -> Result:
    environment = {"FLYWHEEL_HOME": str(home), "FLYWHEEL_STORE": "s3://flywheel/team"}
    return CliRunner().invoke(app, ["migrate", "--to", to], env=environment)


def contents(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted((home / "adapters").rglob("*"))
        if path.is_file() and "89ab" not in path.parts
    }


def test_a_home_goes_to_the_store_and_another_machine_comes_back_with_the_same_bytes(
    home: Path, system: S3FileSystem
) -> None:
    done = migrate("store", home)
    assert done.exit_code == 0, done.output
    assert "2 outputs, 6 files" in done.output
    assert "2 copied to the store, 0 were there" in done.output
    assert not system.exists("flywheel/team/adapters/shop%20a/89ab"), "it is not finished"
    other = home.with_name("b")
    back = migrate("home", other)
    assert "2 copied to the home, 0 were there, 0 differ, 0 are damaged" in back.output
    assert contents(other) == contents(home)


def test_a_second_time_only_what_was_finished_meanwhile_is_copied(
    home: Path, system: S3FileSystem
) -> None:
    migrate("store", home)
    finish_output(home, "late", "cdef")
    assert "1 copied to the store, 2 were there" in migrate("store", home).output
    assert "0 copied to the home, 3 were there" in migrate("home", home).output


def test_a_killed_migration_is_completed(home: Path, system: S3FileSystem) -> None:
    migrate("store", home)
    system.rm_file("flywheel/team/adapters/shop%20a/0123/manifest.json")
    assert migrate("home", home.with_name("b")).exit_code == 0
    assert not (home.with_name("b") / "adapters/shop%20a/0123").exists()
    assert "1 copied to the store, 1 were there" in migrate("store", home).output


def test_what_was_changed_or_differs_is_named_and_stays_as_it_is(
    home: Path, system: S3FileSystem
) -> None:
    (home / "adapters/shop%20a/4567/weights").write_text("changed")
    done = migrate("store", home)
    assert done.exit_code == 1
    assert "adapters/shop%20a/4567: weights was changed after it was finished" in done.output
    assert not system.exists("flywheel/team/adapters/shop%20a/4567/manifest.json")
    (home / "adapters/shop%20a/0124").mkdir()
    (home / "adapters/shop%20a/0124/manifest.json").write_text("{}")
    assert "the manifest of 0124 can't be read: KeyError('files')" in migrate("store", home).output
    other = home.with_name("b")
    finish_output(other, "another machine's")
    before = contents(other)
    done = migrate("home", other)
    assert done.exit_code == 1
    assert "adapters/shop%20a/0123: another output was finished under this key" in done.output
    assert contents(other) == before


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(b'{"files": ["weights"]}', id="no-digests"),
        pytest.param(b'{"files": {"weights": 7}}', id="a-number-for-a-digest"),
        pytest.param(b'{"files": {"a\\u0000b": "' + b"0" * 64 + b'"}}', id="no-name-of-a-file"),
    ],
)
def test_a_manifest_that_is_none_stops_no_other_output(
    home: Path, system: S3FileSystem, record: bytes
) -> None:
    (home / "adapters/shop%20a/0123/manifest.json").write_bytes(record)
    done = migrate("store", home)
    assert done.exit_code == 1
    assert "1 copied to the store, 0 were there, 0 differ, 1 are damaged" in done.output
    system.pipe_file("flywheel/team/adapters/shop%20a/0123/manifest.json", record)
    assert "1 were there, 0 differ, 1 are damaged" in migrate("store", home).output
    done = migrate("home", home.with_name("b"))
    assert "1 copied to the home, 0 were there, 0 differ, 1 are damaged" in done.output
    assert not (home.with_name("b") / "adapters/shop%20a/0123/manifest.json").exists()


def test_a_manifest_that_is_no_text_at_home_alone_is_named(
    home: Path, system: S3FileSystem
) -> None:
    migrate("store", home)
    (home / "adapters/shop%20a/0123/manifest.json").write_bytes(b"\xff")
    done = migrate("home", home)
    assert done.exit_code == 1
    assert "adapters/shop%20a/0123: its manifest can't be read" in done.output


def test_what_both_have_is_held_against_its_manifest_too(home: Path, system: S3FileSystem) -> None:
    migrate("store", home)
    files = manifest.read(home / "adapters/shop%20a/0123")["files"]
    assert isinstance(files, dict)
    gone = f"flywheel/team/adapters/shop%20a/0123/{files['weights']}"
    system.rm_file(gone)
    assert "1 copied to the store, 1 were there" in migrate("store", home).output
    assert system.cat_file(gone) == b"0123 weights"
    (home / "adapters/shop%20a/0123/deep/config").unlink()
    (home / "adapters/shop%20a/4567/weights").write_text("changed")
    for to in ("store", "home"):
        done = migrate(to, home)
        assert done.exit_code == 1
        assert "adapters/shop%20a/0123: deep/config is gone" in done.output
        assert "adapters/shop%20a/4567: weights was changed after it was finished" in done.output


def test_another_output_with_other_files_under_a_key_stops_nothing(
    home: Path, system: S3FileSystem
) -> None:
    migrate("store", home)
    other = home.with_name("b")
    folder = other / "adapters/shop%20a/0123"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"files": {}}')
    done = migrate("home", other)
    assert "1 copied to the home, 0 were there, 1 differ, 0 are damaged" in done.output


def test_an_object_that_was_damaged_leaves_no_folder(home: Path, system: S3FileSystem) -> None:
    migrate("store", home)
    weights = manifest.read(home / "adapters/shop%20a/0123")["files"]
    assert isinstance(weights, dict)
    system.pipe_file(f"flywheel/team/adapters/shop%20a/0123/{weights['weights']}", b"other")
    other = home.with_name("b")
    done = migrate("home", other)
    assert done.exit_code == 1
    assert "1 copied to the home, 0 were there, 0 differ, 1 are damaged" in done.output
    assert not (other / "adapters/shop%20a/0123").exists()


def test_without_a_store_it_says_what_to_set(home: Path) -> None:
    done = CliRunner().invoke(app, ["migrate", "--to", "store"])
    assert done.exit_code == 2
    assert "FLYWHEEL_STORE is not set, expected s3://BUCKET/PREFIX" in done.output


@pytest.mark.lake
def test_a_warehouse_goes_to_a_lake_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support import erased_home, lakes

    file = erased_home.build(tmp_path / "home").settings.warehouse
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    environment = {
        "FLYWHEEL_HOME": str(tmp_path / "home"),
        "FLYWHEEL_WAREHOUSE": lakes.database("migrated"),
    }

    def run(to: str) -> Result:
        return CliRunner().invoke(app, ["migrate", "--to", to], env=environment)

    done = run("lake")
    assert done.exit_code == 0, done.output
    assert f"the file is kept as {file}.migrated" in done.output.replace("\n", "")
    assert "rows are in the lake as they were; " in done.output
    assert "does not exist, so there is nothing to copy" in run("lake").output
    back = run("file")
    assert back.exit_code == 0, back.output
    with warehouse.connect(file) as con:
        ((rows,),) = con.execute("select count(*) from raw.interactions").fetchall()
    assert rows == 3 * erased_home.EACH
    assert "0 tables were there before" not in run("file").output


def test_without_a_lake_it_says_what_to_set(home: Path) -> None:
    done = CliRunner().invoke(app, ["migrate", "--to", "lake"])
    assert done.exit_code == 2
    assert "FLYWHEEL_WAREHOUSE is not set, expected postgres://USER@HOST/DATABASE" in done.output


@pytest.mark.lake
def test_a_working_home_goes_to_a_lake_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLYWHEEL_WAREHOUSE", lakes.database("migrated_by_command"))
    home = settings.load()
    assert home.lake is not None

    def run(to: str, *, is_working: bool) -> str:
        with ExitStack() as stack:
            if is_working:
                stack.enter_context(file_locks.held(processes.lock_path(home)))
            done = CliRunner().invoke(app, ["migrate", "--to", to])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    log = logs.write(tmp_path / "log.jsonl", [logs.interaction("Rain?", response_id="first")])
    with warehouse.connect(home.warehouse) as con:
        logs.load(con, log, now=logs.NOW)
    assert "`flywheel down`, and the same command once more" in run("lake", is_working=True)
    assert home.warehouse.exists()
    log = logs.write(tmp_path / "log2.jsonl", [logs.interaction("Snow?", response_id="second")])
    with warehouse.connect(home.warehouse) as con:
        logs.load(con, log, now=logs.NOW)
    assert "the file is kept as" in run("lake", is_working=False)
    assert not home.warehouse.exists()
    with warehouse.connect(home.lake, writes=()) as con:
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(2,)]
    assert "once more" in run("file", is_working=True)
    assert not home.warehouse.exists()
    assert "once more" not in run("file", is_working=False)
    with warehouse.connect(home.warehouse) as con:
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(2,)]


@pytest.mark.lake
def test_a_warehouse_that_workers_of_other_servers_use_is_copied_ahead_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> None:
    api = f"{settings.load().prefect_url}/api"
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    monkeypatch.delenv("FLYWHEEL_PREFECT_PORT")
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLYWHEEL_WAREHOUSE", lakes.database("used_elsewhere"))
    for pool, worker in (("cpu", "of-a-container"), ("others", "of-another-project")):
        httpx.post(f"{api}/work_pools/", json={"name": pool, "type": "process"}).raise_for_status()
        heartbeat = {"name": worker, "heartbeat_interval_seconds": 30}
        beats = f"{api}/work_pools/{pool}/workers/heartbeat"
        httpx.post(beats, json=heartbeat).raise_for_status()
    home = settings.load()
    log = logs.write(tmp_path / "log.jsonl", [logs.interaction("Rain?", response_id="first")])
    with warehouse.connect(home.warehouse) as con:
        logs.load(con, log, now=logs.NOW)
    done = CliRunner().invoke(app, ["migrate", "--to", "lake"])
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert "workers of Prefect may use them (cpu: of-a-container), and go on as before" in shown
    assert home.warehouse.exists()
