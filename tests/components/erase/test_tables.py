"""Rows are found in tables of any name, whatever type their columns have."""

from pathlib import Path

import pytest

from components.erase import tables
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import warehouses

ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("type_", "value", "holds"),
    [
        pytest.param("varchar", f"'{ID}'", True, id="text"),
        pytest.param("varchar", f"'of {ID}, surely'", True, id="within-text"),
        pytest.param("varchar[]", f"['x', '{ID}']", True, id="list"),
        pytest.param(
            "struct(a varchar, b integer)[]", f"[{{'a': '{ID}', 'b': 1}}]", True, id="deep"
        ),
        pytest.param("json", f"""'{{"id": "{ID}"}}'""", True, id="json"),
        pytest.param("varchar", "'ann'", True, id="whole-value"),
        pytest.param("varchar[]", "['bob', 'ann']", True, id="element"),
        pytest.param("varchar", "'ann said so'", False, id="a-word-within"),
        pytest.param("varchar", f"'f{ID}'", False, id="part-of-another-id"),
        pytest.param("varchar", "null", False, id="null"),
    ],
)
def test_rows_that_hold_a_name_are_deleted(
    tmp_path: Path, type_: str, value: str, holds: bool
) -> None:
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        con.execute(f'create table staging."odd name" (n integer, "it" {type_}, seen timestamptz)')
        con.execute(f'insert into staging."odd name" values (1, {value}, now()), (2, null, null)')
        table = named(con, "staging.odd name")
        assert [column.name for column in table.texts] == ["it"]
        with warehouse.present(con, "names", {"name": [ID, "ann"]}):
            assert tables.delete_naming(con, table, "names", {}) == int(holds)
        left = [row for (row,) in con.execute('select n from staging."odd name"').fetchall()]
        assert left == ([2] if holds else [1, 2])


def test_numbers_and_times_are_not_text(tmp_path: Path) -> None:
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        con.execute(
            "create table staging.t (a integer, b double[], c timestamptz, d decimal(4, 2), e uuid,"
            " f blob, g map(varchar, integer), h enum('x', 'y'))"
        )
        names = [column.name for column in named(con, "staging.t").texts]
        assert names == ["f", "g", "h"]


def named(con: Connection, name: str) -> tables.WarehouseTable:
    return next(table for table in tables.tables(con) if table.full_name == name)
