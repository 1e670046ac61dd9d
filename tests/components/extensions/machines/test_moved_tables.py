"""A new lake on a real PostgreSQL filled from a home's warehouse, and saved to a file."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from components import home_archive
from components.collect import retention
from components.decide import chain, decision_log
from components.decide.decision_log import LogEvent
from components.extensions.machines import lake_schema, moved_tables
from components.extensions.machines.lake_warehouse import Lake
from components.extensions.machines.moved_tables import MovedTablesError
from components.store import warehouse, warehouse_port
from components.store.warehouse import Connection, Location
from components.store.warehouse_port import WarehouseError
from tests.support import erased_home, lakes, logs

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
            for table in lake_schema.schema().tables
        }


def test_a_new_lake_gets_every_row_of_a_file_and_a_file_every_row_of_the_lake(
    file: Path, tmp_path: Path
) -> None:
    before, names = contents(file), list[str]()
    place = Lake(lakes.database("filled"), str(tmp_path / "lake"))
    assert moved_tables.is_new(place)
    moved_tables.fill(place, file, names.append, 10.0)
    assert sorted(names) == sorted(before)
    assert not moved_tables.is_new(place)
    with warehouse.reading(place) as con:
        links = decision_log.links(con)
        assert chain.first_broken(links, decision_log.read_head(con)) is None
        assert len(links) >= 3
    log = logs.write(tmp_path / "new.jsonl", [logs.interaction("New?", response_id="new")])
    with warehouse.connect(place, writes=("raw",)) as con:
        logs.load(con, log, now=NOW)
    back = tmp_path / "back" / "warehouse.duckdb"
    moved_tables.save_to_file(place, back, back.parent, 10.0)
    after = contents(back)
    assert len(after["raw.interactions"]) == len(before["raw.interactions"]) + 1
    differ = {name for name in after if after[name] != before[name]}
    assert differ <= {"raw.interactions", "raw.files", "raw.loaded_parts", "raw.fields"}


def test_nobody_opens_a_lake_that_a_killed_copy_has_not_filled(file: Path, tmp_path: Path) -> None:
    place, names = lakes.new(tmp_path / "lake"), list[str]()

    def end(name: str) -> None:
        names.append(name)
        if len(names) == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moved_tables.fill(place, file, end, 10.0)
    groups: tuple[tuple[warehouse_port.Group, ...], ...] = ((), ("raw",))
    for writes in groups:
        refused = pytest.raises(
            WarehouseError, match=f"being filled from {file} by `flywheel restore`"
        )
        with refused, warehouse.connect(place, writes=writes):
            pass


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


def archived_paths(place: Location) -> list[str]:
    with warehouse.reading(place) as con:
        return warehouse.texts(con, "select path from raw.archived")


def test_archived_rows_go_to_the_lakes_bucket_and_come_back(
    archived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = archived_paths(archived)
    with lakes.bucket("moved") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        place = Lake(lakes.database("moved_archive"), "s3://moved/team/lake")
        moved_tables.fill(place, archived, lambda _: None, 10.0)
        (there,) = archived_paths(place)
        assert there.startswith("s3://moved/team/archive/interactions/a%20b%2F%C3%BC/2023-11/")
        copy, home = tmp_path / "scratch" / "warehouse.duckdb", tmp_path / "home"
        home_archive.copy_warehouse(place, copy, home)
        S3FileSystem(use_listings_cache=False).rm(f"{place.archive}/interactions", recursive=True)
        with pytest.raises(MovedTablesError, match="where retention put old rows: it is gone"):
            home_archive.copy_warehouse(place, tmp_path / "new" / "warehouse.duckdb", home)
    (back,) = archived_paths(copy)
    kept = copy.parent / Path(back).relative_to(home)
    assert kept.read_bytes() == Path(before).read_bytes()
