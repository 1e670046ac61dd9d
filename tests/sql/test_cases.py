"""Run every file of ``cases/``: rows in, the select, rows out; only the columns that matter."""

import shutil
from pathlib import Path
from typing import cast

import pytest
import yaml

from components.store import warehouse
from components.store.warehouse import Connection, Value

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
HANDED_OVER = {
    "judgements": "interaction_id text, workload_id text, objection text, ties text[],"
    " cluster_id text, component_id text, label text, side text, stratum text, draw_id text,"
    " tool_names text[], answer text, twin_id text, equal_id text, answer_name text, mark text,"
    " is_held boolean default false, flags struct(rule text, factor double, mark text)[],"
    " weight double, messages text, tools text, acceptable text",
    "surrogates": "interaction_id text, messages text, tools text, answer text, acceptable text,"
    " logged_answer text",
    "redacted": "kind text, distinct_values bigint, replacements bigint",
    "lines": "ordinal bigint, line bigint, content text, record text",
}


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_select_gives_the_rows_of_the_case(path: Path, empty: Path, tmp_path: Path):
    case = yaml.safe_load(path.read_text())
    values = case.get("values", {})
    with warehouse.connect(shutil.copyfile(empty, tmp_path / "warehouse.duckdb")) as con:
        hand_over(con)
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
    with warehouse.connect(path) as con:
        for model in ("interactions", "given", "feedback", "answers"):
            warehouse.build(con, f"staging/{model}", workload_id="", together=[])
        for model in ("shared_names", "signals", "judged"):
            warehouse.build(con, f"staging/{model}", workload_id="")
        hand_over(con)
        warehouse.build(con, "staging/redacted")
        warehouse.build(con, "staging/blamed", workload_id="")
        for schema, table, column in con.execute(
            "select table_schema, table_name, column_name from information_schema.columns"
            " where is_nullable = 'NO' and table_catalog = current_catalog()"
        ).fetchall():
            relax(con, f"{schema}.{table}", column)
    return path


def hand_over(con: Connection) -> None:
    """Make the tables that Python hands over, empty."""
    for name, columns in HANDED_OVER.items():
        con.execute(f"create temporary table {name} ({columns})")


def relax(con: Connection, table: str, column: str) -> None:
    """Let a case leave out a column that does not matter to it."""
    constrained = con.execute(
        "select count(*) from duckdb_constraints() where constraint_type = 'PRIMARY KEY'"
        " and schema_name || '.' || table_name = $table and list_contains(constraint_column_names,"
        " $column)",
        {"table": table, "column": column},
    ).fetchall()[0][0]
    if not constrained:
        con.execute(f'alter table {table} alter column "{column}" drop not null')


def complete(rows: list[dict[str, Value]]) -> list[dict[str, Value]]:
    """Give every row the columns of all."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]
