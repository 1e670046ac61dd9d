"""An erasure on a lake: nothing is left in its files, in any version, nor in PostgreSQL."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.asyn import sync
from mlflow import MlflowClient
from s3fs import S3FileSystem
from typer.testing import CliRunner

from components.collect import retention
from components.collect.source import Input
from components.erase.certificate import Certificate
from components.erase.subject import Subject
from components.extensions.machines import lake, lake_purge
from components.extensions.machines.lake_warehouse import Lake
from components.schema import Json
from components.store import warehouse
from components.store.lock import WarehouseBusyError
from components.store.warehouse import Connection
from components.store.warehouse_port import WarehouseError
from flows import settings, snapshots, sources
from flows.cli.main import app
from flows.erasing import erase
from flows.machines import erased_copies
from flows.settings import Settings
from flows.workload_file import Workload
from tests.components.erase.conftest import Eraser
from tests.flows.test_lake import workload_of
from tests.support import buckets, erased_home, forking, lakes, logs, warehouses
from tests.support.erased_home import ANN, BOB, EACH, WORKLOAD, House

pytestmark = [pytest.mark.lake, pytest.mark.timeout(1500)]

WORDS = (ANN, "ann asks about", "rains on ann", "ann likes answer")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    folder = tmp_path_factory.mktemp("house")
    return erased_home.build(folder / "home", lakes.new(folder / "lake"))


@pytest.fixture
def house(built: House, tmp_path: Path) -> House:
    """A house of the test's own, and its lake."""
    assert built.settings.shared_warehouse is not None
    return erased_home.move(
        built, tmp_path / "home", lakes.copy(built.settings.shared_warehouse, tmp_path / "lake")
    )


def spellings(word: str) -> list[bytes]:
    """A word as it is, and as JSON and PostgreSQL's bytea in hexadecimal write it."""
    escaped = json.dumps(word)[1:-1]
    return [word.encode(), escaped.encode(), word.encode().hex().encode()]


def texts_of(path: Path) -> bytes:
    """A file's bytes, and the values of one in Parquet."""
    content = path.read_bytes()
    if content[:4] == b"PAR1" and content[-4:] == b"PAR1":
        rows = duckdb.execute(f"from read_parquet('{path}', union_by_name := true)").fetchall()
        content += repr(rows).encode()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def in_folder(folder: Path, words: tuple[str, ...]) -> list[str]:
    """The files in which a word stands, in bytes or in values of Parquet."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".wal"
        for content in [texts_of(path)]
        if any(spelling in content for word in words for spelling in spellings(word))
    ]


def in_dump(place: Lake, words: tuple[str, ...]) -> list[str]:
    """The lines of a dump of the database in which a word stands."""
    program = max(Path("/usr/lib/postgresql").glob("*/bin")) / "pg_dump"
    dump = subprocess.run([program, place.url], capture_output=True, check=True).stdout
    return [
        line.decode(errors="replace")[:200]
        for line in dump.splitlines()
        if any(spelling in line for word in words for spelling in spellings(word))
    ]


def in_cluster(place: Lake, words: tuple[str, ...]) -> list[str]:
    """The tables of the database in whose pages a word stands, in rows that are dead, too."""
    name = database_of(place)
    lakes.execute("checkpoint")
    ((folder, oid),) = lakes.execute(
        "select current_setting('data_directory'), oid::text from pg_database"
        f" where datname = '{name}'"
    )
    names = dict(
        lakes.execute("select pg_relation_filenode(oid)::text, relname from pg_class", name)
    )
    return [
        str(names.get(re.split("[._]", path.name)[0]))
        for path in sorted((Path(folder) / "base" / oid).iterdir())
        if any(spelling in path.read_bytes() for word in words for spelling in spellings(word))
    ]


def everywhere(house: House, words: tuple[str, ...] = WORDS) -> dict[str, list[str]]:
    """Where a word stands: in the home, in the lake's files, in a dump, in PostgreSQL's pages."""
    place = house.settings.shared_warehouse
    assert place is not None
    places = {
        "home": in_folder(house.settings.home, words),
        "dump": in_dump(place, words),
        "pages": in_cluster(place, words),
    }
    if place.data.startswith("s3://"):
        places["bucket"] = in_bucket(place, words)
    else:
        places["files"] = in_folder(Path(place.data), words)
    return {name: hits for name, hits in places.items() if hits}


def in_bucket(place: Lake, words: tuple[str, ...]) -> list[str]:
    """The objects in which a word stands, in any version, and uploads that were never finished."""
    system: Any = S3FileSystem(use_listings_cache=False)  # untyped
    bucket = place.data.removeprefix("s3://").partition("/")[0]
    found = [
        str(upload)
        for upload in system.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", ())
    ]
    with tempfile.TemporaryDirectory() as folder:
        for each in system.call_s3("list_object_versions", Bucket=bucket).get("Versions", ()):
            key = {"Bucket": bucket, "Key": each["Key"], "VersionId": each["VersionId"]}
            copy = Path(folder) / Path(each["Key"]).name
            content: Any = sync(system.loop, system.call_s3("get_object", **key)["Body"].read)
            copy.write_bytes(content)
            found += [f"{each['Key']}: {hit}" for hit in in_folder(Path(folder), words)]
            copy.unlink()
    return found


def test_nothing_of_a_person_is_left_in_files_catalog_and_pages_of_postgresql(
    house: House, eraser: Eraser
):
    before = [row for row in house.raw() if ANN not in str(row["payload"])]
    assert {*everywhere(house)} == {"home", "files", "dump", "pages"}
    written = eraser(house.settings, Subject(ANN))
    assert written.searched.left == ()
    assert house.raw() == before
    assert len(before) == 2 * EACH
    assert written.erased["raw.interactions"] == EACH
    assert written.erased["raw.feedback"] == 2
    assert written.erased["raw.quarantine"] == 1
    assert everywhere(house) == {}
    assert {*everywhere(house, (BOB,))} == {"files", "dump", "pages"}
    assert any("write-ahead log" in place for place in written.searched.passed_over)


def test_rows_in_files_of_their_own_leave_no_statistics(house: House, eraser: Eraser):
    """DuckLake narrows a column's least and greatest value only where it writes a file anew."""
    asked = [erased_home.line(ANN, n) | {"user_id": "zz-last"} for n in range(50, 53)]
    with warehouses.connect(house.settings.tables) as con:
        logs.load(con, logs.write(house.log.with_name("own.jsonl"), asked), now=logs.NOW)
        vote = erased_home.vote("zz-last", 5, BOB)
        logs.load_feedback(con, logs.write(house.log.with_name("vote.jsonl"), [vote]), now=logs.NOW)
    assert "dump" in everywhere(house, ("zz-last",))
    written = eraser(house.settings, Subject("zz-last"))
    assert written.searched.left == ()
    assert everywhere(house, ("zz-last", "zz likes answer")) == {}


@pytest.fixture(scope="module")
def versioned() -> Generator[str]:
    """A bucket that keeps the versions of objects."""
    with buckets.serving_versions() as bucket:
        yield bucket


def archived_rows(con: Connection) -> int:
    """Count the interactions in the files of retention."""
    paths = warehouse.texts(
        con, "select distinct path from raw.archived where kind = 'interactions'"
    )
    warehouse.show_files(con, "archived_interactions", paths, like="raw.interactions")
    ((rows,),) = con.execute("select count(*) from archived_interactions").fetchall()
    return int(rows)


def _lake_in_bucket(
    store: str, database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Lake:
    """Set up a home of a lake in a bucket, whose environment the test has."""
    place = Lake(lakes.database(database), f"{store}/lake")
    monkeypatch.setenv("FLYWHEEL_STORE", store)
    monkeypatch.setenv("FLYWHEEL_WAREHOUSE", place.url)
    monkeypatch.setenv("FLYWHEEL_HOME", str(folder / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    MlflowClient().create_registered_model(WORKLOAD)
    return place


def test_nothing_of_a_person_is_left_in_any_version_of_the_bucket(
    versioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eraser: Eraser
):
    place = _lake_in_bucket(f"s3://{versioned}/shared", "erased_in_bucket", tmp_path, monkeypatch)
    house = erased_home.build(tmp_path / "home", place)
    _leave_of_killed_load(f"shared/lake/raw/interactions/ducklake-{'0' * 8}.parquet", versioned)
    assert {*everywhere(house)} == {"home", "bucket", "dump", "pages"}
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "other"))
    other = settings.load()
    other.home.mkdir()
    erased_copies.enter(other)
    snapshots.freeze_workload(weather(other), other, now=logs.NOW, ask=False)
    assert in_folder(other.judgements, WORDS)

    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    written = eraser(settings.load(), Subject(ANN))
    assert written.searched.left == ()
    assert everywhere(house) == {}
    assert everywhere(house, (BOB,))["bucket"]
    name = erased_copies.machine_name(other)
    waiting = f"copies of the machine {name}, whose worker has not answered yet"
    assert waiting in written.searched.passed_over
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "other"))
    erased_copies.forget(other)
    assert in_folder(other.home, WORDS) == []
    assert in_folder(other.judgements, (BOB.split("-")[0],))
    assert erased_copies.unconfirmed(other, [written.certificate_id]) == []

    verified = CliRunner().invoke(app, ["erase", "--verify", "--subject", ANN])
    assert verified.exit_code == 0, verified.output
    assert "not searched: PostgreSQL's write-ahead log" in verified.stdout
    assert verified.stdout.splitlines()[-1] == "nothing is left"
    with warehouse.reading(place) as con:
        sql = "select count(*) from raw.interactions where payload like '%bob%'"
        assert con.execute(sql).fetchall() == [(EACH,)]


def test_rows_that_another_machine_archived_go_from_the_bucket(
    versioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eraser: Eraser
):
    place = _lake_in_bucket(
        f"s3://{versioned}/archived", "erased_from_archive", tmp_path, monkeypatch
    )
    house = erased_home.build(tmp_path / "home", place)
    old: list[dict[str, Json]] = [
        {
            **erased_home.line(person, n),
            "timestamp": 1_700_000_000 + n,
            "response": {"id": f"o{n}"},
        }
        for n, person in enumerate(erased_home.PEOPLE, start=60)
    ]
    log = logs.write(tmp_path / "old.jsonl", old)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "other"))
    other = settings.load()
    with warehouses.connect(place) as con:
        logs.load(con, log, now=logs.NOW)
        moved = retention.archive(
            con, other.archive_root, WORKLOAD, snapshots=other.snapshots, days=90, now=logs.NOW
        )
        assert moved == 3
        assert archived_rows(con) == 3
    killed = f"{other.archive_root}/interactions/{WORKLOAD}/2023-11/{'0' * 32}.parquet"
    _leave_of_killed_load(killed.removeprefix(f"s3://{versioned}/"), versioned)
    left = other.archive / "interactions/weather/2023-11/from-before.parquet"
    left.parent.mkdir(parents=True)
    left.write_text(erased_home.question(ANN, 60))
    erased_copies.enter(other)
    assert any("/archive/" in hit for hit in in_bucket(place, (ANN,)))

    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    written = eraser(settings.load(), Subject(ANN))
    assert written.erased["archive of interactions"] == 1
    assert written.searched.left == ()
    assert any(name.startswith(f"{place.archive}/") for name in written.searched.places)
    assert everywhere(house) == {}
    with warehouses.connect(place) as con:
        assert archived_rows(con) == 2
        con.execute("delete from raw.files")
        assert logs.load(con, log, now=logs.NOW).new == 0
    erased_copies.forget(other)
    assert not left.exists()


def test_rows_that_are_left_in_the_archive_of_a_bucket_are_found(
    versioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eraser: Eraser
):
    place = _lake_in_bucket(f"s3://{versioned}/found", "left_in_archive", tmp_path, monkeypatch)
    erased_home.build(tmp_path / "home", place)
    home = settings.load()
    eraser(home, Subject(ANN))
    rows = pa.table({"payload": [json.dumps(erased_home.line(ANN, 3))]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    system: Any = S3FileSystem(use_listings_cache=False)  # untyped
    file = f"{home.archive_root}/interactions/{WORKLOAD}/2023-11/{'1' * 32}.parquet"
    system.put_file(str(tmp_path / "rows.parquet"), file)
    searched = erase.verify_erasure(home, subject=Subject(ANN), certificate_path=None)
    assert {left.where for left in searched.left} == {f"{file}.payload"}
    system.rm_file(file)
    searched = erase.verify_erasure(home, subject=Subject(ANN), certificate_path=None)
    assert [left.where for left in searched.left if f"{file.partition('//')[2]}" in left.where]


def weather(home: Settings) -> Workload:
    """The workload of the house, as a turn curates it."""
    return workload_of(home, WORKLOAD).model_copy(update={"curate": erased_home.RULES})


def _leave_of_killed_load(key: str, bucket: str) -> None:
    """Write a file that no table lists, and begin another one."""
    system: Any = S3FileSystem()  # untyped
    content = erased_home.question(ANN, 3).encode()
    system.pipe_file(f"{bucket}/{key}", content)
    upload = system.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{key}.part")
    system.call_s3(
        "upload_part",
        Bucket=bucket,
        Key=f"{key}.part",
        UploadId=upload["UploadId"],
        PartNumber=1,
        Body=content,
    )


def test_who_still_sees_deleted_rows_is_waited_for_and_named(house: House):
    place = house.settings.shared_warehouse
    assert place is not None
    with place.session() as reader:
        reader.execute("begin isolation level repeatable read")
        reader.execute("select count(*) from raw.erased")
        with pytest.raises(WarehouseBusyError, match=r"flywheel .* may still see"):
            lake_purge.purge(place, wait_seconds=0.2)
        reader.execute("rollback")
        lake_purge.purge(place, wait_seconds=60)


def test_who_does_not_own_the_database_is_told(tmp_path: Path):
    empty = lakes.new(tmp_path / "lake")
    name = empty.url.rpartition("/")[2]
    lakes.execute("create role guest login superuser")
    lakes.execute("alter role guest nosuperuser")
    lakes.execute(
        "do $$ declare t record; begin for t in select schemaname s, tablename n from pg_tables"
        f" where schemaname in ('raw', 'curated', '{lake.CATALOG}') loop"
        " execute format('alter table %I.%I owner to guest', t.s, t.n); end loop; end $$",
        name,
    )
    lakes.execute(f"grant usage on schema raw, curated, {lake.CATALOG} to guest", name)
    guest = replace(empty, url=empty.url.replace("postgres@", "guest@"))
    with pytest.raises(
        WarehouseError, match=r"pg_statistic.* expected a user that owns the database"
    ):
        lake_purge.purge(guest)
    lakes.execute(f"alter database {name} owner to guest")
    lake_purge.purge(guest)


def test_a_file_from_before_the_lake_must_be_deleted_first(house: House, eraser: Eraser):
    old = house.settings.home / "warehouse.duckdb"
    old.write_bytes(b"rows")
    before = house.raw()
    with pytest.raises(erase.OldWarehouseError, match=r"duckdb has the rows .* delete it"):
        eraser(house.settings, Subject(ANN))
    assert house.raw() == before


KILLS = (
    "components.erase.delete._delete_matched",
    "components.erase.delete.clear_files",
    "flows.machines.erased_copies.forget_judgements",
    "components.extensions.machines.lake_purge.purge",
    "components.extensions.machines.lake_purge._delete_strays",
    "components.extensions.machines.lake_purge._vacuum",
    "components.extensions.machines.lake_purge.earlier_files",
    "components.erase.certificate.write",
    "components.erase.tombstones.finish_erasure",
)
"""Functions at whose beginning an erasure is killed: before and after each commit."""


def erase_until(home: Settings, killed_at: str) -> None:
    def profile(frame: FrameType, event: str, _: object) -> None:
        if (event, frame.f_code.co_name, frame.f_globals.get("__name__")) == ("call", name, module):
            os.kill(os.getpid(), signal.SIGKILL)

    module, _, name = killed_at.rpartition(".")

    sys.setprofile(profile)
    run_erasure(home)


def run_erasure(home: Settings) -> Certificate:
    request = erase.ErasureRequest(Subject(ANN), False, {})
    return erase.erase(home, request, now=lambda: logs.NOW, report=lambda _: None)


def kill_erasure(home: Settings, at: str) -> None:
    killed = forking.process(erase_until, home, at)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL, at


def test_what_a_killed_erasure_leaves_beside_the_rows_is_found(house: House):
    kill_erasure(house.settings, "components.extensions.machines.lake_purge.purge")
    assert ANN not in str(house.raw())
    searched = erase.verify_erasure(house.settings, subject=Subject(ANN), certificate_path=None)
    assert {left.kind for left in searched.left} == {"freed bytes"}
    assert {left.where.rpartition("/")[0].rpartition("/")[2] for left in searched.left} >= {
        "interactions",
        "feedback",
        "quarantine",
    }
    assert {"warehouse lake_catalog.ducklake_file_column_stats.min_value"} <= {
        left.where for left in searched.left
    }


def test_an_erasure_that_is_killed_anywhere_is_finished_by_the_next_one(house: House):
    before = [row for row in house.raw() if ANN not in str(row["payload"])]
    for name in KILLS:
        kill_erasure(house.settings, name)
    written = run_erasure(house.settings)
    assert written.searched.left == ()
    assert written.erased["raw.interactions"] == EACH
    assert written.erased["raw.feedback"] == 2
    assert house.raw() == before
    assert everywhere(house) == {}
    with warehouses.connect(house.settings.tables) as con:
        con.execute("delete from raw.files")
        loaded = logs.load(con, house.log, now=logs.NOW)
    assert (loaded.new, loaded.known) == (0, 3 * EACH)


@pytest.mark.parametrize(
    "at",
    [
        pytest.param("components.erase.delete.row_ids", id="between-both-transactions"),
        pytest.param("components.erase.delete._delete_matched", id="amid-the-second-one"),
    ],
)
def test_rows_that_are_loaded_since_a_lock_was_cut_are_erased_with_the_others(
    house: House, at: str
):
    place = house.settings.shared_warehouse
    assert place is not None
    more = logs.write(house.log.with_name("more.jsonl"), [erased_home.line(ANN, 70)])
    other = Thread(target=load_again, args=(house.settings, [more]))
    is_in_book = "select 1 from raw.erasures"
    module, _, name = at.rpartition(".")

    def profile(frame: FrameType, event: str, _: object) -> None:
        here = (event, frame.f_code.co_name, frame.f_globals.get("__name__"))
        if here == ("call", name, module) and lakes.execute(is_in_book, database_of(place)):
            sys.setprofile(None)
            cut_locks(place)
            other.start()
            other.join()

    sys.setprofile(profile)
    try:
        written = run_erasure(house.settings)
    finally:
        sys.setprofile(None)
    assert written.erased["raw.interactions"] == EACH + 1
    assert written.searched.left == ()
    assert everywhere(house) == {}
    load_again(house.settings, [more, house.log])
    assert ANN not in str(house.raw())


def database_of(place: Lake) -> str:
    return place.url.rpartition("/")[2]


def cut_locks(place: Lake) -> None:
    ((cut,),) = lakes.execute(
        "select count(pg_terminate_backend(pid)) from pg_locks"
        " where locktype = 'advisory' and granted and objsubid = 1 and database ="
        f" (select oid from pg_database where datname = '{database_of(place)}')"
    )
    assert cut


def load_again(home: Settings, files: list[Path]) -> None:
    for path in files:
        list(sources.load_inputs(home.tables, [Input(str(path))], now=logs.NOW))


def curate_again(home: Settings, workload: Workload, ended: Path) -> None:
    while not ended.exists():
        snapshots.freeze_workload(workload, home, now=logs.NOW, ask=False)


def test_loads_and_curations_beside_an_erasure_bring_nothing_back(house: House, tmp_path: Path):
    before = [row for row in house.raw() if ANN not in str(row["payload"])]
    text = house.log.read_text()
    files = [house.log.with_name(f"{n}.jsonl") for n in range(12)]
    for number, path in enumerate(files):
        path.write_text(text + json.dumps(erased_home.line(BOB, 100 + number)) + "\n")
    ended, workload = tmp_path / "ended", weather(house.settings)
    others = [
        forking.process(load_again, house.settings, files),
        forking.process(load_again, house.settings, files[::-1]),
        forking.process(curate_again, house.settings, workload, ended),
    ]
    for process in others:
        process.start()
    run_erasure(house.settings)
    ended.touch()
    for process in others:
        process.join()
        assert process.exitcode == 0
    assert len(house.raw()) == len(before) + len(files)
    searched = erase.verify_erasure(house.settings, subject=Subject(ANN), certificate_path=None)
    assert searched.left == ()
    assert everywhere(house) == {}
