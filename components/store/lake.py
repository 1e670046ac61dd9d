"""A warehouse that several machines share: DuckLake for telemetry, PostgreSQL for the book.

Telemetry and curated tables lie in Parquet files that a DuckLake catalog in PostgreSQL lists; what
people decided, and what must be unique, is in PostgreSQL's own tables. A connection resolves names
by its search path, so that the statements are those of the DuckDB file.
"""

import functools
import importlib
import importlib.util
import logging
import os
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import duckdb

from components.schema import Json
from components.store import archived_files
from components.store.lock import NOTICE_SECONDS, WarehouseBusyError

Connection: TypeAlias = duckdb.DuckDBPyConnection

Value: TypeAlias = "Json | bytes | datetime"

Group: TypeAlias = Literal["raw", "curated", "book"]
"""Tables that have one writer at a time: telemetry, what curation makes of it, and the book."""

GROUPS: tuple[Group, ...] = ("raw", "curated", "book")

EXTENSIONS = ("ducklake", "postgres_scanner")
EXTENSION_OF_S3 = "httpfs"
REGION = "us-east-1"  # where none is configured
CATALOG = "lake_catalog"  # PostgreSQL schema of DuckLake's own tables
BOOK = "book"  # the name under which PostgreSQL's own tables are attached

REMEDY = "install the package with its extra, pip install 'lora-flywheel[lake]'"

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

GATES = {"raw": "lake.raw.gate", "curated": "lake.curated.gate", "book": "book.raw.gate"}

SEARCH_PATH = ",".join(
    (
        "lake.raw,lake.curated,book.raw,book.curated",
        "memory.staging,memory.raw,memory.curated,memory.marts,memory.main",
    )
)

MOVED = 0
"""Number of the row of ``raw.migrations`` that says whose a lake's rows are, while they are copied
from a file or since they were copied into one. Flywheels from before this refuse it, too."""

WRITES = "flywheel_writes"
"""SQL variable of a connection to a lake: the groups that it may write; null for a file."""

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

KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
SERVER_KEEPALIVES = (
    "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)
"""Without these a machine that is gone would hold its locks for two hours."""


SCHEMA_SECONDS = 60.0  # how long a lake's first opening waits for another machine's

ENGINE_ERRORS = (duckdb.Error,)


class LakeError(RuntimeError):
    """The lake can't be opened, or can't do what was asked of it."""


class WarehouseConflictError(RuntimeError):
    """Another process wrote the same tables meanwhile; nothing of the transaction is kept.

    Or the connection was cut: nothing is kept unless that was amid the commit. Do the same again.
    """


@dataclass(frozen=True, slots=True)
class Lake:
    """A PostgreSQL database with the catalog and the book, and the folder of the Parquet files.

    ``data`` is a local folder or an ``s3://`` address. The text of a lake has no password.
    """

    url: str = field(repr=False)
    data: str

    def __str__(self) -> str:
        parts = self._parts()
        host, name = parts.get("host", "localhost"), parts.get("dbname", "")
        return f"the lake postgres://{host}:{parts.get('port', '5432')}/{name}"

    @property
    def is_remote(self) -> bool:
        """Whether the Parquet files are in an object store."""
        return self.data.startswith("s3://")

    @property
    def archive(self) -> str | None:
        """Where retention puts old rows, for all machines; ``None``: in their homes."""
        return f"{self.data.rpartition('/')[0]}/{archived_files.ROOT}" if self.is_remote else None

    def secret(self) -> str:
        """Return the options of a DuckDB secret for PostgreSQL."""
        renamed = {"dbname": "database"}
        return ", ".join(
            f"{renamed.get(key, key)} {quoted(text)}"
            for key, text in self._parts().items()
            if key in SECRET
        )

    def options(self) -> str:
        """Return the connection's other options, as libpq reads them."""
        others = {key: text for key, text in self._parts().items() if key not in SECRET}
        named = KEEPALIVES | others | {"application_name": application()}
        escaped = {k: t.replace("\\", "\\\\").replace("'", "\\'") for k, t in named.items()}
        return " ".join(f"{key}='{text}'" for key, text in escaped.items())

    def session(self) -> Any:  # noqa: ANN401 - psycopg is not installed everywhere
        """Open a PostgreSQL connection of psycopg that commits each statement."""
        options = f"{self._parts().get('options', '')} {SERVER_KEEPALIVES}".strip()
        named = KEEPALIVES | {"application_name": application(), "options": options}
        try:
            return _psycopg().connect(self.url, autocommit=True, **named)
        except _psycopg().OperationalError as error:
            raise LakeError(f"connecting to {self}: {error}") from error

    def _parts(self) -> dict[str, str]:
        try:
            return _psycopg().conninfo.conninfo_to_dict(self.url)
        except _psycopg().ProgrammingError:
            # The error's text has the address, which may have a password.
            raise LakeError("the lake's address can't be read; expected postgres://...") from None


SECRET = frozenset({"host", "port", "user", "password", "dbname"})


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


def distinct(table: str, records: Sequence[Mapping[str, Value]]) -> Sequence[Mapping[str, Value]]:
    """Return the records without those whose primary key an earlier one has."""
    if table not in KEYS:
        return records
    first: dict[tuple[object, ...], Mapping[str, Value]] = {}
    for record in records:
        first.setdefault(tuple(record[name] for name in KEYS[table]), record)
    return [*first.values()]


def unknown(table: str) -> str:
    """Return the join that leaves out rows whose primary key is in the table already."""
    return f" anti join {table} using ({', '.join(KEYS[table])})" if table in KEYS else ""


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def application() -> str:
    """Return the name under which PostgreSQL lists this process."""
    return f"flywheel {socket.gethostname()[:40]} {os.getpid()}"


def _psycopg() -> Any:  # noqa: ANN401 - as above
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise LakeError(f"FLYWHEEL_WAREHOUSE needs psycopg: {REMEDY}") from error


ADDITIONS = re.compile(
    r"create (or replace )?(view|schema) |create table (if not exists )?[\w.]+ \(|"
    r"alter table [\w.]+ add column (?!.* default )"
)


def only_adds(sql: str) -> bool:
    """Return whether a migration only adds tables, views, and columns that are null in old rows."""
    texts = [re.sub("--.*", "", each.query).lower() for each in duckdb.extract_statements(sql)]
    return all(ADDITIONS.match(" ".join(text.split())) for text in texts)


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


@contextmanager
def opened(
    lake: Lake,
    schema: Schema,
    writes: Sequence[Group],
    wait_seconds: float,
    *,
    moving: bool = False,
) -> Generator[Connection]:
    """Hold the locks of the groups to write, and open a connection to the lake.

    ``moving``: even if its rows are those of a file, since they are copied from or to it.

    Raises:
        LakeError: The lake can't be reached, an extension is missing, or its rows are a file's.
        WarehouseBusyError: Another process still held a lock after ``wait_seconds``.
    """
    with (
        _locked(lake, [group for group in GROUPS if group in writes], wait_seconds),
        _attached(lake) as base,
        closing(base.cursor()) as con,
    ):
        migrate(con, lake, schema, moving=moving)
        show(con, writes)
        for text in (*schema.scratch, *schema.views):
            con.execute(text)
        yield con


@dataclass(slots=True)
class _Instance:
    """DuckDB of this process for one lake, whose databases are attached while it has users."""

    con: Connection
    users: int = 0


_instances: dict[tuple[int, Lake], _Instance] = {}
_attaching = threading.Lock()


@contextmanager
def _attached(lake: Lake) -> Generator[Connection]:
    # Verifying the extensions takes half a second of a processor, so it is done once a process. A
    # forked process can't use its parent's DuckDB.
    key = (os.getpid(), lake)
    with _attaching:
        if key not in _instances:
            _instances[key] = _Instance(_instance(lake))
        instance = _instances[key]
        if instance.users == 0:
            _attach(instance.con, lake)
        instance.users += 1
    try:
        yield instance.con
    finally:
        with _attaching:
            instance.users -= 1
            if instance.users == 0:
                _detach(instance.con)


def show(con: Connection, writes: Sequence[Group] = ()) -> None:
    """Let a connection find the tables of the lake, the book and the scratch database."""
    con.execute(f"set variable {WRITES} = {quoted(','.join(writes))}")
    con.execute(f"set search_path = {quoted(SEARCH_PATH)}")


@contextmanager
def bulk(con: Connection) -> Generator[None]:
    """Let DuckDB use all processors for what reads or writes much of a lake.

    A file always does.
    """
    if not is_lake(con):
        yield
        return
    # On a second connection, because a failed transaction can't change settings.
    with closing(con.cursor()) as second:
        second.execute("reset threads")
        try:
            yield
        finally:
            second.execute("set threads = 1")


def is_lake(con: Connection) -> bool:
    """Return whether a connection is to a lake."""
    return _writable(con) is not None


def _writable(con: Connection) -> str | None:
    # By its full name, which the lake need not be asked for.
    ((groups,),) = con.execute(f"select system.main.getvariable('{WRITES}')").fetchall()
    return cast("str | None", groups)


def fence(con: Connection, writes: Sequence[Group]) -> None:
    """Make the open transaction conflict with any other that writes the same groups.

    A lock is not enough: PostgreSQL releases it when the session that holds it is cut. A file
    needs no fence.
    """
    writable = _writable(con)
    if writable is None:
        return
    for group in writes:
        if group not in writable.split(","):
            raise LakeError(f"writing {group}: this connection was opened to write {writable!r}")
        gate = f"update {GATES[group]} set n = n + 1"
        ((changed,),) = con.execute(gate).fetchall()
        if changed != 1:
            # Without its row two transactions would not conflict.
            raise LakeError(f"writing {group}: {GATES[group]} has {changed} rows; expected 1")


def empty_tables(con: Connection) -> frozenset[str]:
    """Return the lake's tables without rows as of the beginning of the transaction; none of a file.

    DuckLake asks PostgreSQL four times for each column of such a table that a statement names.
    """
    if not is_lake(con):
        return frozenset()
    rows = con.execute(
        "select table_name from ducklake_table_info('lake')"
        " group by table_name having sum(file_count) = 0"
    ).fetchall()
    names = {name for (name,) in rows}
    return frozenset(table for table in (*KEYS, *WITHOUT_KEY) if table.split(".")[1] in names)


def is_conflict(error: duckdb.Error) -> bool:
    """Return whether an error means that another transaction was faster."""
    text = str(error)
    return "onflict" in text or "could not serialize" in text or "deadlock detected" in text


CUT = re.compile(
    r"server closed the connection|terminating connection|no connection to the server"
    r"|could not (receive|send) data|SSL SYSCALL|SSL connection has been closed"
    r'|Failed to execute query "(ROLLBACK|COMMIT)"'
)


def is_cut(error: duckdb.Error) -> bool:
    """Return whether an error means that a connection to PostgreSQL was lost."""
    return bool(CUT.search(str(error)))


@functools.cache
def _extension(name: str) -> str:
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        return name  # installed by DuckDB itself
    folder = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}"
    return quoted(str(folder / f"{name}.duckdb_extension"))


def _instance(lake: Lake) -> Connection:
    # While another of DuckDB's threads waits for PostgreSQL, the caller's takes all of a processor
    # to look whether it is ready: half the time of a small load.
    con = duckdb.connect(config={"threads": 1})
    try:
        for name in (*EXTENSIONS, *([EXTENSION_OF_S3] if lake.is_remote else [])):
            con.execute(f"load {_extension(name)}")
    except duckdb.Error as error:
        raise LakeError(f"loading DuckDB's extensions for {lake}: {error}; {REMEDY}") from error
    con.execute("set enable_progress_bar = false")  # it writes between our lines
    con.execute("set temp_file_encryption = true")  # rows that a killed process spills stay unread
    con.execute(f"create secret book (type postgres, {lake.secret()})")
    for name in ("raw", "curated", "staging", "marts"):
        con.execute(f"create schema memory.{name}")
    return con


def _attach(con: Connection, lake: Lake) -> None:
    if lake.is_remote:
        con.execute(f"create or replace secret data (type s3, {_s3_options()})")
    else:
        Path(lake.data).mkdir(parents=True, exist_ok=True)
    try:
        _attach_databases(con, lake, "create_if_not_exists false")
    except duckdb.Error:
        # Most likely there is none yet; machines that create it at once would fail, all but one.
        with _locked(lake, ["schema"], SCHEMA_SECONDS):
            try:
                _attach_databases(con, lake, "create_if_not_exists true")
            except duckdb.Error as error:
                raise LakeError(f"opening {lake} with its files in {lake.data}: {error}") from error


def _attach_databases(con: Connection, lake: Lake, option: str) -> None:
    try:
        con.execute(f"attach {quoted(lake.options())} as book (type postgres, secret book)")
        con.execute(
            f"attach {quoted('ducklake:postgres:' + lake.options())} as lake"
            f" (meta_secret 'book', metadata_schema '{CATALOG}', data_inlining_row_limit 0,"
            f" data_path {quoted(lake.data)}, {option})"
        )
    except duckdb.Error:
        _detach(con)  # else no later attempt of this process would succeed
        raise


def _detach(con: Connection) -> None:
    for name in ("lake", BOOK):
        con.execute(f"detach database if exists {name}")


@functools.cache
def aws() -> tuple[Any, Any]:
    """Return botocore's session and client for S3; a process has the settings of one bucket."""
    session = cast("Any", importlib.import_module("botocore.session")).Session()
    return session, session.create_client("s3", session.get_config_variable("region") or REGION)


def _s3_options() -> str:
    session, client = aws()
    scheme, _, host = client.meta.endpoint_url.rpartition("://")
    named = {
        "region": client.meta.region_name,
        "endpoint": host,
        "url_style": "path",
        "use_ssl": str(scheme == "https").lower(),
    }
    credentials = session.get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        named |= {"key_id": frozen.access_key, "secret": frozen.secret_key}
        if frozen.token:
            named["session_token"] = frozen.token
    return ", ".join(f"{name} {quoted(text)}" for name, text in named.items())


def migrate(con: Connection, lake: Lake, schema: Schema, *, moving: bool) -> None:
    """Create what the lake lacks of the schema: tables and columns.

    Raises:
        LakeError: A newer Flywheel wrote the lake, or an older one and a migration since then does
            more than that; nothing is changed. Or its rows are a file's, unless ``moving``.
    """
    applied = _applied(con)
    if (moved := applied.pop(MOVED, None)) is not None and not moving:
        raise LakeError(
            f"{lake} is {moved}: finish with `flywheel migrate --to lake` there, or unset "
            "FLYWHEEL_WAREHOUSE to go on with that file"
        )
    if applied.keys() == schema.migrations.keys():
        return
    with _locked(lake, ["schema"], SCHEMA_SECONDS):
        applied = _applied(con).keys() - {MOVED}
        if unknown := applied - schema.migrations.keys():
            raise LakeError(
                f"{lake} has migrations {unknown} that this Flywheel does not know; upgrade it"
            )
        if applied and (missing := sorted(schema.moving - applied)):
            names = ", ".join(schema.migrations[number] for number in missing)
            raise LakeError(
                f"{lake} was written by an older Flywheel, since when {names} changed rows, which "
                "is done to a file only: run `flywheel migrate --to file` with that Flywheel, and "
                "`flywheel migrate --to lake` with this one, into a new database"
            )
        _create_in_lake(con, [table for table in schema.tables if table.is_in_lake])
        _create_book(lake, schema, applied)
        con.execute("call pg_clear_cache()")


def is_new(lake: Lake) -> bool:
    """Return whether nobody has opened a lake yet, so that its database has no tables."""
    with lake.session() as session:
        return session.execute("select to_regclass('raw.migrations')").fetchall() == [(None,)]


def moved(lake: Lake) -> str | None:
    """Return whose the rows of a lake that was opened before are; ``None``: its own."""
    with lake.session() as session:
        rows = session.execute(f"select name from raw.migrations where number = {MOVED}").fetchall()
    return rows[0][0] if rows else None


def set_moved(lake: Lake, text: str | None) -> None:
    """Say whose the rows of a lake are, which others can't open then; ``None``: its own."""
    with lake.session() as session, session.transaction():
        session.execute(f"delete from raw.migrations where number = {MOVED}")
        if text is not None:
            session.execute("insert into raw.migrations values (%s, %s)", (MOVED, text))


def _applied(con: Connection) -> dict[int, str]:
    known = con.execute(
        "select * from postgres_query('book', 'select to_regclass(''raw.migrations'')::text')"
    ).fetchall()
    if known == [(None,)]:
        return {}
    return dict(con.execute("select number, name from book.raw.migrations").fetchall())


def _create_in_lake(con: Connection, tables: Sequence[Table]) -> None:
    con.execute("begin transaction")
    try:
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
    except BaseException:
        con.execute("rollback")
        raise
    con.execute("commit")
    con.execute("call lake.set_option('parquet_compression', 'zstd')")


def _lake_column(column: Column) -> str:
    null = "" if column.is_nullable else " not null"
    return f'"{column.name}" {column.type}{null}'


def _create_book(lake: Lake, schema: Schema, applied: AbstractSet[int]) -> None:
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
        raise LakeError(f"{table.full_name}.{column.name}: PostgreSQL has no type {column.type}")
    null = "" if column.is_nullable else " not null"
    return f'"{column.name}" {name}{array}{null}'


_sessions = threading.local()


@contextmanager
def _locked(lake: Lake, names: Sequence[str], wait_seconds: float) -> Generator[None]:
    """Hold advisory locks; those that this thread holds already are not taken twice.

    Raise ``WarehouseBusyError`` if another process still held one after ``wait_seconds``.
    """
    held = _held()
    missing = [name for name in names if (lake.url, name) not in held]
    if not missing:
        yield
        return
    with closing(lake.session()) as session:
        until = time.monotonic() + wait_seconds
        for name in missing:
            _lock(lake, session, name, until)
        _sessions.held = held | {(lake.url, name): session for name in missing}
        try:
            yield
        finally:
            _sessions.held = held
            with suppress(_psycopg().Error):
                session.execute("select pg_advisory_unlock_all()")


def _held() -> dict[tuple[str, str], Any]:
    return getattr(_sessions, "held", {})


def require_locks(lake: Lake, groups: Sequence[Group]) -> None:
    """Check that this thread still holds the locks of the groups, for what can't change a gate.

    Raises:
        WarehouseConflictError: The session of a lock was cut; another process may write.
    """
    for group in groups:
        try:
            _held()[lake.url, group].execute("select 1")
        except _psycopg().Error as error:
            raise WarehouseConflictError(
                f"maintaining {lake}: the session that held the lock of {group} was cut, so "
                f"nothing of this is kept; do the same again ({error})"
            ) from error


def patiently(lake: Lake, session: Any, sql: str, wait_seconds: float) -> None:  # noqa: ANN401
    """Run a statement that nobody may use its table beside.

    Raises:
        WarehouseBusyError: Others still used the table after ``wait_seconds``.
    """
    # Whoever comes while it waits must wait, too, so it steps aside again and again.
    session.execute(f"set lock_timeout = '{round(NOTICE_SECONDS * 1000)}ms'")
    until = time.monotonic() + wait_seconds
    while True:
        try:
            session.execute(sql)
        except _psycopg().errors.LockNotAvailable as error:
            if time.monotonic() >= until:
                raise WarehouseBusyError(
                    f"{sql} in {lake}: others still use the table after {wait_seconds:g} s; end "
                    "them, or do the same again later"
                ) from error
        else:
            return


def alone(lake: Lake, doing: str, wait_seconds: float) -> AbstractContextManager[None]:
    """Let one process of all machines do something at a time.

    Raises:
        WarehouseBusyError: Another one still does it after ``wait_seconds``.
    """
    return _locked(lake, [doing], wait_seconds)


def _lock(lake: Lake, session: Any, name: str, until: float) -> None:  # noqa: ANN401 - as above
    key = f"flywheel {name}"
    is_logged = False
    while True:
        left = until - time.monotonic()
        seconds = left if is_logged else min(left, NOTICE_SECONDS)
        session.execute(f"set lock_timeout = '{max(1, round(seconds * 1000))}ms'")
        try:
            session.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (key,))
        except _psycopg().errors.LockNotAvailable as error:
            holder = _holder(session, key)
            if time.monotonic() >= until:
                raise WarehouseBusyError(
                    f"opening {lake} to write {name}: {holder} still holds its lock; end that "
                    "process, or wait for it"
                ) from error
            logging.getLogger(__name__).warning(
                "waiting for %s of %s, which %s holds", name, lake, holder
            )
            is_logged = True
        else:
            session.execute("reset lock_timeout")
            return


def _holder(session: Any, key: str) -> str:  # noqa: ANN401 - as above
    rows = session.execute(
        "select application_name, client_addr::text from pg_locks join pg_stat_activity using (pid)"
        " where locktype = 'advisory' and granted and objsubid = 1"
        " and (classid::bigint << 32) + objid::bigint = hashtextextended(%s, 0)",
        (key,),
    ).fetchall()
    return ", ".join(f"{name} at {address}" for name, address in rows) or "another process"
