import fcntl
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import pytest

from components.curate import parsed_rows
from components.erase import tables
from components.store import lock, warehouse
from components.store.warehouse import Connection
from tests.support import warehouse_holder, warehouses
from tests.support.warehouse_holder import held_elsewhere


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "warehouse.duckdb"


def test_second_process_waits_until_the_first_releases_the_file(path: Path):
    holder = held_elsewhere(path, 1.0)
    with warehouse.connect(path, wait_seconds=30) as con:
        assert warehouse.rows(con, "select 1 as one") == [{"one": 1}]
    holder.join()


def test_a_file_held_for_too_long_is_named_with_the_wait(path: Path):
    holder = held_elsewhere(path, 30)
    try:
        with (
            pytest.raises(lock.WarehouseBusyError, match=rf"{path}: .* after 0\.5 s"),
            warehouse.connect(path, wait_seconds=0.5),
        ):
            pass
    finally:
        holder.kill()
        holder.join()


@pytest.mark.slow
def test_a_process_waits_for_others_and_logs_which(
    path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
):
    holder = held_elsewhere(path, 600)
    clock = 0.0

    def sleep(seconds: float) -> None:
        """Let half an hour pass in a moment; then the holder ends."""
        nonlocal clock
        clock += 100 * seconds
        if clock >= 1800:
            holder.kill()
            holder.join()

    try:
        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", sleep)
            patch.setattr(time, "monotonic", lambda: clock)
            with warehouse.connect(path) as con:
                assert clock >= 1800
                assert warehouse.rows(con, "select 1 as one") == [{"one": 1}]
    finally:
        holder.kill()
    (said,) = logged
    assert f"waiting for {path}" in said
    assert f"PID {holder.pid}" in said


def test_a_file_that_is_not_a_database_fails_at_once(tmp_path: Path):
    path = tmp_path / "warehouse.duckdb"
    path.write_text("this is not a database, but it is longer than its header" * 100)
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB"), warehouse.connect(path):
        pass


@pytest.mark.slow
def test_a_new_file_is_complete_or_missing(tmp_path: Path):
    paths = [tmp_path / f"{number}.duckdb" for number in range(40)]
    whole = 12_288  # DuckDB's three headers
    seen: list[int] = []

    def look() -> None:
        for path in paths:
            while not path.exists():
                pass
            seen.append(path.stat().st_size)

    def prepare(con: Connection) -> None:
        con.execute("create table prepared (number integer)")

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    for path in paths:
        lock.open_file(path, wait_seconds=0, prepare=prepare).close()
    looking.join()
    assert min(seen) > whole  # and what was prepared
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_an_old_file_is_upgraded_in_place_and_keeps_its_rows(tmp_path: Path):
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    (migrations / "0001_first.sql").write_text("create table raw.notes (note text)")
    con = duckdb.connect(tmp_path / "old.duckdb")
    warehouse.migrate(con, migrations)
    con.execute("insert into raw.notes values ('kept')")
    (migrations / "0002_second.sql").write_text(
        "alter table raw.notes add column author text; update raw.notes set author = 'unknown'"
    )
    warehouse.migrate(con, migrations)
    warehouse.migrate(con, migrations)
    assert warehouse.rows(con, "from raw.notes") == [{"note": "kept", "author": "unknown"}]


def test_migrations_are_in_the_file_and_not_in_its_log(tmp_path: Path):
    """A kill leaves the log, and DuckDB 1.5 can't replay every migration from it."""
    (tmp_path / "0001_first.sql").write_text("create table raw.notes (note text)")
    path, copy = tmp_path / "old.duckdb", tmp_path / "copy.duckdb"
    with duckdb.connect(path) as con:
        warehouse.migrate(con, tmp_path)
        shutil.copy(path, copy)
    with duckdb.connect(copy) as con:
        assert warehouse.rows(con, "select name from raw.migrations") == [
            {"name": "0001_first.sql"}
        ]


def test_an_upgrade_that_fails_leaves_the_old_schema_and_the_rows(tmp_path: Path):
    (tmp_path / "0001_first.sql").write_text("create table raw.notes (note text)")
    con = duckdb.connect()
    warehouse.migrate(con, tmp_path)
    con.execute("insert into raw.notes values ('kept')")
    (tmp_path / "0002_bad.sql").write_text(
        "alter table raw.notes add column author text; select nonsense"
    )
    with pytest.raises(duckdb.BinderException):
        warehouse.migrate(con, tmp_path)
    assert warehouse.rows(con, "select number from raw.migrations") == [{"number": 1}]
    assert warehouse.rows(con, "from raw.notes") == [{"note": "kept"}]


UPGRADE = """
import sys
from pathlib import Path
import duckdb
from components.store import warehouse
con = duckdb.connect(sys.argv[1])
print("opened", flush=True)
warehouse.migrate(con, Path(sys.argv[2]))
"""


def test_an_upgrade_that_is_killed_leaves_the_old_schema_and_the_rows(tmp_path: Path):
    file = tmp_path / "old.duckdb"
    (tmp_path / "0001_first.sql").write_text("create table raw.notes (note text)")
    with duckdb.connect(file) as con:
        warehouse.migrate(con, tmp_path)
        con.execute("insert into raw.notes values ('kept')")
    (tmp_path / "0002_endless.sql").write_text(
        "alter table raw.notes add column author text; update raw.notes set author = 'unknown';"
        "create table raw.sums as select sum(a.range * b.range) from range(9999999) as a,"
        " range(9999999) as b"
    )
    command = [sys.executable, "-c", UPGRADE, str(file), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as upgrading:
        assert upgrading.stdout is not None
        upgrading.stdout.readline()
        time.sleep(0.5)  # so that it is amid the migration
        assert upgrading.poll() is None
        upgrading.kill()
    with duckdb.connect(file) as con:
        assert warehouse.rows(con, "select number from raw.migrations") == [{"number": 1}]
        assert warehouse.rows(con, "from raw.notes") == [{"note": "kept"}]


def test_a_file_from_a_newer_program_is_refused(path: Path):
    with warehouse.connect(path) as con:
        warehouse.insert(con, "raw.migrations", [{"number": 9999, "name": "9999_future.sql"}])
    with (
        pytest.raises(warehouse.WarehouseVersionError, match="9999"),
        warehouse.connect(path),
    ):
        pass


def test_a_file_of_version_0_is_refused_and_stays_as_it_is(path: Path):
    warehouses.create_of_version_0(path)
    before = path.read_bytes()
    with (
        pytest.raises(warehouse.WarehouseVersionError, match=r"version 0\.x.*FLYWHEEL_HOME"),
        warehouse.connect(path),
    ):
        pass
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_a_failing_block_leaves_nothing_behind(path: Path):
    with warehouse.connect(path) as con:
        with pytest.raises(ZeroDivisionError), warehouse.transaction(con):
            con.execute("create table raw.notes (note text)")
            raise ZeroDivisionError
        with pytest.raises(duckdb.CatalogException):
            con.execute("from raw.notes")


def test_an_error_is_the_one_that_is_raised_where_its_rollback_fails_too(path: Path):
    with (
        warehouse.connect(path) as con,
        pytest.raises(ZeroDivisionError),
        warehouse.rehearsal(con),
    ):
        con.execute("rollback")  # as an error of the engine can do
        raise ZeroDivisionError


def test_rows_with_an_existing_key_are_skipped(path: Path):
    row = {"approver": "ann", "counter": 1, "used_at": "2026-01-01 00:00:00+00"}
    with warehouse.connect(path) as con:
        assert warehouse.insert(con, "raw.approver_codes", [row]) == 1
        assert warehouse.insert(con, "raw.approver_codes", [row | {"counter": 2}]) == 0
        assert warehouse.insert(con, "raw.approver_codes", []) == 0
        assert warehouse.rows(con, "select counter from raw.approver_codes") == [{"counter": 1}]


def test_a_failed_check_names_the_rows(path: Path):
    with warehouse.connect(path) as con:
        parsed_rows.stage(con, "w", None)
        for model in ("staging/interactions", "staging/given"):
            warehouse.build(con, model, workload_id="w", together=[], anonymous=[])
        con.execute(
            "insert into raw.interactions by name select 'i' as interaction_id, 'w' as workload_id,"
            " now() as timestamp, 'c' as client_id, '{}' as payload, 'd' as file_digest, 1 as line"
        )
        with pytest.raises(
            warehouse.CheckFailedError, match=r"one_verdict\.sql found 1 rows: \('i'"
        ):
            warehouse.check(con, workload_id="w")


def test_a_rewritten_file_holds_every_row_and_no_byte_of_the_deleted_ones(path: Path):
    with warehouse.connect(path) as con:
        con.execute("set force_compression = 'uncompressed'")
        con.execute("create table raw.notes (number integer primary key, note text not null)")
        con.execute("insert into raw.notes select i, 'secret ' || i from range(5000) as n (i)")
        con.execute("checkpoint")
        con.execute("update raw.notes set note = 'plain'")
        before = warehouse.rows(con, "from duckdb_constraints() order by all")
    assert b"secret" in path.read_bytes()
    tables.rewrite_file(path)
    assert b"secret" not in path.read_bytes()
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    with warehouse.connect(path) as con:
        assert warehouse.rows(con, "select count(*) as n from raw.notes") == [{"n": 5000}]
        after = warehouse.rows(con, "from duckdb_constraints() order by all")
        named = ("table_name", "constraint_type", "constraint_text")
        assert [[row[n] for n in named] for row in after] == [
            [row[n] for n in named] for row in before
        ]


def test_a_file_on_another_disk_is_rewritten_there(path: Path):
    with warehouse.connect(path) as con:
        con.execute("create table raw.notes (note text)")
    before, link = path.stat().st_ino, path.with_name("link")
    link.symlink_to(path)
    tables.rewrite_file(link)
    assert link.readlink() == path
    assert path.stat().st_ino != before


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away wants root")
def test_a_rewritten_file_is_its_owners_whoever_rewrote_it(path: Path):
    with warehouse.connect(path):
        pass
    os.chown(path, 1234, 2345)
    path.chmod(0o660)
    tables.rewrite_file(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 2345, 0o660)


@pytest.mark.slow
def test_what_another_process_writes_while_the_file_is_rewritten_is_kept(path: Path):
    with warehouse.connect(path) as con:
        con.execute("create table raw.notes (note text)")
    held = warehouse.connect(path)
    with held:
        context = multiprocessing.get_context("spawn")
        writer = context.Process(target=note, args=(path,))
        writer.start()
        time.sleep(1.5)
    tables.rewrite_file(path)
    writer.join()
    tables.rewrite_file(path)
    with warehouse.connect(path) as con:
        assert warehouse.rows(con, "from raw.notes") == [{"note": "kept"}]


def note(path: Path) -> None:
    with warehouse.connect(path, wait_seconds=60) as con:
        con.execute("insert into raw.notes values ('kept')")


def test_closing_an_abandoned_stream_allows_the_rollback(path: Path):
    with warehouse.connect(path) as con:
        con.execute(
            "insert into raw.quarantine by name select range::varchar as quarantine_id, '' as path,"
            " '' as file_digest, 1 as line, '' as reason, ''::blob as content,"
            " now() as quarantined_at from range(99999)"
        )

        anything: warehouse.Row = {"beginning": "", "source_name": None, "quarantine_ids": None}

        def give_up() -> None:
            with closing(warehouse.read(con, "marts/quarantine", dict, **anything)) as rows:
                next(rows)
                raise LookupError("given up")

        with pytest.raises(LookupError, match="given up"), warehouse.transaction(con):
            give_up()
        assert con.execute("select 1").fetchall() == [(1,)]


def work_in_turns(path: Path, begun: "Synchronized[int]", is_over: Event) -> None:
    def piece(_: Connection) -> None:
        begun.value += 1
        time.sleep(0.1)

    pieces = iter(lambda: None if is_over.is_set() else piece, None)
    for _ in warehouse.in_turns(path, pieces, seconds=0):
        pass


@pytest.mark.slow
def test_waiting_processes_come_before_the_one_that_reopens_it(path: Path):
    context = multiprocessing.get_context("spawn")
    begun, is_over = context.Value("i", 0), context.Event()
    worker = context.Process(target=work_in_turns, args=(path, begun, is_over))
    worker.start()
    while not begun.value:
        time.sleep(0.01)
    for _ in range(10):
        before = begun.value
        with warehouse.connect(path):
            assert begun.value - before <= 2  # what was under way, and what began as we came
    is_over.set()
    worker.join()
    assert worker.exitcode == 0


def test_without_a_queue_file_the_file_is_opened_anyway(path: Path):
    path.with_name(path.name + lock.QUEUE).mkdir(parents=True)
    with warehouse.connect(path, wait_seconds=0) as con:
        assert warehouse.rows(con, "select 1 as one") == [{"one": 1}]


@pytest.mark.slow
def test_reopening_it_while_another_waits_is_possible(path: Path):
    context = multiprocessing.get_context("spawn")
    is_held = context.Event()
    with warehouse.connect(path):
        waiter = context.Process(target=warehouse_holder.hold, args=(path, is_held, 0.0))
        waiter.start()
        queue = path.with_name(path.name + lock.QUEUE)
        while not queue.exists() or not is_locked(queue):
            time.sleep(0.05)
        with warehouse.connect(path) as con:
            assert warehouse.rows(con, "select 1 as one") == [{"one": 1}]
    waiter.join()
    assert waiter.exitcode == 0


def is_locked(path: Path) -> bool:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
