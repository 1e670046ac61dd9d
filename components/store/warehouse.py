"""Open the DuckDB file, keep its schema up to date, and run the statements of ``sql/``."""

import errno
import functools
import importlib.resources
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import datetime
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast

import duckdb

from components.schema import Json
from components.store import file_locks, lock, warehouse_port
from components.store.arrow import CHUNK_ROWS, ArrowBatch, ArrowTable, ShownTable, rows_of
from components.store.warehouse_port import (
    Connection,
    Group,
    SharedWarehouse,
    WarehouseConflictError,
    WarehouseError,
)


def sql_folder(folder: str) -> Traversable:
    """Return a folder of ``sql/`` as it is installed."""
    return importlib.resources.files("sql") / folder


def sql_files(folder: Traversable) -> list[Traversable]:
    """Return a folder's SQL files, sorted by name."""
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(files, key=lambda file: file.name)


def model_table(model: str) -> str:
    """Return the table that a model fills: ``staging.interactions`` of ``staging/interactions``."""
    return model.replace("/", ".")


@functools.cache
def model_select(model: str) -> str:
    """Return the text of the select at a path under ``sql/`` without its suffix."""
    return (importlib.resources.files("sql") / f"{model}.sql").read_text()


Location: TypeAlias = Path | SharedWarehouse
"""Where a warehouse is: its DuckDB file, or one that several machines share."""

Value: TypeAlias = "Json | bytes | datetime"
Row: TypeAlias = "dict[str, Value]"

Record = TypeVar("Record")
Result = TypeVar("Result")

COLLECTING = "1GB"
"""DuckDB's memory while it loads: Python and Arrow need the rest of a process of 2 GB."""

CURATING_BYTES = 10**9
"""DuckDB's memory of a copy in memory; the rest of its rows is in its scratch folder."""

CURATING_ROW_BYTES = 2_000
"""DuckDB's memory for each row of a copy, where that is more: joins and windows can't move all that
they hold to the scratch folder. The verdicts of 500,000 rows fail with 0.5 GB, not with 1 GB."""

RESTING_BYTES = 1 << 28
"""DuckDB's memory of a copy while others need the memory."""

BYTES = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
"""Of DuckDB's units."""

TURN_SECONDS = 0.5  # work in pieces releases the warehouse after this long, before the next piece

MAX_CONFLICTS = 20
"""Attempts at a piece of work. A piece conflicts only after the session of its lock was cut."""

NO_ROOM = os.strerror(errno.ENOSPC)  # the system's message, which DuckDB's errors quote

MAX_STATEMENTS = 500
"""Parsed statements that a process keeps: those that name a file are many."""

TOO_OLD = (
    "was made by a version 0.x of Flywheel, and this one opens none of those; go on with the "
    "release that made it, or collect the same logs again in a new home: set FLYWHEEL_HOME to a "
    "new folder"
)

ROWS_SHOWN = 5
BATCH_ROWS = 4096


class WarehouseVersionError(RuntimeError):
    """The file was written by a newer Flywheel than this one, or by a version 0.x."""


class DiskFullError(OSError):
    """The disk is full; nothing of the transaction is kept."""


class CheckFailedError(ValueError):
    """A check of ``sql/checks`` found forbidden rows; nothing of the transaction is kept."""


@contextmanager
def connect(
    path: Location,
    wait_seconds: float = lock.PATIENCE_SECONDS,
    memory: str | None = None,
    writes: Sequence[Group] = ("book",),
    *,
    filling: bool = False,
) -> Generator[Connection]:
    """Open the warehouse, created or upgraded if necessary; wait while another process holds it.

    Args:
        path: The DuckDB file, or a shared warehouse.
        wait_seconds: How long to wait for it.
        memory: DuckDB's memory limit (``1GB``); most of the machine's when ``None``.
        writes: What of a shared one is locked, so that nobody else writes it: the book, or what
            collects (``raw``) and curates (``curated``). A file is locked whole.
        filling: Open a shared one even if its tables are not all there yet.

    Raises:
        WarehouseBusyError: It was still held after ``wait_seconds``.
        WarehouseVersionError: Its schema is newer than this program, or of version 0.x.
        DiskFullError: The disk was full for writes within the block.
        WarehouseError: It can't be reached or opened.
        WarehouseConflictError: The connection to it was cut.
    """
    if not isinstance(path, Path):
        opened = path.opened(writes, wait_seconds, filling=filling)
        with _explained(path), opened as con:
            con.execute("reset memory_limit")  # that the process's last connection has set
            _configure(con, memory)
            yield con
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _explained(path), closing(lock.open_file(path, wait_seconds, prepare)) as con:
        prepare(con)
        _configure(con, memory)
        yield con


def reading(
    path: Location, wait_seconds: float = lock.PATIENCE_SECONDS
) -> AbstractContextManager[Connection]:
    """Open the warehouse as ``connect`` does, to write nothing of a shared one."""
    return connect(path, wait_seconds, writes=())


def opening_problem(path: Location, wait_seconds: float = lock.PATIENCE_SECONDS) -> str | None:
    """Return why the warehouse can't be opened, in a line; ``None`` if it can.

    ``WarehouseBusyError``: others held it for longer.
    """
    try:
        with connect(path, wait_seconds):
            return None
    except (duckdb.Error, WarehouseError, PermissionError, WarehouseVersionError) as error:
        return " ".join(str(error).split())


def _configure(con: Connection, memory: str | None) -> None:
    con.execute("set timezone = 'UTC'")
    con.execute("set enable_progress_bar = false")  # it writes to the terminal between our lines
    if memory is not None:
        con.execute("set memory_limit = $memory", {"memory": memory})


@contextmanager
def _explained(place: Location) -> Generator[None]:
    """Raise ``DiskFullError`` where DuckDB's error means that, and a shared warehouse's errors."""
    try:
        yield
    except duckdb.Error as error:
        if not isinstance(place, Path) and (explained := place.explained(error)) is not None:
            raise explained from error
        if NO_ROOM not in str(error):
            raise
        full = "a disk is full, its files', PostgreSQL's or this machine's"
        if isinstance(place, Path):
            free = shutil.disk_usage(place.parent).free
            full = f"its disk is full, {free:,} bytes are left"
        raise DiskFullError(
            f"writing {place}: {full}; nothing of this is kept, so free some space and do the same "
            f"again ({error})"
        ) from error


def in_turns(
    path: Location,
    pieces: Iterable[Callable[[Connection], Result]],
    *,
    memory: str | None = None,
    seconds: float = TURN_SECONDS,
    writes: Sequence[Group] = ("book",),
    wait_seconds: float = lock.PATIENCE_SECONDS,
) -> Generator[Result]:
    """Run pieces of work, releasing the warehouse between them; yield their results.

    Args:
        path: The DuckDB file, or a shared warehouse.
        pieces: Called with the open warehouse, again if another process wrote the same tables
            meanwhile, or the connection was cut. With ``seconds`` of 0 it is closed while the
            iterable produces the next one.
        memory: DuckDB's memory limit, see ``connect``.
        seconds: How long the warehouse is held before it is released.
        writes: What of a shared one is locked, see ``connect``.
        wait_seconds: How long to wait for the warehouse each time, see ``connect``.
    """
    waiting = iter(pieces)
    piece, conflicts = next(waiting, None), 0
    while piece is not None:
        with ExitStack() as opened:
            con, until = None, 0.0
            another: Callable[[Connection], Result] | None = piece
            while another is not None:
                piece = another
                try:
                    if con is None:
                        con = opened.enter_context(connect(path, wait_seconds, memory, writes))
                        until = time.monotonic() + seconds
                    result = piece(con)
                except WarehouseConflictError:
                    conflicts += 1
                    if conflicts == MAX_CONFLICTS:
                        raise
                    break
                conflicts = 0
                yield result
                another = next(waiting, None) if time.monotonic() < until else None
                piece = another
        if piece is None:
            piece = next(waiting, None)


def prepare(con: Connection) -> None:
    """Configure a DuckDB database, and apply the migrations that it lacks."""
    _configure(con, None)
    con.execute("set force_compression = 'zstd'")  # logs shrink tenfold and load faster
    migrate(con, sql_folder("migrations"))


@contextmanager
def second_connection(con: Connection, *, reads: bool = True) -> Generator[Connection]:
    """Open a second connection of this process; it sees committed rows only.

    One that reads no tables need not ask a shared warehouse for each name of a statement.
    """
    second = con.cursor()
    try:
        second.execute("set timezone = 'UTC'")
        if reads and (place := warehouse_port.shared(con)) is not None:
            place.show(second)
        yield second
    finally:
        second.close()


@contextmanager
def one_state(con: Connection) -> Generator[None]:
    """Let the block's statements, which write no shared table, see the same state of all.

    By itself each of them would begin a transaction of its own. A file is read as it is.
    """
    if warehouse_port.shared(con) is None:
        yield
        return
    with plain_transaction(con, by="commit"):
        yield


@contextmanager
def attached(path: Path, wait_seconds: float = lock.PATIENCE_SECONDS) -> Generator[Connection]:
    """Open the file read-only, as the database ``original`` of an in-memory connection.

    It blocks writers, and never touches the log of a file that replaces it.

    Raises:
        WarehouseBusyError: It was still held after ``wait_seconds``.
    """
    with duckdb.connect() as con:
        attach = f"attach '{escaped(path)}' as original (read_only)"
        lock.open_read_only(path, wait_seconds, lambda: con.execute(attach))
        yield con


@contextmanager
def in_memory(scratch: Path) -> Generator[Connection]:
    """Open an empty in-memory warehouse that spills to ``scratch``."""
    with (
        file_locks.temporary_folder(scratch, "duckdb-") as folder,
        _explained(scratch),
        duckdb.connect() as con,
    ):
        con.execute(f"set temp_directory = '{escaped(folder)}'")
        con.execute("set memory_limit = $memory", {"memory": f"{CURATING_BYTES}B"})
        prepare(con)
        yield con


def allow_rows(con: Connection, rows: int) -> None:
    """Raise the memory limit of a copy in memory to what curating so many rows needs.

    It is never more than DuckDB takes by itself, most of what this machine or container has.
    """
    needed = rows * CURATING_ROW_BYTES
    if needed <= CURATING_BYTES:
        return
    con.execute("reset memory_limit")
    amount, unit = _memory_limit(con)
    if needed < amount * BYTES[unit]:
        con.execute("set memory_limit = $memory", {"memory": f"{needed // 10**6}MB"})


def _memory_limit(con: Connection) -> tuple[float, str]:
    ((limit,),) = con.execute("select current_setting('memory_limit')").fetchall()
    amount, unit = limit.split()
    return float(amount), unit


@contextmanager
def spilled(con: Connection, keep: int = RESTING_BYTES) -> Generator[None]:
    """Let DuckDB keep ``keep`` bytes of its tables in memory in the block, the rest on disk."""
    # By a connection of its own: an error would end the transaction of this one.
    with second_connection(con, reads=False) as second:
        amount, unit = _memory_limit(second)
        with suppress(duckdb.OutOfMemoryException):  # what it can't move stays
            second.execute("set memory_limit = $memory", {"memory": f"{keep}B"})
        try:
            yield
        finally:
            # It has one digit, the others are cut off: half of one more keeps it as it was.
            second.execute("set memory_limit = $memory", {"memory": f"{amount + 0.05}{unit}"})


@contextmanager
def plain_transaction(con: Connection, by: Literal["commit", "rollback"]) -> Generator[None]:
    """Begin a transaction for the block, and end it; an error within it rolls it back."""
    con.execute("begin transaction")
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):  # ended by the error, or the connection was cut
            con.execute("rollback")
        raise
    con.execute(by)


@contextmanager
def transaction(con: Connection, *writes: Group) -> Generator[None]:
    """Commit the block's changes, or roll all of them back on an error.

    Args:
        con: The warehouse.
        writes: What is written of a shared warehouse: the book, or ``raw`` and ``curated``; the
            book if none.

    Raises:
        WarehouseConflictError: Another process wrote the same tables meanwhile, or the connection
            to a shared warehouse was cut.
    """
    place = warehouse_port.shared(con)
    try:
        with plain_transaction(con, by="commit"):
            if place is not None:
                place.fence(con, writes or ("book",))
            yield
    except duckdb.Error as error:
        if place is None or (explained := place.explained(error)) is None:
            raise
        raise explained from error


def rehearsal(con: Connection) -> AbstractContextManager[None]:
    """Roll back the block's changes in any case."""
    return plain_transaction(con, by="rollback")


def migrate(con: Connection, folder: Traversable) -> None:
    """Apply the numbered migrations that this file lacks, to an older one each by itself."""
    con.execute("create schema if not exists raw")
    con.execute("create table if not exists raw.migrations (number integer primary key, name text)")
    migrations = {int(file.name[:4]): file for file in sql_files(folder)}
    applied = {number for (number,) in con.execute("select number from raw.migrations").fetchall()}
    if applied and min(applied) < min(migrations):
        raise WarehouseVersionError(f"the warehouse {TOO_OLD}")
    if unknown := applied - migrations.keys():
        raise WarehouseVersionError(
            f"the warehouse has migrations {unknown} that this Flywheel does not know: a newer "
            "release wrote it; install it, or move the home away and restore an older backup"
        )
    missing = sorted(migrations.keys() - applied)
    # One transaction for a new file takes half the time.
    steps = [[number] for number in missing] if applied else [missing]
    for step in steps:
        with transaction(con):
            # All at once: a statement for each number takes half as long again.
            con.execute("".join(migrations[number].read_text() for number in step))
            names = [migrations[number].name for number in step]
            sql = "insert into raw.migrations select unnest($numbers), unnest($names)"
            con.execute(sql, {"numbers": step, "names": names})
    if missing:
        # Left in the log, `add column ... default []` could not be replayed by DuckDB 1.5.
        con.execute("checkpoint")


def build(con: Connection, model: str, **values: Value) -> None:
    """Replace the table ``staging.interactions`` by the select in ``sql/staging/interactions.sql``.

    Args:
        con: The warehouse.
        model: The select's path under ``sql/``, without the suffix.
        values: Values for the ``$named`` parameters; unknown names are ignored.
    """
    temporary = "temporary " if model.startswith("temp/") else ""
    sql = f"create or replace {temporary}table {model_table(model)} as {model_select(model)}"
    con.execute(*_parsed(con, sql, values))


def show(con: Connection, model: str) -> None:
    """Create the temporary view ``interactions`` of the select ``staging/interactions``."""
    name = model.rpartition("/")[2]
    con.execute(f"create or replace temporary view {name} as {model_select(model)}")


def append(con: Connection, model: str, **values: Value) -> int:
    """Append the rows of ``model``'s select to its table; return their number."""
    sql = f"insert into {model_table(model)} by name {model_select(model)}"
    return int(con.execute(*_parsed(con, sql, values)).fetchall()[0][0])


def export(con: Connection, model: str, path: Path | str, **values: Value) -> None:
    """Write the rows of ``model``'s select to a Parquet file, by path or by address."""
    sql = f"copy ({model_select(model)}) to '{escaped(path)}' (format parquet, compression zstd)"
    con.execute(*_parsed(con, sql, values))


def show_files(con: Connection, name: str, paths: Sequence[str], like: str) -> None:
    """Create a temporary view over Parquet files, by path or by address.

    Without files it is empty and has the columns of the table ``like``.
    """
    listed = ", ".join(f"'{escaped(path)}'" for path in paths)
    rows_of = f"read_parquet([{listed}])" if paths else f"{like} limit 0"
    con.execute(f"create or replace temporary view {name} as from {rows_of}")


def refresh(con: Connection, model: str, *, workload_id: str, **values: Value) -> None:
    """Replace one workload's rows in the table of ``model`` by those of its select."""
    delete = f"delete from {model_table(model)} where workload_id = $workload_id"
    con.execute(*_parsed(con, delete, {"workload_id": workload_id}))
    append(con, model, workload_id=workload_id, **values)


def check(con: Connection, folder: str = "checks", **values: Value) -> None:
    """Run every select in a folder of ``sql``; each returns forbidden rows.

    Raises:
        CheckFailedError: A check failed; names the checks and the first offending rows of each.
    """
    failures: list[str] = []
    for file in sql_files(sql_folder(folder)):
        sql = file.read_text()
        offending = con.execute(*_parsed(con, sql, values)).fetchall()
        if offending:
            shown = "; ".join(str(row) for row in offending[:ROWS_SHOWN])
            failures.append(f"{file.name} found {len(offending)} rows: {shown}")
    if failures:
        raise CheckFailedError(" | ".join(failures))


def read(
    con: Connection, model: str, record: Callable[..., Record], **values: Value
) -> Generator[Record]:
    """Stream the rows of ``model``'s select as records.

    The connection must not run anything else until the last row is read or the stream is closed.
    """
    for batch in batches(con, model, **values):
        for row in rows_of(batch):
            yield record(**row)


def read_built(con: Connection, model: str, record: Callable[..., Record]) -> Generator[Record]:
    """Stream the rows that ``build`` stored of ``model`` as records; see ``read``."""
    for batch in _relation(con, f"from {model_table(model)}", {}).to_arrow_reader(BATCH_ROWS):
        for row in rows_of(batch):
            yield record(**row)


def batches(con: Connection, model: str, **values: Value) -> Iterator[ArrowBatch]:
    """Stream the rows of ``model``'s select as Arrow batches.

    The connection must not run anything else until the last batch is read.
    """
    return iter(_relation(con, model_select(model), values).to_arrow_reader(BATCH_ROWS))


def select(con: Connection, model: str, **values: Value) -> list[Row]:
    """Return the rows of ``model``'s select, which must be few."""
    return rows(con, model_select(model), **values)


def records(
    con: Connection, model: str, record: Callable[..., Record], **values: Value
) -> list[Record]:
    """Return the rows of ``model``'s select, which must be few, as records."""
    return [record(**row) for row in select(con, model, **values)]


def table(con: Connection, model: str, **values: Value) -> ArrowTable:
    """Return the rows of ``model``'s select as an Arrow table."""
    return cast("ArrowTable", _relation(con, model_select(model), values).to_arrow_table())


def rows(con: Connection, sql: str, **values: Value) -> list[Row]:
    """Return the rows of a short query."""
    # A relation is planned twice, and takes half as long for each of many rows.
    con.execute(*_parsed(con, sql, values))
    names = [column[0] for column in con.description or ()]
    return [dict(zip(names, row, strict=True)) for row in con.fetchall()]


def texts(con: Connection, sql: str, **values: Value) -> list[str]:
    """Return the only column of a short query, of texts."""
    return [text for (text,) in con.execute(*_parsed(con, sql, values)).fetchall()]


def count_parquet_rows(con: Connection, path: Path | str) -> int:
    """Return the number of rows of a Parquet file, read from its footer."""
    (row,) = rows(con, "select count(*) as row_count from read_parquet($path)", path=str(path))
    return cast("int", row["row_count"])


def insert(con: Connection, table: str, records: Sequence[Mapping[str, Value]]) -> int:
    """Insert records by column name, skipping existing primary keys; return how many were added."""
    if not records:
        return 0
    rows_from = "incoming_records"
    if (place := warehouse_port.shared(con)) is not None:
        records, join, has_key = place.insertable(table, records)
        rows_from += join
    else:
        has_key = _has_key(con, table)
    ignore = "or ignore " if has_key else ""
    columns = {name: [record[name] for record in records] for name in records[0]}
    with present(con, "incoming_records", columns):
        sql = f"insert {ignore}into {table} by name select * from {rows_from}"
        return int(con.execute(*_parsed(con, sql, {})).fetchall()[0][0])


def storable(con: Connection, text: str) -> str:
    """Return a text as this warehouse can store it."""
    place = warehouse_port.shared(con)
    return place.storable(text) if place is not None else text


def replace(
    con: Connection, table: str, records: Sequence[Mapping[str, Value]], workload_id: str | None
) -> None:
    """Replace one workload's rows of a table, or all rows where it is ``None``."""
    if workload_id is None:
        con.execute(f"delete from {table}")
        insert(con, table, records)
    else:
        delete = f"delete from {table} where workload_id = $workload_id"
        con.execute(*_parsed(con, delete, {"workload_id": workload_id}))
        insert(con, table, [{**record, "workload_id": workload_id} for record in records])


@contextmanager
def present(
    con: Connection,
    name: str,
    columns: Mapping[str, Sized] | ArrowTable,
    chunk_rows: int = CHUNK_ROWS,
) -> Generator[None]:
    """Register columns as the table ``name`` for the duration of the block.

    A column is a sequence of values or an Arrow array. DuckDB processes ``chunk_rows`` at a time.
    """
    shown = ShownTable(columns, chunk_rows)
    con.register(name, shown)
    try:
        yield
    finally:
        con.unregister(name)
        shown.release()


@contextmanager
def present_file(con: Connection, name: str, path: Path) -> Generator[None]:
    """Show a Parquet file as the table ``name`` for the duration of the block."""
    rows = f"from read_parquet('{escaped(path)}')"
    con.execute(f"create or replace temporary view {name} as {rows}")
    yield
    con.execute(f"drop view {name}")  # not after an error, which rolls it back


def escaped(path: Path | str) -> str:
    """Escape a path for use between a statement's quotes."""
    return str(path).replace("'", "''")


def _relation(con: Connection, sql: str, values: Mapping[str, Value]) -> duckdb.DuckDBPyRelation:
    # DuckDB types `sql` as if every statement returned rows; others return None.
    statement, named = _parsed(con, sql, values)
    return con.sql(statement, params=named)


def _parsed(
    con: Connection, sql: str, values: Mapping[str, Value]
) -> tuple[duckdb.Statement, dict[str, Value]]:
    """Return a statement, parsed once a process, and those of the values that it names.

    DuckDB refuses others. Parsing a model takes a fifth of running it on a few rows.
    """
    if sql not in _STATEMENTS:
        if len(_STATEMENTS) == MAX_STATEMENTS:
            _STATEMENTS.clear()
        (statement,) = con.extract_statements(sql)
        _STATEMENTS[sql] = statement, tuple(statement.named_parameters)
    statement, names = _STATEMENTS[sql]
    return statement, {name: values[name] for name in names}


_STATEMENTS: dict[str, tuple[duckdb.Statement, tuple[str, ...]]] = {}
"""The statements that were run, parsed, each with the names of its parameters."""


def _has_key(con: Connection, table: str) -> bool:
    # Of this table alone: `duckdb_constraints()` lists all tables first, six times as long. No
    # migration gives a key to a table, or takes it, while a process runs.
    if table not in _KEYED:
        sql = "from pragma_table_info($table) where pk"
        _KEYED[table] = bool(con.execute(sql, {"table": table}).fetchall())
    return _KEYED[table]


_KEYED: dict[str, bool] = {}
"""Whether each table that was written has a primary key."""
