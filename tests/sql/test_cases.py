"""Run every file of ``cases/``: rows in, the select, rows out; only the columns that matter."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest
import yaml

from components.extensions.machines import lake_schema
from components.store import warehouse, warehouse_port
from components.store.warehouse import Connection, Value
from tests.support import warehouses

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
HANDED_OVER = {
    "judgements": "interaction_id text, workload_id text, objection text, ties text[],"
    " cluster_id text, label text, side text, stratum text, draw_id text,"
    " tool_names text[], answer text, twin_id bigint, equal_id bigint, answer_name text, mark text,"
    " is_held boolean default false, flags struct(rule text, factor double, mark text)[],"
    " weight double, messages text, tools text, acceptable text, request_key text",
    "clusters": "interaction_id text, component_id text",
    "matched": "interaction_id text, place bigint, is_kept boolean",
    "surrogates": "interaction_id text, messages text, tools text, answer text, acceptable text,"
    " logged_answer text",
    "redacted": "kind text, distinct_values bigint, replacements bigint",
    "lines": "ordinal bigint, line bigint, content text, record text",
}


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_select_gives_the_rows_of_the_case(path: Path, empty: Path, tmp_path: Path):
    case = yaml.safe_load(path.read_text())
    values = case.get("values", {})
    if not warehouses.ON_LAKE:
        shutil.copyfile(empty, tmp_path / "warehouse.duckdb")
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        hand_over(con)
        if warehouses.ON_LAKE:
            stage(con)
            relax(con, case["given"])
        for table, rows in case["given"].items():
            warehouse.insert(con, table, complete(rows))
        found = [row.row for row in warehouse.read(con, case["model"], Found, **values)]
    wanted = cast("list[dict[str, Value]]", case["expect"])
    named = [{key: row[key] for key in wanted[0]} for row in found] if wanted else found
    assert sorted(named, key=str) == sorted(wanted, key=str)


class Found:
    """One row of whatever columns."""

    def __init__(self, **row: Value) -> None:
        self.row = row


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with the tables that curate and collect make on the way, all without a row."""
    path = tmp_path_factory.mktemp("empty") / "warehouse.duckdb"
    if warehouses.ON_LAKE:
        return path  # each case prepares the tables that it needs
    with warehouse.connect(path) as con:
        hand_over(con)
        stage(con)
        rows = con.execute("select distinct schema_name || '.' || table_name from duckdb_tables()")
        relax(con, [table for (table,) in rows.fetchall()])
    return path


def stage(con: Connection) -> None:
    """Make the tables of ``staging`` that curation makes on the way, empty."""
    warehouse.build(con, "staging/parsed", workload_id="")
    con.execute(
        "create or replace table staging.texts as select *, '' as filename from staging.parsed"
    )
    for model in ("interactions", "given", "feedback"):
        warehouse.build(con, f"staging/{model}", workload_id="", together=[], anonymous=[])
    for model in ("shared_names", "signals", "judged", "answers"):
        warehouse.build(con, f"staging/{model}", workload_id="")
    warehouse.build(con, "staging/redacted")
    warehouse.build(con, "staging/blamed", workload_id="")


def hand_over(con: Connection) -> None:
    """Make the tables that Python hands over, empty."""
    for name, columns in HANDED_OVER.items():
        con.execute(f"create temporary table {name} ({columns})")


def relax(con: Connection, tables: Iterable[str]) -> None:
    """Let a case leave out columns that do not matter to it, but for those of a primary key."""
    for table in tables:
        needed = con.execute(
            "select column_name from duckdb_columns() where not is_nullable"
            " and schema_name || '.' || table_name = $table and column_name not in"
            " (select unnest(constraint_column_names) from duckdb_constraints()"
            " where constraint_type = 'PRIMARY KEY' and schema_name || '.' || table_name = $table)",
            {"table": table},
        ).fetchall()
        for (column,) in needed:
            sql = f'alter table {table} alter column "{column}" drop not null'
            is_scratch = table.startswith("staging.")
            if (
                warehouse_port.shared(con) is not None
                and not is_scratch
                and not lake_schema.is_in_lake(table)
            ):
                with warehouses.lake_of(con).session() as session:
                    session.execute(sql)
                con.execute("call pg_clear_cache()")
            else:
                con.execute(sql)


def complete(rows: list[dict[str, Value]]) -> list[dict[str, Value]]:
    """Give every row the columns of all."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]
