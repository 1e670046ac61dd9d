"""A home's warehouse copied to a lake on a real PostgreSQL, and back into a file."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from components import home_archive
from components.collect import retention
from components.collect.sources.fivekey import export
from components.decide import chain, decision_log
from components.decide.decision_log import LogEvent
from components.store import archived_files, lake, lake_owner, moved_tables, warehouse
from components.store.lake import Lake, LakeError
from components.store.lock import WarehouseBusyError
from components.store.table_copy import MovedTable, MovedTablesError
from components.store.warehouse import Connection, Location
from tests.support import erased_home, lakes, logs, warehouses

pytestmark = pytest.mark.lake

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The warehouse of a home with traffic, a curation, a snapshot and a decision."""
    file = erased_home.build(tmp_path / "home").settings.warehouse
    with warehouse.connect(file) as con:
        for number in range(3):
            comment = f"wörse,\n'quoted' \\ {number} 🌧"
            event = LogEvent("reject", "weather", "e1", f"run-{number}", NOW, comment=comment)
            with warehouse.transaction(con):
                decision_log.append_event(con, event)
    return file


def contents(file: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of every table that is kept."""
    with warehouse.connect(file) as con:
        return {
            table.full_name: con.execute(f"from {table.full_name} order by all").fetchall()
            for table in warehouse.schema().tables
        }


def moved(copy: Callable[..., object], *places: object) -> dict[str, MovedTable]:
    tables: list[MovedTable] = []
    copy(*places, tables.append, 10.0)
    return {table.name: table for table in tables}


def test_a_warehouse_goes_to_a_lake_and_comes_back_with_every_row(
    file: Path, tmp_path: Path
) -> None:
    before = contents(file)
    place = lakes.new(tmp_path / "lake")
    there = moved(moved_tables.copy_to_lake, file, place)
    assert {name: table.rows for name, table in there.items()} == {
        name: len(rows) for name, rows in before.items()
    }
    assert there["raw.interactions"].rows == 3 * erased_home.EACH
    with warehouse.connect(place, writes=()) as con:
        links = decision_log.links(con)
        assert chain.first_broken(links, decision_log.read_head(con)) is None
        assert len(links) >= 3
    back = tmp_path / "back" / "warehouse.duckdb"
    moved(moved_tables.copy_to_file, place, back)
    assert contents(back) == before
    assert not file.exists(), "nobody goes on with it by mistake"
    assert contents(file.with_name("warehouse.duckdb.migrated")) == before


def test_what_is_new_in_the_lake_comes_back_too(file: Path, tmp_path: Path) -> None:
    place = lakes.new(tmp_path / "lake")
    moved(moved_tables.copy_to_lake, file, place)
    log = logs.write(tmp_path / "new.jsonl", [logs.interaction("New?", response_id="new")])
    with warehouse.connect(place, writes=("raw",)) as con:
        logs.load(con, log, now=NOW)
    back = tmp_path / "back" / "warehouse.duckdb"
    tables = moved(moved_tables.copy_to_file, place, back)
    assert tables["raw.interactions"].rows == 3 * erased_home.EACH + 1
    with warehouse.connect(back) as con:
        assert logs.load(con, log, now=NOW).new == 0


def test_a_second_copy_compares_and_one_over_other_rows_is_refused(
    file: Path, tmp_path: Path
) -> None:
    place = lakes.new(tmp_path / "lake")
    moved(moved_tables.copy_to_lake, file, place)
    file.with_name("warehouse.duckdb.migrated").rename(file)
    again = moved(moved_tables.copy_to_lake, file, place)
    assert all(table.was_there for table in again.values())
    log = logs.write(tmp_path / "new.jsonl", [logs.interaction("New?", response_id="new")])
    with warehouse.connect(place, writes=("raw",)) as con:
        logs.load(con, log, now=NOW)
    file.with_name("warehouse.duckdb.migrated").rename(file)
    with pytest.raises(MovedTablesError, match="expected a warehouse without data"):
        moved(moved_tables.copy_to_lake, file, place)
    with pytest.raises(MovedTablesError, match="expected a warehouse without data"):
        moved(moved_tables.copy_to_file, place, file)


def kill_after_twelve_tables(call: str, file: Path, place: Lake) -> None:
    killed(
        f"""
seen = []
def report(table):
    seen.append(table)
    if len(seen) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
moved_tables.{call}
""",
        file,
        place,
    )


def killed(code: str, file: Path, place: Lake) -> None:
    """Run code in a process that is killed by it."""
    begin = f"""
import os, signal, sys
from pathlib import Path
from components.store import moved_tables
from components.store.lake import Lake
file = Path({str(file)!r})
place = Lake({place.url!r}, {place.data!r})
"""
    assert subprocess.run([sys.executable, "-c", begin + code], check=False).returncode == -9


def test_a_killed_copy_is_completed(file: Path, tmp_path: Path) -> None:
    before = contents(file)
    place = lakes.new(tmp_path / "lake")
    kill_after_twelve_tables("copy_to_lake(file, place, report, 10.0)", file, place)
    there = moved(moved_tables.copy_to_lake, file, place)
    assert {table.was_there for table in there.values()} == {True, False}
    back = tmp_path / "back" / "warehouse.duckdb"
    moved(moved_tables.copy_to_file, place, back)
    assert contents(back) == before


def load(place: Location, folder: Path, name: str) -> None:
    log = logs.write(folder / f"{name}.jsonl", [logs.interaction(f"{name}?", response_id=name)])
    with warehouse.connect(place, writes=("raw",)) as con:
        logs.load(con, log, now=NOW)


def test_a_file_is_copied_ahead_while_others_write_it_and_then_what_differs(
    file: Path, tmp_path: Path
) -> None:
    place = lakes.new(tmp_path / "lake")
    moved(moved_tables.copy_ahead_to_lake, file, place, tmp_path / "tmp")
    assert list((tmp_path / "tmp").iterdir()) == []
    load(file, tmp_path, "new")
    with warehouse.connect(file) as con:
        gone = "delete from raw.interactions where interaction_id in (select min(interaction_id)"
        con.execute(f"{gone} from raw.interactions)")
        con.execute("update curated.verdicts set weight = 0.5")
        event = LogEvent("reject", "weather", "e1", "run-new", NOW, comment="meanwhile")
        with warehouse.transaction(con):
            decision_log.append_event(con, event)
    before = contents(file)
    again = moved(moved_tables.copy_to_lake, file, place)
    assert again["raw.interactions"] == MovedTable(
        "raw.interactions", 3 * erased_home.EACH, was_there=False
    )
    assert again["raw.feedback"].was_there
    assert not file.exists()
    back = tmp_path / "back" / "warehouse.duckdb"
    moved(moved_tables.copy_ahead_to_file, place, back)
    assert not back.exists(), "it is not whole"
    load(place, tmp_path, "newer")
    moved(moved_tables.copy_to_file, place, back)
    after = contents(back)
    assert len(after["raw.interactions"]) == 3 * erased_home.EACH + 1
    differ = {name for name in after if after[name] != before[name]}
    assert differ <= {"raw.interactions", "raw.files", "raw.loaded_parts", "raw.fields"}
    load(back, tmp_path, "newest")
    third = contents(back)
    moved(moved_tables.copy_to_lake, back, place)
    moved(moved_tables.copy_to_file, place, tmp_path / "last" / "warehouse.duckdb")
    assert contents(tmp_path / "last" / "warehouse.duckdb") == third


def test_nobody_opens_a_lake_whose_rows_are_a_files(file: Path, tmp_path: Path) -> None:
    place = lakes.new(tmp_path / "lake")
    moved(moved_tables.copy_ahead_to_lake, file, place, tmp_path / "tmp")
    groups: tuple[tuple[lake.Group, ...], ...] = ((), ("raw",))
    for writes in groups:
        refused = pytest.raises(LakeError, match=f"being filled from .*{file}")
        with refused, warehouse.connect(place, writes=writes):
            pass
    moved(moved_tables.copy_to_lake, file, place)
    load(place, tmp_path, "new")
    with pytest.raises(LakeError, match="its tables are in a lake"):
        load(file, tmp_path, "lost")
    assert not file.exists()
    back = tmp_path / "back" / "warehouse.duckdb"
    moved(moved_tables.copy_to_file, place, back)
    with pytest.raises(LakeError, match=f"is the copy of .*{back}"):
        load(place, tmp_path, "lost")
    other = erased_home.build(tmp_path / "other").settings.warehouse
    with pytest.raises(MovedTablesError, match="expected a new database"):
        moved(moved_tables.copy_to_lake, other, place)
    back.unlink()
    assert lake_owner.complete(back, place)
    load(place, tmp_path, "newer")


def test_a_killed_copy_ahead_and_a_kill_before_the_end_are_completed(
    file: Path, tmp_path: Path
) -> None:
    before = contents(file)
    place = lakes.new(tmp_path / "lake")
    scratch = f"Path({str(tmp_path / 'tmp')!r})"
    kill_after_twelve_tables(
        f"copy_ahead_to_lake(file, place, {scratch}, report, 10.0)", file, place
    )
    assert not lake_owner.complete(file, place)
    moved(moved_tables.copy_to_lake, file, place)
    assert not lake_owner.complete(file, place), "nothing is left to do"
    back = tmp_path / "back" / "warehouse.duckdb"
    moved(moved_tables.copy_to_file, place, back)
    assert contents(back) == before
    # As a kill between the last two steps leaves it; then the home is mounted elsewhere.
    kept = back.rename(back.with_name("warehouse.duckdb.migrated"))
    other = lakes.new(tmp_path / "other")
    unused = Lake(
        lakes.database(f"unused_{place.url.rpartition('_')[2]}"), str(tmp_path / "unused")
    )
    assert not lake_owner.complete(back, other), "it has none of the rows"
    assert not lake_owner.complete(back, unused), "it has no tables"
    kept = kept.parent.rename(tmp_path / "elsewhere") / kept.name
    assert lake_owner.complete(kept.with_name(back.name), place)
    with warehouse.connect(place, writes=()) as con:
        ((rows,),) = con.execute("select count(*) from raw.interactions").fetchall()
    assert rows == len(before["raw.interactions"])
    assert kept.exists()


@pytest.mark.parametrize(
    ("event", "ending"),
    [
        pytest.param("open", ".lake.partial", id="before-the-lake-is-closed"),
        pytest.param("os.rename", ".filling", id="before-the-file-has-its-name"),
    ],
)
def test_a_kill_at_the_end_of_the_way_back_leaves_one_place_to_write(
    event: str, ending: str, file: Path, tmp_path: Path
) -> None:
    place = lakes.new(tmp_path / "lake")
    moved(moved_tables.copy_to_lake, file, place)
    back = tmp_path / "back" / "warehouse.duckdb"
    killed(
        f"""
def kill(event, arguments):
    if event == {event!r} and str(arguments[0]).endswith({ending!r}):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
moved_tables.copy_to_file(place, file, lambda _: None, 10.0)
""",
        back,
        place,
    )
    assert not back.exists()
    with suppress(LakeError):  # of which nobody knows that it was left
        load(place, tmp_path, "newer")
    rows = count_rows(place)
    moved(moved_tables.copy_to_file, place, back)
    assert len(contents(back)["raw.interactions"]) == rows
    with pytest.raises(LakeError, match=f"is the copy of .*{back}"):
        load(place, tmp_path, "lost")


def count_rows(place: Lake) -> int:
    ((rows,),) = lakes.execute(
        "select sum(record_count) from lake_catalog.ducklake_data_file"
        " join lake_catalog.ducklake_table using (table_id) where table_name = 'interactions'"
        " and ducklake_data_file.end_snapshot is null",
        place.url.rpartition("/")[2],
    )
    return int(rows)


@pytest.fixture
def archived(file: Path) -> Path:
    """The same warehouse with old rows of a workload with an odd name, which were archived."""
    old = logs.interaction("Old?", response_id="old", timestamp=1_700_000_000, workload_id="a b/ü")
    log = logs.write(file.parent.parent / "old.jsonl", [old])
    with warehouse.connect(file) as con:
        logs.load(con, log, now=NOW)
        assert archive(con, str(file.parent / "archive")) == 1
    return file


def archive(con: Connection, root: str) -> int:
    snapshots = Path(root).with_name("snapshots")
    return retention.archive(con, root, "a b/ü", snapshots=snapshots, days=90, now=NOW)


def exported(place: Location, to: Path) -> list[str]:
    with warehouse.connect(place, writes=()) as con:
        export(con, to, "interactions")
    return to.read_text().splitlines()


def archived_paths(place: Location) -> list[str]:
    with warehouse.connect(place, writes=()) as con:
        return warehouse.texts(con, "select path from raw.archived")


def test_archived_rows_go_to_the_lakes_bucket_and_come_back(
    archived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exported(archived, tmp_path / "before.jsonl")
    assert sum("Old?" in line for line in before) == 1
    with lakes.bucket("moved") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        place = Lake(lakes.database("moved_archive"), "s3://moved/team/lake")
        moved(moved_tables.copy_to_lake, archived, place)
        (there,) = archived_paths(place)
        assert there.startswith("s3://moved/team/archive/interactions/a%20b%2F%C3%BC/2023-11/")
        assert exported(place, tmp_path / "there.jsonl") == before
        archived.with_name("warehouse.duckdb.migrated").rename(archived)
        again = moved(moved_tables.copy_to_lake, archived, place)
        assert all(table.was_there for table in again.values())

        newer = logs.interaction(
            "Newer?", response_id="newer", timestamp=1_710_000_000, workload_id="a b/ü"
        )
        with warehouses.connect(place) as con:
            logs.load(con, logs.write(tmp_path / "newer.jsonl", [newer]), now=NOW)
            assert place.archive is not None
            assert archive(con, place.archive) == 1
        after = exported(place, tmp_path / "after.jsonl")
        assert len(after) == len(before) + 1
        copy, home = tmp_path / "scratch" / "warehouse.duckdb", tmp_path / "home"
        home_archive.copy_warehouse(place, copy, home)
        copy.parent.joinpath("archive").rename(tmp_path / "kept")
        back = tmp_path / "back" / "warehouse.duckdb"
        moved(moved_tables.copy_to_file, place, back)
        tables = moved(moved_tables.copy_to_file, place, back)
        assert all(table.was_there for table in tables.values())
        with pytest.raises(MovedTablesError, match="it is the copy of"):
            moved(moved_tables.copy_to_file, place, tmp_path / "new" / "warehouse.duckdb")
        lake_owner.set_owner(place, None)
        S3FileSystem(use_listings_cache=False).rm(f"{place.archive}/interactions", recursive=True)
        with pytest.raises(MovedTablesError, match="where retention put old rows: it is gone"):
            home_archive.copy_warehouse(place, tmp_path / "new" / "warehouse.duckdb", home)
    assert exported(back, tmp_path / "back.jsonl") == after
    for path in archived_paths(copy):
        assert (tmp_path / "kept" / Path(path).relative_to(home / "archive")).exists()
    assert len(archived_paths(copy)) == 2


def test_archived_rows_erased_after_a_copy_ahead_are_not_in_the_bucket(
    archived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lakes.bucket("ahead") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        place = Lake(lakes.database("archived_ahead"), "s3://ahead/team/lake")
        moved(moved_tables.copy_ahead_to_lake, archived, place, tmp_path / "tmp")
        assert place.archive is not None
        (before,) = archived_files.listed(place.archive)
        with warehouse.connect(archived) as con:  # as an erasure writes the rows that stay anew
            ((path,),) = con.execute("select path from raw.archived").fetchall()
            kept = Path(path).rename(Path(path).with_name("kept.parquet"))
            con.execute("update raw.archived set path = $kept", {"kept": str(kept)})
            values = "'c1', 's1', 'all', now(), now()"
            con.execute(f"insert into raw.erasures values ({values})")
        moved(moved_tables.copy_to_lake, archived, place)
        (after,) = archived_files.listed(place.archive)
        assert after == before.replace(Path(path).name, "kept.parquet")
        assert archived_paths(place) == [after]


def test_a_copy_back_that_fails_leaves_the_file_as_it_was(file: Path, tmp_path: Path) -> None:
    place = lakes.new(tmp_path / "lake")
    moved(moved_tables.copy_to_lake, file, place)
    back = tmp_path / "back" / "warehouse.duckdb"
    with warehouse.connect(back) as con:
        log = logs.write(tmp_path / "o.jsonl", [logs.interaction("Other?", response_id="o")])
        logs.load(con, log, now=NOW)
    before = contents(back)
    with pytest.raises(MovedTablesError, match="raw"):
        moved(moved_tables.copy_to_file, place, back)
    assert contents(back) == before


def test_a_file_that_another_process_holds_is_waited_for(file: Path, tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from components.store import warehouse
with warehouse.connect(Path({str(file)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(WarehouseBusyError):
            moved_tables.copy_to_lake(file, lakes.new(tmp_path / "lake"), lambda _: None, 0.5)
    finally:
        holder.kill()
        holder.communicate()
