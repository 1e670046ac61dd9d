"""Copy one table of a warehouse to another, and compare the copy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.store.lake_schema import Table
from components.store.warehouse import Connection


class MovedTablesError(RuntimeError):
    """The target holds other rows already, or a copy differs; the message names the table.

    Or a file of retention is gone.
    """


@dataclass(frozen=True, slots=True)
class MovedTable:
    """A table after the copy, and whether its rows were there before."""

    name: str
    rows: int
    was_there: bool


@dataclass(frozen=True, slots=True)
class _Content:
    """A table's rows and the sum of their hashes, which does not depend on their order."""

    rows: int
    hashes: int


def copy(
    con: Connection,
    table: Table,
    source: str,
    target: str,
    renamed: Mapping[str, str],
    *,
    may_change: bool,
) -> MovedTable:
    """Copy a table unless the target has its rows, and compare them.

    Args:
        con: A connection to both, within a transaction.
        table: The table.
        source: Its full name in the database that has the rows.
        target: Its full name in the other one.
        renamed: The SQL of columns whose values differ in the target.
        may_change: Whether rows of the target that differ are changed, rather than refused.

    Raises:
        MovedTablesError: The target has other rows, or the copy differs.
    """
    copied = [renamed.get(column.name, f'"{column.name}"') for column in table.columns]
    expected, before = _content(con, table, source, copied), _content(con, table, target)
    if before == expected:
        return MovedTable(table.full_name, expected.rows, was_there=True)
    is_initial = before.rows <= len(table.rows)  # what the migrations put there
    if not is_initial and not may_change:
        raise MovedTablesError(
            f"copying {table.full_name}: the target has {before.rows:,} rows that are not the "
            f"{expected.rows:,} of the source; expected a warehouse without data"
        )
    if is_initial or not table.is_in_lake:
        con.execute(f"delete from {target}")
        _insert(con, table, source, target, copied)
    else:
        _change(con, table, source, target, copied)
    after = _content(con, table, target)
    if after != expected:
        raise MovedTablesError(
            f"copying {table.full_name}: {after.rows:,} rows arrived with the digest "
            f"{after.hashes:x}, expected {expected.rows:,} with {expected.hashes:x}; nothing of "
            "this table was kept"
        )
    return MovedTable(table.full_name, expected.rows, was_there=False)


def _insert(
    con: Connection,
    table: Table,
    source: str,
    target: str,
    copied: Sequence[str],
    where: str = "true",
) -> None:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(copied)
    con.execute(f"insert into {target} ({names}) select {values} from {source} where {where}")


def _change(con: Connection, table: Table, source: str, target: str, copied: Sequence[str]) -> None:
    """Delete and insert only the rows that differ."""
    for listing, name, values in (("wanted", source, copied), ("had", target, None)):
        con.execute(
            f"create or replace temporary table {listing} as"
            f" select rowid as place, {_hash(table, values)} as digest from {name}"
        )
    # Rows may be equal, so it counts how many of them there are on each side.
    con.execute(
        "create or replace temporary table changed as select digest from ("
        "select digest, 1 as copies from wanted union all select digest, -1 as copies from had"
        ") group by digest having sum(copies) <> 0"
    )
    places = "rowid in (select place from {} semi join changed using (digest))"
    con.execute(f"delete from {target} where {places.format('had')}")
    _insert(con, table, source, target, copied, places.format("wanted"))
    for listing in ("wanted", "had", "changed"):
        con.execute(f"drop table {listing}")


def _content(
    con: Connection, table: Table, name: str, values: Sequence[str] | None = None
) -> _Content:
    ((rows, hashes),) = con.execute(
        f"select count(*), coalesce(sum({_hash(table, values)}::hugeint), 0) from {name}"
    ).fetchall()
    return _Content(int(rows), int(hashes))


def _hash(table: Table, values: Sequence[str] | None) -> str:
    """Return the SQL of a row's hash, of its columns or of other ``values`` in their order."""
    values = values or [f'"{column.name}"' for column in table.columns]
    typed = zip(values, table.columns, strict=True)
    texts = ", ".join(f"({value})::{column.type}::varchar" for value, column in typed)
    return f"hash([{texts}])"
