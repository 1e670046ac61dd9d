"""Several machines share one lake: each row once, whoever is killed or cut off."""

import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import pytest

from components.collect import small_files
from components.collect.source import Input
from components.extensions.machines import (
    lake,
    lake_connection,
    lake_purge,
    lake_schema,
)
from components.extensions.machines.lake_warehouse import Lake
from components.schema import Json
from components.store import warehouse, warehouse_port, working_copy
from components.store.lock import WarehouseBusyError
from components.store.warehouse import Connection, DiskFullError
from components.store.warehouse_port import WarehouseConflictError, WarehouseError
from flows import sources
from tests.support import forking, lakes, logs, small_disk, warehouses

COMMIT = "TransactionContext Error: Failed to commit: Failed to commit DuckLake transaction.\n"
QUERY = 'Failed to execute query "UPDATE "raw"."gate" SET ...": '

KILLS, CUTS = 10, 10
FILES, ROWS = 40, 60

on_postgres = pytest.mark.lake


def test_every_table_is_in_the_lake_with_its_key_or_in_the_book(tmp_path: Path):
    with warehouse.connect(tmp_path / "warehouse.duckdb") as con:
        tables = con.execute(
            "select schema_name || '.' || table_name, constraint_column_names"
            " from duckdb_tables() left join (from duckdb_constraints()"
            " where constraint_type = 'PRIMARY KEY') using (schema_name, table_name)"
            " where schema_name in ('raw', 'curated')"
        ).fetchall()
    keys = {name: tuple(columns or ()) for name, columns in tables}
    assert {name: keys[name] for name in lake_schema.KEYS} == lake_schema.KEYS
    assert {name: keys[name] for name in lake_schema.WITHOUT_KEY} == dict.fromkeys(
        lake_schema.WITHOUT_KEY, ()
    )


@pytest.fixture
def place(tmp_path: Path) -> Lake:
    return lakes.new(tmp_path / "lake")


def count(place: Lake, table: str = "raw.interactions", key: str = "interaction_id") -> list[int]:
    with warehouse.reading(place) as con:
        sql = f"select count(*), count(distinct {key}) from {table}"
        return [*con.execute(sql).fetchall()[0]]


def cut_sessions(place: Lake, least: int = 0) -> int:
    """End the sessions that hold a lock; return how many did."""
    sql = (
        "select count(pg_terminate_backend(pid)) from pg_locks"
        " where locktype = 'advisory' and granted and objsubid = 1 and database ="
        f" (select oid from pg_database where datname = '{name_of(place)}')"
    )
    ((cut,),) = lakes.execute(sql)
    assert cut >= least
    return cut


def name_of(place: Lake) -> str:
    return place.url.rpartition("/")[2]


def store_ids(con: Connection, ids: Sequence[str]) -> None:
    """Store interactions that are not there yet, as a load does."""
    con.execute(
        "insert into raw.interactions by name select interaction_id, 'w' as workload_id,"
        " timestamptz '2026-01-01' as timestamp, 'c' as client_id, '{}' as payload,"
        " 'd' as file_digest, 1 as line from (select unnest($ids) as interaction_id)"
        " anti join raw.interactions using (interaction_id)",
        {"ids": list(ids)},
    )


BLIND_GATE = f"""
create function blind() returns trigger language plpgsql as $$
begin
    select string_agg(change, ',') into new.changes_made
    from unnest(string_to_array(new.changes_made, ',')) as change
    where split_part(change, ':', 2) not in (
        select table_id::text from {lake.CATALOG}.ducklake_table where table_name = 'gate'
    );
    return new;
end $$;
create trigger blind before insert on {lake.CATALOG}.ducklake_snapshot_changes
    for each row execute function blind()
"""
"""Keeps from DuckLake's catalog that a gate was changed, so that no transaction conflicts by it."""


@on_postgres
@pytest.mark.parametrize(
    ("gate", "attempts", "rows"),
    [
        pytest.param("", 2, 100, id="with-its-gate"),
        pytest.param(BLIND_GATE, 1, 200, id="by-the-lock-alone-every-row-is-there-twice"),
    ],
)
def test_a_writer_whose_lock_was_cut_stores_nothing_twice(
    gate: str, attempts: int, rows: int, place: Lake
):
    if gate:
        lakes.execute(gate, name_of(place))
    ids = [f"i{number}" for number in range(100)]
    begun = list[int]()

    def other() -> None:
        with warehouse.connect(place, writes=["raw"]) as con, warehouse.transaction(con, "raw"):
            store_ids(con, ids)

    def piece(con: Connection) -> None:
        with warehouse.transaction(con, "raw"):
            store_ids(con, ids)
            begun.append(len(begun))
            if len(begun) == 1:
                cut_sessions(place, least=1)
                second = Thread(target=other)
                second.start()
                second.join()

    list(warehouse.in_turns(place, [piece], writes=["raw"]))
    assert (len(begun), count(place)) == (attempts, [rows, 100])


CONFLICTS = [
    duckdb.TransactionException(f"{COMMIT}Transaction conflict - attempting to insert into table"),
    duckdb.Error(f"{COMMIT}Exceeded the maximum retry count of 10 set by the setting."),
    duckdb.TransactionException("TransactionContext Error: Conflict on tuple deletion!"),
    duckdb.Error(f"{QUERY}ERROR:  could not serialize access due to concurrent update\n"),
    duckdb.Error(f"{QUERY}ERROR:  deadlock detected\nDETAIL:  Process 30036 waits"),
]
OTHERS = [  # with the name of a table, the words of a row, and of a wrong statement
    duckdb.ConstraintException("NOT NULL constraint failed: conflicts.confidence"),
    duckdb.ConversionException("Could not convert string 'deadlock detected' to INT32"),
    duckdb.BinderException("Conflicting column names for column id, specify ON CONFLICT columns"),
]


def test_only_what_a_faster_transaction_causes_can_be_tried_again():
    # As they were raised by two transactions at once, and by statements that are wrong.
    assert [*filter(lake_connection.is_conflict, [*CONFLICTS, *OTHERS])] == CONFLICTS


def cut_all(place: Lake) -> None:
    """End all sessions of a lake's database, as a restart of PostgreSQL does."""
    sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = "
    assert lakes.execute(f"{sql}'{name_of(place)}'") >= [(2,)]


@on_postgres
@pytest.mark.parametrize("where", ["amid-the-transaction", "at-its-commit"])
def test_a_load_whose_connections_were_all_cut_is_done_again(where: str, place: Lake):
    attempts = list[int]()

    def piece(con: Connection) -> None:
        with warehouse.transaction(con, "raw"):
            store_ids(con, ["i1", "i2"])
            attempts.append(len(attempts))
            if len(attempts) == 1:
                cut_all(place)
                if where == "amid-the-transaction":
                    store_ids(con, ["i3"])

    list(warehouse.in_turns(place, [piece], writes=["raw"]))
    assert (len(attempts), count(place)) == (2, [2, 2])
    with warehouse.connect(place) as con:
        refused = pytest.raises(WarehouseConflictError, match=r"cut, so nothing .* do the same")
        with refused, warehouse.transaction(con):
            con.execute("delete from raw.starters")
            cut_all(place)


@on_postgres
def test_a_restart_of_postgresql_amid_a_load_costs_nothing_but_time(place: Lake):
    attempts = list[int]()

    def piece(con: Connection) -> None:
        with warehouse.transaction(con, "raw"):
            store_ids(con, ["i1", "i2"])
            attempts.append(len(attempts))
            if len(attempts) == 1:
                lakes.restart_server(seconds=2)

    list(warehouse.in_turns(place, [piece], writes=["raw"]))
    assert (len(attempts), count(place)) == (2, [2, 2])


@on_postgres
def test_what_reads_while_the_connections_are_cut_can_be_done_again(place: Lake):
    refused = pytest.raises(WarehouseConflictError, match=r"was cut, .* do the same again")
    with refused, warehouse.reading(place) as con, warehouse.rehearsal(con):
        for _ in range(2):
            con.execute("select count(*) from raw.starters").fetchall()
            cut_all(place)


@on_postgres
def test_a_load_that_is_cut_off_while_it_waits_for_its_turn_waits_again(place: Lake):
    cut = list[int]()

    def cut_who_waits() -> None:
        waiting = (
            "select count(pg_terminate_backend(pid)) from pg_locks where locktype = 'advisory'"
            f" and not granted and pid in (select pid from pg_stat_activity where datname"
            f" = '{name_of(place)}')"
        )
        while not sum(cut):
            cut.append(lakes.execute(waiting)[0][0])
            time.sleep(0.01)
        release.set()

    release = Event()
    with warehouse.connect(place, writes=["raw"]):
        cutter = Thread(target=cut_who_waits)
        cutter.start()
        loader = Thread(target=lambda: list(warehouse.in_turns(place, [load], writes=["raw"])))
        loader.start()
        release.wait()
    loader.join()
    cutter.join()
    assert (sum(cut), count(place)) == (1, [2, 2])


def load(con: Connection) -> None:
    with warehouse.transaction(con, "raw"):
        store_ids(con, ["i1", "i2"])


CUT_COMMITS = f"""
create sequence commits;
create function cut() returns trigger language plpgsql as $$
begin
    if nextval('commits') <= 2 then perform pg_terminate_backend(pg_backend_pid()); end if;
    return new;
end $$;
create trigger cut before insert on {lake.CATALOG}.ducklake_snapshot
    for each row execute function cut()
"""
"""Ends the sessions of the next two transactions of DuckLake at their commit."""


@on_postgres
def test_what_a_curation_computed_is_merged_though_its_connections_are_cut(
    place: Lake, tmp_path: Path
):
    fate = "insert into curated.fates values ('w', 'f', 'used', null)"
    recorded = list[str]()

    def record(con: Connection) -> None:
        con.execute("insert into raw.starters values ('e', '1', 'ann', now())")
        recorded.append("attempt")
        if len(recorded) == 1:
            cut_all(place)

    with working_copy.open_copy(place, "w", tmp_path / "tmp") as copy:
        copy.con.execute(fate)
        lakes.execute(CUT_COMMITS, name_of(place))
        copy.merge(record)
    assert lakes.execute("select last_value >= 3 from commits", name_of(place)) == [(True,)]
    assert count(place, "curated.fates", "feedback_id") == [1, 1]
    assert (count(place, "raw.starters", "flow_run_id"), len(recorded)) == ([1, 1], 2)


@on_postgres
def test_limits_of_an_administrator_on_sessions_and_statements_end_no_load(place: Lake):
    for limit in (
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "statement_timeout",
        "lock_timeout",
    ):
        lakes.execute(f"alter database {name_of(place)} set {limit} = '500ms'")
    attempts, began = list[int](), Event()

    def slow(con: Connection) -> None:
        with warehouse.transaction(con, "raw"):
            store_ids(con, ["i3"])
            attempts.append(len(attempts))
            began.set()
            time.sleep(1.5)

    loader = Thread(target=lambda: list(warehouse.in_turns(place, [slow], writes=["raw"])))
    loader.start()
    began.wait()
    with warehouse.connect(place, writes=["raw"]) as con:  # waits for longer than a statement may
        load(con)
    loader.join()
    assert (len(attempts), count(place)) == (1, [3, 3])


@on_postgres
def test_a_server_that_can_only_be_read_is_not_opened(place: Lake):
    """As a standby, to which an address of several hosts leads after a failover."""
    lakes.execute(f"alter database {name_of(place)} set default_transaction_read_only = on")
    refused = pytest.raises(WarehouseError, match=r"connecting to the lake .* read-only")
    with refused, warehouse.reading(place):
        pass


@on_postgres
def test_what_a_user_may_not_do_is_named(place: Lake):
    lakes.execute("create role reader login")
    for schema in (lake.CATALOG, "raw", "curated"):
        lakes.execute(f"grant usage on schema {schema} to reader", name_of(place))
        lakes.execute(f"grant select on all tables in schema {schema} to reader", name_of(place))
    reader = replace(place, url=place.url.replace("postgres@", "reader@"))
    for group in warehouse_port.GROUPS:
        refused = pytest.raises(
            WarehouseError, match=r"postgres://.*: permission denied for .*owns"
        )
        with refused, warehouse.connect(reader, writes=[group]) as con:
            write_nothing(con, group)


def write_nothing(con: Connection, group: warehouse_port.Group) -> None:
    with warehouse.transaction(con, group):
        pass


@on_postgres
def test_a_server_that_accepts_and_never_answers_is_named():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        unanswered = pytest.raises(
            WarehouseError, match=f"connecting to .*127.0.0.1:{port}.*timeout"
        )
        with unanswered, Lake(f"postgres://ann@127.0.0.1:{port}/db", "").session():
            pass


@on_postgres
def test_a_full_disk_is_named_and_nothing_half_done_is_kept(tmp_path: Path):
    asked = [
        f"{n} " + " ".join(random.Random(n).randbytes(9).hex() for _ in range(99))
        for n in range(99)
    ]
    lines = [logs.interaction(text, response_id=f"r{n}") for n, text in enumerate(asked)]
    log = logs.write(tmp_path / "log.jsonl", lines)
    with small_disk.mounted(tmp_path / "disk", "2m") as disk:
        place = Lake(lakes.database("on_a_full_disk"), str(disk / "lake"))
        with warehouse.connect(place):
            pass
        ballast = small_disk.fill(disk)
        full = pytest.raises(
            DiskFullError, match=r"postgres://.*: a disk is full.* \(.*No space left"
        )
        with full, warehouse.connect(place, writes=["raw"]) as con:
            logs.load(con, log, now=logs.NOW)
        ballast.unlink()
        assert not [file for file in disk.rglob("*.parquet") if "/gate/" not in str(file)]
        with warehouse.connect(place, writes=["raw"]) as con:
            assert logs.load(con, log, now=logs.NOW).new == len(lines)


@on_postgres
def test_a_lake_that_could_not_be_opened_once_can_be_later(place: Lake):
    """PostgreSQL refuses the second of the connections that opening needs, and then no more."""
    lakes.execute("create role opener login superuser")
    opener = replace(place, url=place.url.replace("postgres@", "opener@"))
    with warehouse.reading(opener):
        pass  # so that the first attempt does not take longer than the other ones
    lakes.execute("alter role opener nosuperuser connection limit 1")
    with (
        pytest.raises(WarehouseError, match="too many connections"),
        warehouse.connect(opener),
    ):
        pass
    lakes.execute("alter role opener superuser")
    with warehouse.reading(opener) as con:
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(0,)]


def open_when_told(place: Lake, ready: Barrier) -> None:
    ready.wait()
    with warehouse.reading(place) as con:
        con.execute("from raw.interactions").fetchall()


@on_postgres
def test_machines_that_open_a_new_lake_at_once_find_one(tmp_path: Path):
    place = Lake(lakes.database("opened_at_once"), str(tmp_path / "data"))
    ready = forking.PROCESSES.Barrier(4)
    machines = [forking.process(open_when_told, place, ready) for _ in range(4)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()
    assert [machine.exitcode for machine in machines] == [0] * 4
    assert lakes.execute("select n from raw.gate", name_of(place)) == [(0,)]


@on_postgres
def test_a_writer_of_the_book_whose_lock_was_cut_is_refused(place: Lake):
    errors = list[Exception]()

    def other() -> None:
        try:
            write()
        except WarehouseConflictError as error:
            errors.append(error)

    def write() -> None:
        with warehouse.connect(place) as con, warehouse.transaction(con):
            ((number,),) = con.execute("select count(*) from raw.starters").fetchall()
            if number == 0 and not second.ident:
                cut_sessions(place, least=1)
                second.start()  # waits for the gate's row, which this transaction has changed
                while not waits_for_gate(place):
                    time.sleep(0.01)
            con.execute(f"insert into raw.starters values ('e', '{number}', 'ann', now())")

    second = Thread(target=other)
    write()
    second.join()
    (error,) = errors
    assert "do the same again" in str(error)
    assert count(place, "raw.starters", "flow_run_id") == [1, 1]


def waits_for_gate(place: Lake) -> bool:
    waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname"
    return bool(lakes.execute(f"{waiting} = '{name_of(place)}'"))


@on_postgres
def test_a_transaction_that_nobody_else_writes_waits_for_its_turn(place: Lake):
    with warehouse.connect(place, writes=["raw"]):
        thread_errors = list[Exception]()

        def other() -> None:
            try:
                with warehouse.connect(place, 0.2, writes=["raw"]):
                    pass
            except WarehouseBusyError as error:
                thread_errors.append(error)

        second = Thread(target=other)
        second.start()
        second.join()
        (error,) = thread_errors
        assert f"flywheel {socket.gethostname()[:40]} {os.getpid()}" in str(error)
        with warehouse.connect(place, 0.2, writes=["book"]):  # of the same thread, another group
            pass


@on_postgres
def test_keys_hold_in_the_lake_and_in_the_book(place: Lake):
    loaded: dict[str, Any] = {
        "source": "s",
        "workload_id": "",
        "client_id": "",
        "path": "p",
        "rows": 1,
        "quarantined": 0,
        "loaded_at": logs.NOW,
        "size": None,
    }
    files = [{**loaded, "digest": "a"}, {**loaded, "digest": "a"}, {**loaded, "digest": "b"}]
    with warehouse.connect(place, writes=["raw", "book"]) as con:
        with warehouse.transaction(con, "raw"):
            assert warehouse.insert(con, "raw.files", files[:1]) == 1
            assert warehouse.insert(con, "raw.files", files) == 1
        start = {
            "evidence_digest": "e",
            "flow_run_id": "f",
            "started_by": "a",
            "started_at": logs.NOW,
        }
        with warehouse.transaction(con):
            assert warehouse.insert(con, "raw.starters", [start, start]) == 1
            assert warehouse.insert(con, "raw.starters", [start]) == 0


@on_postgres
def test_a_group_that_is_not_locked_can_not_be_written(place: Lake):
    with warehouse.connect(place, writes=["book"]) as con:
        refused = pytest.raises(WarehouseError, match="opened to write 'book'")
        with refused, warehouse.transaction(con, "raw"):
            pass
        refused = pytest.raises(duckdb.Error, match="single transaction can only write")
        with refused, warehouse.transaction(con):
            con.execute("delete from raw.archived where path = 'x'")


@on_postgres
def test_a_lake_whose_gate_lost_its_row_is_not_written(place: Lake):
    with warehouse.connect(place, writes=["raw"]) as con:
        con.execute("delete from lake.raw.gate")
        refused = pytest.raises(WarehouseError, match="gate has 0 rows")
        with refused, warehouse.transaction(con, "raw"):
            pass


@on_postgres
def test_a_lake_of_a_newer_release_is_refused(place: Lake):
    lakes.execute("insert into raw.migrations values (9999, 'x')", name_of(place))
    with (
        pytest.raises(WarehouseError, match="does not know: a newer release"),
        warehouse.connect(place),
    ):
        pass


@on_postgres
def test_a_lake_of_version_0_is_refused_and_stays_as_it_is(tmp_path: Path):
    place = Lake(lakes.database("of_version_0"), str(tmp_path / "rows"))
    lakes.execute(warehouses.VERSION_0, "of_version_0")
    with (
        pytest.raises(WarehouseError, match=r"version 0\.x.*a new database"),
        warehouse.connect(place),
    ):
        pass
    assert lakes.execute("select count(*) from raw.migrations", "of_version_0") == [(2,)]


@pytest.mark.parametrize(
    ("sql", "only_adds"),
    [
        ("-- Insert: no.\ncreate table raw.a (\n    b text check (b in ('as', 'is'))\n);", True),
        ("create or replace view marts.a as select 1", True),
        ("alter table raw.a add column b varchar", True),
        ("alter table raw.a add column b boolean default false", False),
        ("alter table raw.a rename column b to c", False),
        ("create table raw.a as select 1 as b", False),
        ("create table raw.a (b text); update raw.c set d = 1", False),
        ("drop table raw.a", False),
    ],
)
def test_a_migration_that_changes_rows_is_known_by_its_statements(sql: str, only_adds: bool):
    assert lake_schema.only_adds(sql) == only_adds


@on_postgres
def test_a_lake_of_an_older_release_gets_new_tables_but_no_migration_that_changes_rows(
    place: Lake,
):
    names = {9000: "9000_added.sql", 9001: "9001_moved.sql"}
    newer = replace(lake_schema.schema(), migrations=lake_schema.schema().migrations | names)
    refused = pytest.raises(WarehouseError, match=r"since when 9001_moved\.sql changed rows")
    with refused, lake_connection.opened(place, replace(newer, moving=frozenset({9001})), (), 10):
        pass
    with lake_connection.opened(place, newer, (), 10) as con:
        assert con.execute("from book.raw.migrations where number >= 9000").fetchall() == [
            *names.items()
        ]


@on_postgres
def test_a_lake_that_cannot_be_reached_is_named_without_its_password():
    place = Lake("postgres://ann:geheim@127.0.0.1:1/gone", "/nowhere")
    refused = pytest.raises(WarehouseError, match=r"postgres://127\.0\.0\.1:1/gone")
    with refused as caught, warehouse.connect(place):
        pass
    assert "geheim" not in f"{caught.value} {place!r}"


@on_postgres
def test_a_lake_whose_bucket_is_away_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = Lake(lakes.database("of_a_bucket"), "s3://rows/lake")
    log = logs.write(tmp_path / "log.jsonl", [logs.interaction("Hi", response_id="r")])
    with lakes.bucket("rows") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with warehouse.connect(place, writes=["raw"]) as con:
            logs.load(con, log, now=logs.NOW)
    away = pytest.raises(
        WarehouseError, match=r"files of the lake postgres://.* in s3://rows/lake: "
    )
    with away, warehouse.reading(place) as con:
        con.execute("from raw.interactions").fetchall()


@on_postgres
def test_rows_that_their_own_load_renames_have_row_ids_of_their_own(place: Lake, tmp_path: Path):
    alike = [logs.interaction(user_id=who) for who in ("ann", "bob", "cid")]
    later = [{**line, "timestamp": 1_760_000_050} for line in alike]
    with warehouse.connect(place, writes=["raw"]) as con:
        for number, written in enumerate((alike, later)):
            logs.load(con, logs.write(tmp_path / f"{number}.jsonl", written), now=logs.NOW)
        again = [*reversed(alike), *later, logs.interaction("Another?")]
        loaded = logs.load_input(
            con, Input(str(logs.write(tmp_path / "again.jsonl", again))), now=logs.NOW
        )
        ids = con.execute(
            "select count(*), count(distinct rowid), max(rowid) from raw.interactions"
        )
        rows, distinct, largest = ids.fetchall()[0]
    assert (loaded.new, loaded.known, rows, distinct) == (1, 6, 7, 7)
    assert largest < 10**6


@on_postgres
def test_upkeep_merges_files_and_deletes_old_ones_and_orphans_but_no_row(
    place: Lake, tmp_path: Path
):
    for number in range(4):
        path = logs.write(tmp_path / f"{number}.jsonl", lines(number))
        list(sources.load_inputs(place, [Input(str(path))], now=logs.NOW))
    with warehouse.connect(place, writes=["raw"]) as con, warehouse.transaction(con, "raw"):
        con.execute(
            "delete from raw.interactions where file_digest = (select max(digest) from raw.files)"
        )
    before = count(place)
    orphan = Path(place.data) / "raw/interactions/ducklake-orphan.parquet"
    shutil.copy(next(orphan.parent.glob("*.parquet")), orphan)
    files = len([*Path(place.data).rglob("*.parquet")])
    later = datetime.now(UTC) + timedelta(days=3)
    assert lake_purge.is_due(place, later)
    done = lake_purge.maintain(place, later, timedelta(0))
    assert done.forgotten > 0
    assert done.deleted > 0
    assert not orphan.exists()
    assert len([*Path(place.data).rglob("*.parquet")]) < files
    assert count(place) == before
    assert not lake_purge.is_due(place, later)
    with warehouse.connect(place, writes=warehouse_port.GROUPS) as con:
        for group in ("raw", "curated"):
            write_nothing(con, group)


@on_postgres
def test_upkeep_whose_lock_was_cut_keeps_nothing(place: Lake):
    with warehouse.connect(place, writes=lake_purge.GROUPS):
        place.require_locks(lake_purge.GROUPS)
        cut_sessions(place, least=1)
        with pytest.raises(WarehouseConflictError, match="was cut"):
            place.require_locks(lake_purge.GROUPS)


def lines(number: int) -> list[dict[str, Json]]:
    """Return a file's lines, half of which the next file has, too; small ones load together."""
    padding = "x" * (small_files.SMALL_BYTES // ROWS)
    return [
        logs.interaction(f"Question {n}?", response_id=f"r{n}", metadata={"padding": padding})
        for n in range(number * ROWS // 2, number * ROWS // 2 + ROWS)
    ]


def load_all(place: Lake, folder: Path) -> None:
    inputs = [Input(str(path)) for path in sorted(folder.glob("*.jsonl"))]
    list(sources.load_inputs(place, inputs, now=logs.NOW))


def sessions(place: Lake, which: str) -> list[int]:
    """Return the processes of ours that have sessions of a lake which are so."""
    rows = lakes.execute(
        "select distinct application_name from pg_stat_activity left join pg_locks using (pid)"
        f" where {which} and datname = '{name_of(place)}'"
    )
    return [int(name.split()[2]) for (name,) in rows if name.startswith("flywheel ")]


def states(place: Lake) -> int:
    ((number,),) = lakes.execute(
        f"select count(*) from {lake.CATALOG}.ducklake_snapshot", name_of(place)
    )
    return number


def cut_off(place: Lake, loaders: Sequence[BaseProcess]) -> int:
    """Stop a loader amid its load and end its lock's session, until another one has stored rows.

    Return how many sessions were ended: none if no loader had anything to store.
    """
    with place.session() as session:
        with session.transaction():
            session.execute("lock table raw.erased")  # a load reads it between its gate and commit
            while not (waiting := sessions(place, "wait_event = 'relation'")):
                if not any(loader.is_alive() for loader in loaders):
                    return 0
                time.sleep(0.01)
            os.kill(waiting[0], signal.SIGSTOP)
            cut = cut_sessions(place)
        try:
            before, others = states(place), [other for other in loaders if other.pid != waiting[0]]
            while states(place) == before and any(other.is_alive() for other in others):
                time.sleep(0.01)
        finally:
            os.kill(waiting[0], signal.SIGCONT)
    return cut


@on_postgres
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("files", ["in-a-folder", "in-a-bucket"])
def test_two_loaders_of_overlapping_files_killed_and_cut_off_store_each_row_once(
    files: str, tmp_path: Path
):
    if files == "in-a-folder":
        load_twice(lakes.new(tmp_path / "lake"), tmp_path)
        return
    with lakes.bucket("lake") as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        load_twice(Lake(lakes.database("in_bucket"), "s3://lake/prefix/lake"), tmp_path)


def load_twice(place: Lake, tmp_path: Path) -> None:
    """Load the same files by two processes, which are killed and lose their locks' sessions."""
    assert counted(place, tmp_path) == [[0, 0], [0, 0]]
    folder = tmp_path / "logs"
    folder.mkdir()
    for number in range(FILES):
        logs.write(folder / f"{number:02}.jsonl", lines(number))
    chance = random.Random(7)
    loaders = [forking.process(load_all, place, folder) for _ in range(2)]
    for loader in loaders:
        loader.start()
    kills = cuts = 0
    while kills < KILLS or cuts < CUTS:
        if cuts <= kills and cuts < CUTS:
            cuts += cut_off(place, loaders)
        time.sleep(chance.random() / 5)
        holders = sessions(place, "locktype = 'advisory' and granted")
        for number, loader in enumerate(loaders):
            if loader.pid in holders and kills < KILLS:
                loader.kill()
                loader.join()
                kills += 1
                loaders[number] = forking.process(load_all, place, folder)
                loaders[number].start()
        if not any(loader.is_alive() for loader in loaders):
            break
    for loader in loaders:
        loader.join()
        assert loader.exitcode == 0
    assert (kills, cuts >= CUTS) == (KILLS, True)
    expected = (FILES + 1) * ROWS // 2
    assert counted(place, tmp_path) == [[expected, expected], [FILES, FILES]]


def counted(place: Lake, folder: Path) -> list[list[int]]:
    """Count in a process of its own, as a process reads the settings of one bucket only."""
    process = forking.process(write_counts, place, folder / "counts.json")
    process.start()
    process.join()
    return json.loads((folder / "counts.json").read_text())


def write_counts(place: Lake, path: Path) -> None:
    path.write_text(json.dumps([count(place), count(place, "raw.files", "digest")]))
