"""DuckDB's connections to a lake, and what marks their transactions and their errors.

A connection resolves names by its search path, so that the statements are those of the DuckDB file.
"""

import functools
import importlib
import importlib.util
import os
import re
import threading
import weakref
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import duckdb

from components.extensions.machines import lake_schema
from components.extensions.machines.lake import CATALOG, REMEDY, LakeAddress, quoted
from components.extensions.machines.lake_schema import KEYS, WITHOUT_KEY, Schema
from components.store import warehouse_port
from components.store.warehouse_port import (
    BOOK,
    GROUPS,
    Connection,
    Group,
    WarehouseConflictError,
    WarehouseError,
)

if TYPE_CHECKING:
    from components.extensions.machines.lake_warehouse import Lake

EXTENSIONS = ("ducklake", "postgres_scanner")
EXTENSION_OF_S3 = "httpfs"
REGION = "us-east-1"  # where none is configured
HTTP_SECONDS = 20  # a server may take for each of its answers
HTTP_RETRIES = 2

GATES = {"raw": "lake.raw.gate", "curated": "lake.curated.gate", "book": "book.raw.gate"}

SEARCH_PATH = ",".join(
    (
        "lake.raw,lake.curated,book.raw,book.curated",
        "memory.staging,memory.raw,memory.curated,memory.marts,memory.main",
    )
)

_writable: "weakref.WeakKeyDictionary[Connection, Sequence[Group]]" = weakref.WeakKeyDictionary()
"""The groups that each connection may write."""

CONFLICT = re.compile(r"Transaction conflict|write-write conflict|Conflict on ")
"""In errors of transactions: others may have such words of a table's name or of a row."""

CATALOG_CONFLICT = re.compile(
    r"ERROR:\s+(could not serialize access|deadlock detected)"  # PostgreSQL
    r"|Failed to commit DuckLake transaction\.\s+Exceeded the maximum retry count"
)

CUT = re.compile(
    r"Unable to connect to Postgres at|server closed the connection|terminating connection"
    r"|no connection to the server"
    r"|could not (receive|send) data|SSL SYSCALL|SSL connection has been closed"
    r'|Failed to execute query "(ROLLBACK|COMMIT)"'
)

REFUSAL = re.compile(
    r"ERROR:\s+((permission denied for|must be owner of|cannot execute .* in a read-only) .*)"
)

BUCKET_AWAY = re.compile(r"error for HTTP (GET|HEAD|POST|PUT|DELETE)|^HTTP Error: (?!.*\(HTTP 404)")
"""A file that is not there (404) may have been purged, or its lake is damaged."""


@contextmanager
def opened(
    lake: "Lake",
    schema: Schema,
    writes: Sequence[Group],
    wait_seconds: float,
    *,
    filling: bool = False,
) -> Generator[Connection]:
    """Hold the locks of the groups to write, and open a connection to the lake.

    ``filling``: even if its tables are not all there yet.

    Raises:
        WarehouseError: The lake can't be reached, an extension is missing, or it is being filled.
        WarehouseBusyError: Another process still held a lock after ``wait_seconds``.
    """
    with (
        lake.locked([group for group in GROUPS if group in writes], wait_seconds),
        _attached(lake) as base,
        closing(base.cursor()) as con,
    ):
        lake_schema.migrate(con, lake, schema, filling=filling)
        show(lake, con, writes)
        for text in (*schema.scratch, *schema.views):
            con.execute(text)
        yield con


@dataclass(slots=True)
class _Instance:
    """DuckDB of this process for one lake, whose databases are attached while it has users."""

    con: Connection
    users: int = 0


_instances: dict[tuple[int, LakeAddress], _Instance] = {}
_attaching = threading.Lock()


@contextmanager
def _attached(lake: LakeAddress) -> Generator[Connection]:
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


@functools.cache
def _extension(name: str) -> str:
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        return name  # installed by DuckDB itself
    folder = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}"
    return quoted(str(folder / f"{name}.duckdb_extension"))


def _instance(lake: LakeAddress) -> Connection:
    # While another of DuckDB's threads waits for PostgreSQL, the caller's takes all of a processor
    # to look whether it is ready: half the time of a small load.
    con = duckdb.connect(config={"threads": 1})
    try:
        for name in (*EXTENSIONS, *([EXTENSION_OF_S3] if lake.is_remote else [])):
            con.execute(f"load {_extension(name)}")
    except duckdb.Error as error:
        raise WarehouseError(
            f"loading DuckDB's extensions for {lake}: {error}; {REMEDY}"
        ) from error
    if lake.is_remote:  # 30 seconds and 3 retries by default: two minutes where nobody answers
        con.execute(f"set http_timeout = {HTTP_SECONDS}")
        con.execute(f"set http_retries = {HTTP_RETRIES}")
    con.execute("set enable_progress_bar = false")  # it writes between our lines
    con.execute("set temp_file_encryption = true")  # rows that a killed process spills stay unread
    con.execute(f"create secret book (type postgres, {lake.secret()})")
    for name in ("raw", "curated", "staging", "marts"):
        con.execute(f"create schema memory.{name}")
    return con


def _attach(con: Connection, lake: LakeAddress) -> None:
    if lake.is_remote:
        con.execute(f"create or replace secret data (type s3, {_s3_options()})")
    else:
        Path(lake.data).mkdir(parents=True, exist_ok=True)
    try:
        _attach_databases(con, lake, "create_if_not_exists false")
    except duckdb.Error:
        # Most likely there is none yet; machines that create it at once would fail, all but one.
        with lake.alone("schema", lake_schema.SCHEMA_SECONDS):
            try:
                _attach_databases(con, lake, "create_if_not_exists true")
            except duckdb.Error as error:
                raise WarehouseError(
                    f"opening {lake} with its files in {lake.data}: {error}"
                ) from error


def _attach_databases(con: Connection, lake: LakeAddress, option: str) -> None:
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


def show(lake: "Lake", con: Connection, writes: Sequence[Group] = ()) -> None:
    """Let a connection find the tables of the lake, the book and the scratch database."""
    warehouse_port.note(con, lake)
    _writable[con] = writes
    con.execute(f"set search_path = {quoted(SEARCH_PATH)}")


@contextmanager
def bulk(con: Connection) -> Generator[None]:
    """Let DuckDB use all processors for what reads or writes much."""
    # On a second connection, because a failed transaction can't change settings.
    with closing(con.cursor()) as second:
        second.execute("reset threads")
        try:
            yield
        finally:
            second.execute("set threads = 1")


def fence(con: Connection, writes: Sequence[Group]) -> None:
    """Make the open transaction conflict with any other that writes the same groups.

    A lock is not enough: PostgreSQL releases it when the session that holds it is cut.
    """
    writable = _writable[con]
    for group in writes:
        if group not in writable:
            opened_for = ",".join(writable)
            raise WarehouseError(
                f"writing {group}: this connection was opened to write {opened_for!r}"
            )
        gate = f"update {GATES[group]} set n = n + 1"
        ((changed,),) = con.execute(gate).fetchall()
        if changed != 1:
            # Without its row two transactions would not conflict.
            raise WarehouseError(f"writing {group}: {GATES[group]} has {changed} rows; expected 1")


def empty_tables(con: Connection) -> frozenset[str]:
    """Return the lake's tables without rows as of the beginning of the transaction.

    DuckLake asks PostgreSQL four times for each column of such a table that a statement names.
    """
    rows = con.execute(
        "select table_name from ducklake_table_info('lake')"
        " group by table_name having sum(file_count) = 0"
    ).fetchall()
    names = {name for (name,) in rows}
    return frozenset(table for table in (*KEYS, *WITHOUT_KEY) if table.split(".")[1] in names)


def is_conflict(error: duckdb.Error) -> bool:
    """Return whether an error means that another transaction was faster."""
    is_engines = isinstance(error, duckdb.TransactionException) and CONFLICT.search(str(error))
    return bool(is_engines or CATALOG_CONFLICT.search(str(error)))


def explained(lake: LakeAddress, error: duckdb.Error) -> Exception | None:
    """Return what an error means; ``None`` if it is about something else.

    A conflict if the same may succeed at once, a refusal of PostgreSQL's, or a bucket that is away.
    """
    if CUT.search(str(error)):
        return WarehouseConflictError(
            "using the lake: its connection to PostgreSQL was cut, so nothing of this is kept "
            f"unless it was cut amid the commit; do the same again ({error})"
        )
    if is_conflict(error):
        return WarehouseConflictError(
            "writing the lake: another process wrote the same tables meanwhile, so nothing of "
            f"this is kept; do the same again ({error})"
        )
    if refusal := REFUSAL.search(str(error)):
        return WarehouseError(
            f"using {lake}: {refusal[1]}; expected a user that owns the database, on a server that "
            "can be written"
        )
    # Rows' texts are in errors of other classes.
    if isinstance(error, duckdb.IOException) and BUCKET_AWAY.search(str(error)):
        return WarehouseError(
            f"reading or writing the files of {lake} in {lake.data}: "
            f"{str(error).splitlines()[0]}; nothing of this is kept, so do the same again once the "
            "bucket answers, with the AWS_* variables that let this machine in"
        )
    return None
