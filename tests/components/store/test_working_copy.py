"""What a copy merges back: its rows, however many are equal, and nobody else's are touched."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate import curate_workload
from components.curate.settings import Rules
from components.store import warehouse, working_copy
from components.store.warehouse import Connection
from components.store.working_copy import StaleCopyError
from tests.support import logs, warehouses
from tests.support.cases import cases

FATES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["used", "unused"])), max_size=6)

VERSION = """
    insert into curated.holdout_versions by name
    select 'weather' as workload_id, 'd' as digest, 1 as version, now() as frozen_at,
        1 as requests, 1 as added_requests
"""


def write(con: Connection, workload: str, fates: Sequence[tuple[str, str]]) -> None:
    for feedback_id, fate in fates:
        values = [workload, feedback_id, fate, None if feedback_id == "a" else fate]
        con.execute("insert into curated.fates values (?, ?, ?, ?)", values)


def read(con: Connection, workload: str) -> Counter[tuple[str, str]]:
    sql = "select feedback_id, fate from curated.fates where workload_id = $workload"
    return Counter(con.execute(sql, {"workload": workload}).fetchall())


@cases(16)
@given(before=FATES, after=FATES, others=FATES)
def test_the_warehouse_has_the_copys_rows_and_all_of_other_workloads(
    before: list[tuple[str, str]], after: list[tuple[str, str]], others: list[tuple[str, str]]
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "warehouse.duckdb"
        with warehouses.connect(path) as con:
            write(con, "weather", before)
            write(con, "other", others)
        with working_copy.open_copy(
            warehouses.location(path), "weather", Path(folder) / "tmp"
        ) as copy:
            write(copy.con, "weather", after)
            copy.merge()
        with warehouses.connect(path) as con:
            assert read(con, "weather") == Counter(after)
            assert read(con, "other") == Counter(others)


def test_rows_that_did_not_change_are_not_written_again(tmp_path: Path) -> None:
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    kept = [("b", "used"), ("c", "unused")]
    places = "select rowid from curated.fates where feedback_id <> 'a'"
    with warehouses.connect(path) as con:
        write(con, "weather", [*kept, ("a", "used")])
        before = con.execute(places).fetchall()
    with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
        write(copy.con, "weather", [("a", "unused"), *reversed(kept)])
        copy.merge()
    with warehouses.connect(path) as con:
        assert con.execute(places).fetchall() == before
        assert read(con, "weather") == Counter([*kept, ("a", "unused")])


VERDICT = """
    insert into curated.verdicts by name
    select $id as interaction_id, 'weather' as workload_id, $objection as objection,
        $time::timestamptz as judged_at
"""


def test_a_verdict_that_did_not_change_is_not_written_again_for_its_time(tmp_path: Path) -> None:
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    first, second = logs.NOW, logs.NOW + timedelta(days=1)
    for time, objection in ((first, None), (second, "refusal")):
        with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
            for name, raised in (("a", None), ("b", objection)):
                copy.con.execute(VERDICT, {"id": name, "objection": raised, "time": time})
            copy.merge()
    with warehouses.connect(path) as con:
        verdicts = con.execute("select interaction_id, judged_at from curated.verdicts").fetchall()
    assert sorted(verdicts) == [("a", first), ("b", second)]


STANDING = """
    insert into curated.standings by name
    select $id as interaction_id, 'weather' as workload_id, 'conversation' as split_by,
        [$id] as ties, '' as label, $side as side, $stratum as stratum, $stratum as draw_id
"""


def test_a_standing_that_was_settled_since_is_not_written_again(tmp_path: Path) -> None:
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    for side, stratum in (("holdout", "s"), ("train", None)):
        with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
            for name, on in (("a", "train"), ("b", side)):
                copy.con.execute(STANDING, {"id": name, "side": on, "stratum": stratum})
            copy.merge()
    with warehouses.connect(path) as con:
        standings = con.execute("select ties[1], side, stratum from curated.standings").fetchall()
    assert sorted(standings) == [("a", "train", "s"), ("b", "train", None)]


EXAMPLE = """
    insert into curated.examples by name
    select $id as example_id, 'weather' as workload_id, 'app' as client_id,
        '2026-01-01'::timestamptz as logged_at, 'conversation' as split_by, $id as group_id,
        'train' as side, [] as tool_names, $text as messages, '[]' as tools, '' as answer,
        1 as weight, [] as interaction_ids, [] as feedback_ids, $digest as content_digest
"""


def test_an_example_is_written_again_for_another_text_and_left_for_the_same(tmp_path: Path) -> None:
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    earlier = [
        ("same", "a", "1"),
        ("changed", "a", "1"),
        ("replayed", "a", None),
        ("old", "a", None),
    ]
    later = [("same", "a", "1"), ("changed", "b", "2"), ("replayed", "b", None), ("old", "a", "1")]
    places = []
    for examples in (earlier, later):
        with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
            for name, text, digest in examples:
                copy.con.execute(EXAMPLE, {"id": name, "text": text, "digest": digest})
            copy.merge()
        with warehouses.connect(path) as con:
            columns = "example_id, messages, content_digest"
            rows = con.execute(f"select {columns} from curated.examples").fetchall()
            place = "select rowid from curated.examples where example_id = 'same'"
            places += con.execute(place).fetchall()
        assert sorted(rows) == sorted(examples)
    assert places[0] == places[1]


def test_a_copy_has_the_files_of_its_rows_so_that_the_future_outranks_nothing(
    tmp_path: Path,
) -> None:
    later = logs.NOW + timedelta(minutes=10)
    tomorrow = logs.interaction(
        message=logs.say("tomorrow"), timestamp=logs.NOW.timestamp() + 40_000
    )
    newest = logs.interaction(
        message=logs.say("newest"), response_id="r2", timestamp=logs.NOW.timestamp() + 60
    )
    other = logs.interaction(response_id="r3", workload_id="other")
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    with warehouses.connect(path) as con:
        for name, line, now in (("a", tomorrow, logs.NOW), ("b", newest, later)):
            logs.load(con, logs.write(tmp_path / f"{name}.jsonl", [line]), now=now)
        logs.load(con, logs.write(tmp_path / "c.jsonl", [other]), now=later)
    with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
        names = [
            Path(place).name
            for (place,) in copy.con.execute("select path from raw.files").fetchall()
        ]
        assert sorted(names) == ["a.jsonl", "b.jsonl"]
        curate_workload.curate(copy.con, "weather", Rules(), now=later)
        answers = copy.con.execute("select answer ->> 'text' from curated.examples").fetchall()
        assert answers == [("newest",)]


def test_a_frozen_copy_compares_only_what_freezing_changes(tmp_path: Path) -> None:
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    with warehouses.connect(path):
        pass
    with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
        write(copy.con, "weather", [("a", "used")])
        copy.merge()
        copy.con.execute(VERSION)
        with warehouses.connect(path) as con:
            write(con, "weather", [("b", "unused")])
        copy.merge_settled()
    with warehouses.connect(path) as con:
        assert read(con, "weather") == Counter([("a", "used"), ("b", "unused")])
        (versions,) = con.execute("select version from curated.holdout_versions").fetchall()
        assert versions == (1,)


DIGESTS = "insert into curated.example_digests values ('weather', 'content', 'measured')"


def test_an_erasure_elsewhere_does_not_end_the_merge_and_only_a_freeze_keeps_digests(
    tmp_path: Path,
):
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    kept: list[int] = []
    with warehouses.connect(path) as con:
        con.execute(DIGESTS)
    with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
        with warehouses.connect(path) as con:
            con.execute("delete from curated.example_digests")  # as an erasure does
        for merge in (copy.merge, copy.merge_settled):
            merge()
            with warehouses.connect(path) as con:
                kept.append(len(con.execute("from curated.example_digests").fetchall()))
    assert kept == [0, 1]


def test_sides_that_another_process_settled_end_the_merge(tmp_path: Path) -> None:
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    with warehouses.connect(path):
        pass
    with working_copy.open_copy(path, "weather", tmp_path / "tmp") as copy:
        copy.merge()
        with warehouses.connect(path) as con:
            con.execute(VERSION)
        with pytest.raises(StaleCopyError, match="another process"):
            copy.merge_settled()


def test_a_copy_leaves_the_memory_of_the_machine_to_others(tmp_path: Path):
    with working_copy.open_copy(tmp_path / "warehouse.duckdb", "w", tmp_path / "tmp") as copy:
        settings = "select current_setting('memory_limit'), current_setting('temp_directory')"
        warehouse.allow_rows(copy.con, 400_000)
        ((memory, folder),) = copy.con.execute(settings).fetchall()
    assert memory == "953.6 MiB"
    assert Path(folder).is_relative_to(tmp_path / "tmp")


def test_a_large_copy_may_use_what_cannot_leave_the_memory(tmp_path: Path):
    with warehouse.in_memory(tmp_path) as con:
        warehouse.allow_rows(con, 1_000_000)
        for _ in range(3):
            with warehouse.spilled(con):
                pass
        assert con.execute("select current_setting('memory_limit')").fetchall() == [("1.8 GiB",)]


def test_a_copy_larger_than_the_memory_gets_what_the_machine_has(tmp_path: Path):
    limit = "select current_setting('memory_limit')"
    with duckdb.connect() as con:
        most = con.execute(limit).fetchall()
    with warehouse.in_memory(tmp_path) as con:
        warehouse.allow_rows(con, 10**12)
        assert con.execute(limit).fetchall() == most


def memory(con: Connection) -> tuple[int, str]:
    """Return the bytes that DuckDB holds, and its limit."""
    held, limit = con.execute(
        "select sum(memory_usage_bytes), current_setting('memory_limit') from duckdb_memory()"
    ).fetchall()[0]
    return int(held), limit


@pytest.mark.slow
def test_a_copy_makes_room_while_others_compute_and_loses_no_row(tmp_path: Path):
    with warehouse.in_memory(tmp_path) as con, warehouse.transaction(con):
        con.execute("create table kept as select n, md5(n::text) as text from range(2000000) r(n)")
        before, limit = memory(con)
        keep = before // 2
        with warehouse.spilled(con, keep):
            assert memory(con)[0] <= keep
        assert memory(con)[1] == limit
        ((rows, texts),) = con.execute("select count(*), count(distinct text) from kept").fetchall()
    assert (rows, texts) == (2_000_000, 2_000_000)


def test_what_can_not_be_moved_ends_no_transaction(tmp_path: Path):
    with warehouse.in_memory(tmp_path) as con, warehouse.transaction(con):
        con.execute("create table kept as select n from range(1000000) r(n)")
        for _ in range(2):
            with warehouse.spilled(con, 1):
                pass
        assert con.execute("select count(*) from kept").fetchall() == [(1_000_000,)]
