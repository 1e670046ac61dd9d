"""The tables of a lake, which of them are in DuckLake and which in the book, and their creation.

They follow from the migrations of the DuckDB file; DuckLake has no keys and no checks.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeAlias

import duckdb

from components.extensions.machines.lake import LakeAddress
from components.store import warehouse
from components.store.warehouse_port import Connection, WarehouseError

Record: TypeAlias = Mapping[str, Any]

KEYS: dict[str, tuple[str, ...]] = {
    "curated.clients": ("workload_id", "client_id"),
    "curated.holdout_versions": ("workload_id", "version"),
    "curated.losses": ("workload_id", "rule"),
    "curated.sides": ("workload_id", "group_id"),
    "raw.fields": ("source", "field"),
    "raw.files": ("digest", "source", "workload_id", "client_id"),
    "raw.quarantine": ("quarantine_id",),
}
"""Primary keys of the tables in the lake, which DuckLake does not have."""

WITHOUT_KEY = frozenset(
    {
        "curated.bursts",
        "curated.conflicts",
        "curated.example_digests",
        "curated.examples",
        "curated.fates",
        "curated.holdout_rows",
        "curated.labels",
        "curated.preferences",
        "curated.redactions",
        "curated.shares",
        "curated.standings",
        "curated.surrogate_keys",
        "curated.token_counts",
        "curated.verdicts",
        "raw.archived",
        "raw.erasure_counts",
        "raw.feedback",
        "raw.interactions",
        "raw.loaded_parts",
    }
)
"""The other tables in the lake. Every table that is not in the lake is in the book."""

POSTGRES_TYPES = {
    "BIGINT": "bigint",
    "BLOB": "bytea",
    "BOOLEAN": "boolean",
    "DOUBLE": "double precision",
    "INTEGER": "integer",
    "JSON": "json",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "VARCHAR": "text",
}

OWNER_ROW = 0  # number of the row of ``raw.migrations`` that says that a lake is being filled
SCHEMA_SECONDS = 60.0  # how long a lake's first opening waits for another machine's

ADDITIONS = re.compile(
    r"create (or replace )?(view|schema) |create table (if not exists )?[\w.]+ \(|"
    r"alter table [\w.]+ add column (?!.* default )"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table as DuckDB describes it."""

    name: str
    type: str
    is_nullable: bool
    default: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the migrated schema with its keys, checks and first rows."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    constraints: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @property
    def full_name(self) -> str:
        """The table's name with its schema."""
        return f"{self.schema}.{self.name}"

    @property
    def is_in_lake(self) -> bool:
        """Whether the table is in DuckLake; else it is in the book."""
        return is_in_lake(self.full_name)


@dataclass(frozen=True, slots=True)
class Schema:
    """What the migrations make: tables, views and statements for the scratch database.

    ``moving`` are those of the migrations that do more than add tables and columns.
    """

    tables: tuple[Table, ...]
    views: tuple[str, ...]
    scratch: tuple[str, ...]
    migrations: dict[int, str]
    moving: frozenset[int]

    @property
    def keys_of_book(self) -> frozenset[str]:
        """The tables of the book that have a primary key."""
        return frozenset(
            table.full_name
            for table in self.tables
            if not table.is_in_lake and any("PRIMARY KEY" in text for text in table.constraints)
        )


def is_in_lake(table: str) -> bool:
    """Return whether a table is in DuckLake; else it is in the book."""
    return table in KEYS or table in WITHOUT_KEY


def insertable(table: str, records: Sequence[Record]) -> tuple[Sequence[Record], str, bool]:
    """Return records for a table, a join without those that it has, whether it ignores them."""
    if not is_in_lake(table):
        records = [
            {k: storable(v) if isinstance(v, str) else v for k, v in record.items()}
            for record in records
        ]
    join = f" anti join {table} using ({', '.join(KEYS[table])})" if table in KEYS else ""
    return _distinct(table, records), join, table in schema().keys_of_book


def storable(text: str) -> str:
    """Return a text as PostgreSQL stores it, which has no character 0."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _distinct(table: str, records: Sequence[Record]) -> Sequence[Record]:
    if table not in KEYS:
        return records
    first: dict[tuple[object, ...], Record] = {}
    for record in records:
        first.setdefault(tuple(record[name] for name in KEYS[table]), record)
    return [*first.values()]


def only_adds(sql: str) -> bool:
    """Return whether a migration only adds tables, views, and columns that are null in old rows."""
    texts = [re.sub("--.*", "", each.query).lower() for each in duckdb.extract_statements(sql)]
    return all(ADDITIONS.match(" ".join(text.split())) for text in texts)


@functools.cache
def schema() -> Schema:
    """Return the schema that the migrations make."""
    files = warehouse.sql_files(warehouse.sql_folder("migrations"))
    moving = [int(file.name[:4]) for file in files if not only_adds(file.read_text())]
    return schema_of(warehouse.prepare, frozenset(moving))


def schema_of(prepare: Callable[[Connection], None], moving: frozenset[int]) -> Schema:
    """Return the schema that ``prepare`` makes of an empty database; for ``moving`` see there."""
    with duckdb.connect() as con:
        prepare(con)
        listed = con.execute(
            "select schema_name, table_name, sql from duckdb_tables() where not internal"
            " and schema_name in ('raw', 'curated', 'staging') order by all"
        ).fetchall()
        views = con.execute(
            "select sql from duckdb_views() where not internal"
            " and schema_name in ('raw', 'curated', 'marts') order by view_oid"
        ).fetchall()
        numbers = con.execute("select number, name from raw.migrations").fetchall()
        tables = _read_tables(con)
    return Schema(
        tuple(table for table in tables if table.full_name != "raw.migrations"),
        tuple(
            text.replace("CREATE VIEW ", "CREATE VIEW IF NOT EXISTS memory.", 1)
            for (text,) in views
        ),
        tuple(
            text.replace("TABLE ", "TABLE IF NOT EXISTS ", 1)
            for s, _, text in listed
            if s == "staging"
        ),
        {int(number): str(name) for number, name in numbers},
        moving,
    )


def _read_tables(con: Connection) -> list[Table]:
    # Of all tables at once: DuckDB lists its whole catalog for each query of it.
    columns: dict[tuple[str, str], list[Column]] = defaultdict(list)
    for schema, name, *column in con.execute(
        "select schema_name, table_name, column_name, data_type, is_nullable, column_default"
        " from duckdb_columns() inner join duckdb_tables() using (schema_name, table_name)"
        " where schema_name in ('raw', 'curated') order by schema_name, table_name, column_index"
    ).fetchall():
        columns[schema, name].append(Column(*column))
    constraints: dict[tuple[str, str], list[str]] = defaultdict(list)
    for schema, name, text in con.execute(
        "select schema_name, table_name, constraint_text from duckdb_constraints()"
        " where constraint_type in ('PRIMARY KEY', 'CHECK')"
    ).fetchall():
        constraints[schema, name].append(text)
    return [
        Table(
            *name,
            tuple(columns[name]),
            tuple(constraints[name]),
            tuple(con.execute(f"select * from {'.'.join(name)}").fetchall()),
        )
        for name in columns
    ]


def migrate(con: Connection, lake: LakeAddress, schema: Schema, *, filling: bool) -> None:
    """Create what the lake lacks of the schema: tables and columns.

    Raises:
        WarehouseError: A newer Flywheel wrote the lake, or a version 0.x, or an older one and a
            migration since then does more than that; nothing is changed. Or a restore has not
            filled it yet, unless ``filling``.
    """
    applied = _applied(con)
    state = applied.pop(OWNER_ROW, None)
    if applied and min(applied) < min(schema.migrations):
        raise WarehouseError(
            f"{lake} {warehouse.TOO_OLD}, and FLYWHEEL_WAREHOUSE to a new database"
        )
    if state is not None and not filling:
        raise WarehouseError(
            f"{lake} is {state} by `flywheel restore`; if that was killed, drop the database and "
            "its files, and restore again into an empty home"
        )
    if applied.keys() == schema.migrations.keys():
        return
    with lake.alone("schema", SCHEMA_SECONDS):
        applied = _applied(con).keys() - {OWNER_ROW}
        if unknown := applied - schema.migrations.keys():
            raise WarehouseError(
                f"{lake} has migrations {unknown} that this Flywheel does not know: a newer "
                "release wrote it; install that release on this machine, too"
            )
        if applied and (missing := sorted(schema.moving - applied)):
            names = ", ".join(schema.migrations[number] for number in missing)
            raise WarehouseError(
                f"{lake} was written by an older Flywheel, since when {names} changed rows, which "
                "is done to a file only: run `flywheel backup` with that Flywheel, and `flywheel "
                "restore` with this one, into a new database"
            )
        _create_in_lake(con, [table for table in schema.tables if table.is_in_lake])
        _create_book(lake, schema, applied)
        con.execute("call pg_clear_cache()")


def _applied(con: Connection) -> dict[int, str]:
    known = con.execute(
        "select * from postgres_query('book', 'select to_regclass(''raw.migrations'')::text')"
    ).fetchall()
    if known == [(None,)]:
        return {}
    return dict(con.execute("select number, name from book.raw.migrations").fetchall())


def _create_in_lake(con: Connection, tables: Sequence[Table]) -> None:
    with warehouse.plain_transaction(con, by="commit"):
        for name in ("raw", "curated"):
            con.execute(f"create schema if not exists lake.{name}")
            gate = f"lake.{name}.gate"
            con.execute(f"create table if not exists {gate} (n bigint not null)")
            con.execute(f"insert into {gate} select 0 where not exists (from {gate})")
        for table in tables:
            columns = ", ".join(_lake_column(column) for column in table.columns)
            con.execute(f"create table if not exists lake.{table.full_name} ({columns})")
            known = {row[0] for row in con.execute(f"describe lake.{table.full_name}").fetchall()}
            for column in table.columns:
                if column.name not in known:
                    added = _lake_column(column)
                    con.execute(f"alter table lake.{table.full_name} add column {added}")
    con.execute("call lake.set_option('parquet_compression', 'zstd')")


def _lake_column(column: Column) -> str:
    null = "" if column.is_nullable else " not null"
    return f'"{column.name}" {column.type}{null}'


def _create_book(lake: LakeAddress, schema: Schema, applied: AbstractSet[int]) -> None:
    with lake.session() as session, session.transaction(), session.cursor() as cursor:
        cursor.execute("create schema if not exists raw")
        cursor.execute("create schema if not exists curated")
        cursor.execute("create table if not exists raw.gate (n bigint not null)")
        cursor.execute("insert into raw.gate select 0 where not exists (select from raw.gate)")
        cursor.execute(
            "create table if not exists raw.migrations (number integer primary key, name text)"
        )
        for table in schema.tables:
            if not table.is_in_lake:
                _create_in_book(cursor, table)
        for number in sorted(schema.migrations.keys() - applied):
            row = (number, schema.migrations[number])
            cursor.execute("insert into raw.migrations values (%s, %s)", row)


def _create_in_book(cursor: Any, table: Table) -> None:  # noqa: ANN401 - as above
    cursor.execute(
        "select column_name from information_schema.columns"
        " where table_schema = %s and table_name = %s",
        (table.schema, table.name),
    )
    known = {name for (name,) in cursor.fetchall()}
    columns = {column.name: _book_column(table, column) for column in table.columns}
    if known:
        for name in columns.keys() - known:
            cursor.execute(f"alter table {table.full_name} add column {columns[name]}")
        return
    parts = ", ".join((*columns.values(), *table.constraints))
    cursor.execute(f"create table {table.full_name} ({parts})")
    for row in table.rows:
        places = ", ".join(["%s"] * len(row))
        cursor.execute(f"insert into {table.full_name} values ({places})", row)


def _book_column(table: Table, column: Column) -> str:
    array = "[]" if column.type.endswith("[]") else ""
    name = POSTGRES_TYPES.get(column.type.removesuffix("[]"))
    if name is None:
        raise WarehouseError(
            f"{table.full_name}.{column.name}: PostgreSQL has no type {column.type}"
        )
    null = "" if column.is_nullable else " not null"
    return f'"{column.name}" {name}{array}{null}'
