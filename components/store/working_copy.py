"""An in-memory copy of one workload's rows, so that curation does not block the warehouse."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from components.schema import ANONYMOUS
from components.store import file_locks, lock, warehouse, warehouse_port
from components.store.arrow import ArrowTable
from components.store.warehouse import Connection, Location
from components.store.warehouse_port import Group, SharedWarehouse, WarehouseConflictError

RAW = ("raw.interactions", "raw.feedback")

SIGNED = frozenset({"releases", "released_losses", "blamed"})
"""Tables of ``curated`` that hold people's decisions: copied, never merged back."""

REBUILT = frozenset(
    {
        "bursts",
        "conflicts",
        "examples",
        "fates",
        "labels",
        "preferences",
        "redactions",
        "shares",
        "standings",
        "verdicts",
    }
)
"""Tables of ``curated`` that a curation builds from scratch: merged back, not copied."""

FROZEN = frozenset({"example_digests"})
"""Tables of ``curated`` that freezing builds, from which an erasure deletes all workloads' rows."""

SIDES = "curated.sides"
COUNTED = "curated.token_counts"  # a cache that all workloads share: new rows are added

ERASURES = "select count(*), count(finished_at) from raw.erasures"

OF_WORKLOAD = "workload_id = $workload_id"
OF_TABLE = {"raw.feedback": f"({OF_WORKLOAD} or source != 'feedback')"}
"""Sources without workloads may have feedback on any."""

FILES = "raw.files"  # when rows were loaded, as a log's own times may lie
OF_FILES = (
    f"digest in (select file_digest from raw.interactions where {OF_WORKLOAD}"
    f" union select file_digest from raw.feedback where {OF_TABLE['raw.feedback']})"
)

_PARSED = """
    select interactions.rowid as place
    from raw.interactions as interactions
    semi join parsed
        on
            interactions.interaction_id = parsed.interaction_id
            and interactions.file_digest = parsed.file_digest
            and interactions.line = parsed.line
            and interactions.content_hash is not distinct from parsed.content_hash
            and md5(interactions.record) is not distinct from parsed.record_digest
"""

_COMPARED = {
    "curated.standings": [("true", "* exclude (stratum, draw_id)")],
    "curated.verdicts": [("true", "* exclude (judged_at)")],
    "curated.examples": [
        ("content_digest is not null", "* exclude (messages, tools, answer, acceptable)"),
        ("content_digest is null", "*"),
    ],
}
"""Conditions on rows, and the columns by which such rows differ. Or every night would write all
verdicts for their time and, for what they were drawn with, all standings that have been settled
since; and it would read all texts."""

Fingerprint = tuple[int, int | None]  # the row count of a table, and the sum of the rows' hashes
NO_ROWS: Fingerprint = (0, None)


class StaleCopyError(RuntimeError):
    """The warehouse no longer has the rows of the copy; repeat the work."""


@contextmanager
def reserve(path: Location, locks: Path, workload_id: str) -> Generator[None]:
    """Lock the curation of a workload; other processes wait.

    Args:
        path: The DuckDB file, or a shared warehouse, in which other machines wait, too.
        locks: Folder of the locks, the same for all processes of a home.
        workload_id: The workload.
    """
    with file_locks.held(locks / f"{workload_id}.curation.lock"):
        if isinstance(path, Path):
            yield
            return
        with path.alone(f"curation of {workload_id}", lock.PATIENCE_SECONDS):
            yield


@contextmanager
def open_copy(
    path: Location,
    workload_id: str,
    scratch: Path,
    wait_seconds: float = lock.PATIENCE_SECONDS,
    at_most: int | None = None,
    parsed: ArrowTable | None = None,
) -> Generator["WorkingCopy"]:
    """Copy the rows that the curation of a workload reads; the file is released within the block.

    Args:
        path: The DuckDB file, or a shared warehouse; created or upgraded in place if necessary.
        workload_id: The workload.
        scratch: Folder for what does not fit into memory.
        wait_seconds: How long to wait for the file, each time that it is opened.
        at_most: Copy at most this many interactions: those with feedback, however many, and of the
            others the ones with the lowest hashes of their ids; ``None`` copies all.
        parsed: Interactions that are copied without their texts, by the columns ``interaction_id``,
            ``file_digest``, ``line``, ``content_hash`` and ``record_digest`` (the MD5 hash of
            ``record``).

    Raises:
        WarehouseBusyError: It was still held after ``wait_seconds``.
        WarehouseVersionError: Its schema is newer than this program, or of version 0.x.
        StaleCopyError: An erasure deleted shared files that were being read, or the connection was
            cut.
    """
    with warehouse.in_memory(scratch) as con:
        copy = WorkingCopy(con, path, workload_id, wait_seconds, at_most, parsed)
        copy.read()
        yield copy


@dataclass(slots=True)
class WorkingCopy:
    """The copy; ``con`` reads and writes it like the warehouse.

    ``not_sampled`` counts the workload's interactions that ``at_most`` left out. The payload of
    those that are ``parsed`` is empty.
    """

    con: Connection
    path: Location
    workload_id: str
    wait_seconds: float
    at_most: int | None = None
    parsed: ArrowTable | None = None
    not_sampled: int = 0
    _settled: dict[str, Fingerprint] | None = None
    _counted: int = -1
    _erasures: tuple[int, int] = (0, 0)  # that were begun, and finished

    def read(self) -> None:
        """Copy the rows; called once."""
        # An index of its key takes eight times as long as its rows; the warehouse checks the key.
        self.con.execute(f"create or replace table {SIDES} as from {SIDES} limit 0")
        if isinstance(self.path, Path):
            self._read_file(self.path)
        else:
            try:
                self._read_shared(self.path)
            except WarehouseConflictError as error:
                raise StaleCopyError(
                    f"curating {self.workload_id}: the connection was cut while rows were copied"
                ) from error
            except warehouse_port.ENGINE_ERRORS as error:
                self._require_no_purge(self.path, error)
                raise
        ((rows,),) = self.con.execute("select count(*) from raw.interactions").fetchall()
        warehouse.allow_rows(self.con, rows)
        self._settled = self._list_rows(self.con, self._settling())
        ((last,),) = self.con.execute(f"select max(rowid) from {COUNTED}").fetchall()
        self._counted = -1 if last is None else int(last)

    def _read_file(self, path: Path) -> None:
        with warehouse.connect(path, self.wait_seconds):
            pass  # creates the file, or upgrades its schema
        attach = f"attach '{warehouse.escaped(path)}' as original (read_only)"
        lock.open_read_only(path, self.wait_seconds, lambda: self.con.execute(attach))
        try:
            self.con.execute("use original")
            try:
                for table, select in self._selects(self.con):
                    sql = f"insert into memory.{table} by name {select}"
                    self.con.execute(sql, self._named(select))
            finally:
                self.con.execute("use memory")
        finally:
            self.con.execute("detach original")

    def _read_shared(self, place: SharedWarehouse) -> None:
        # One transaction, so that all rows are of one time; nobody is locked out.
        with (
            warehouse.reading(place, self.wait_seconds) as con,
            warehouse.rehearsal(con),
        ):
            (self._erasures,) = con.execute(ERASURES).fetchall()
            empty = place.empty_tables(con)
            for table, select in self._selects(con):
                if table in empty:
                    continue
                rows = con.sql(select, params=self._named(select)).to_arrow_reader()
                self.con.register("copied", rows)
                self.con.execute(f"insert into {table} by name select * from copied")
                self.con.unregister("copied")

    def _selects(self, con: Connection) -> Iterator[tuple[str, str]]:
        """Yield the tables to copy, with a select of the rows of each."""
        yield from (("raw.interactions", select) for select in self._select_interactions(con))
        conditions = dict.fromkeys(self._tables(but=REBUILT), OF_WORKLOAD)
        conditions |= {**OF_TABLE, FILES: OF_FILES, COUNTED: "true"}
        for table, condition in conditions.items():
            yield table, f"select * from {table} where {condition}"

    def _select_interactions(self, con: Connection) -> Iterator[str]:
        condition = self._sample(con)
        if self.parsed is None:
            yield f"select * from raw.interactions where {condition}"
            return
        with warehouse.present(con, "parsed", self.parsed):
            con.execute(
                f"create or replace temporary table parsed_places as {_PARSED} where {condition}",
                self._named(condition),
            )
        con.execute(
            "create or replace temporary table other_places as select rowid as place"
            f" from raw.interactions where {condition}"
            " and rowid not in (select place from parsed_places)",
            self._named(condition),
        )
        # By place: texts that no row needs are not even decompressed.
        yield (
            "select * replace ('' as payload, null as record) from raw.interactions"
            " where rowid in (select place from parsed_places)"
        )
        yield "select * from raw.interactions where rowid in (select place from other_places)"
        for table in ("parsed_places", "other_places"):
            con.execute(f"drop table {table}")

    def _named(self, condition: str) -> dict[str, str]:
        return {"workload_id": self.workload_id} if "$" in condition else {}

    def merge(self, also: Callable[[Connection], None] = lambda _: None) -> None:
        """Write the tables that changed to the warehouse; the file is held meanwhile.

        Args:
            also: Further writes, in a file in the same transaction, else in one of the book.

        Raises:
            StaleCopyError: Rows of the copy are gone; nothing is written.
            WarehouseBusyError: The file was still held after ``wait_seconds``.
        """
        self._merge(self._tables(but=SIGNED | FROZEN), also)

    def merge_settled(self, also: Callable[[Connection], None] = lambda _: None) -> None:
        """Do as ``merge``, but pass over ``REBUILT``, which freezing a merged copy doesn't change.

        Comparing their rows again would cost as much as the first time.
        """
        self._merge(self._tables(but=SIGNED | REBUILT), also)

    def _merge(self, tables: Sequence[str], also: Callable[[Connection], None]) -> None:
        # The warehouse needs as much memory as the copy.
        with warehouse.spilled(self.con, warehouse.CURATING_BYTES):
            ours = self._list_rows(self.con, tables)
            is_shared = not isinstance(self.path, Path)
            pieces = [partial(self._write, ours=ours, also=None if is_shared else also)]
            if is_shared:
                pieces.append(partial(self._write_book, also=also))
            # Again if the connection was cut: what was computed may have taken hours.
            groups: list[Group] = ["curated", "book"]
            for _ in warehouse.in_turns(
                self.path, pieces, seconds=math.inf, writes=groups, wait_seconds=self.wait_seconds
            ):
                pass
            for table in ours:
                self.con.execute(f"drop table if exists {_listing(table)}")

    def _write(
        self,
        con: Connection,
        *,
        ours: Mapping[str, Fingerprint],
        also: Callable[[Connection], None] | None,
    ) -> None:
        """Write the listed tables of which the warehouse has other rows."""
        with warehouse.transaction(con, "curated"):
            theirs = self._list_rows(con, list(ours))
            self._require_fresh(con, theirs, ours)
            for table in ours:
                if ours[table] != theirs[table]:
                    self._replace(con, table, is_new=theirs[table] == NO_ROWS)
                con.execute(f"drop table if exists {_listing(table)}")
            self._add_counted(con)
            if also is not None:
                also(con)
        self._settled = {table: ours[table] for table in self._settling()}

    def _write_book(self, con: Connection, *, also: Callable[[Connection], None]) -> None:
        with warehouse.transaction(con, "book"):
            self._require_no_erasure(con)
            also(con)

    def _sample(self, con: Connection) -> str:
        """Return the condition on the interactions that are copied."""
        if self.at_most is None:
            return OF_WORKLOAD
        ((rows,),) = con.execute(
            f"select count(*) from raw.interactions where {OF_WORKLOAD}",
            {"workload_id": self.workload_id},
        ).fetchall()
        if rows <= self.at_most:
            return OF_WORKLOAD
        warehouse.build(
            con,
            "temp/sampled",
            workload_id=self.workload_id,
            at_most=self.at_most,
            anonymous=[*sorted(ANONYMOUS)],
        )
        ((sampled,),) = con.execute("select count(*) from temp.sampled").fetchall()
        self.not_sampled = rows - sampled
        return f"{OF_WORKLOAD} and interaction_id in (select interaction_id from temp.sampled)"

    def _require_fresh(
        self,
        con: Connection,
        theirs: Mapping[str, Fingerprint],
        ours: Mapping[str, Fingerprint],
    ) -> None:
        """Check that the copied rows still exist, and that nobody else settled the sides.

        They may be ours already, from an attempt that was cut off amid its commit.
        """
        for table, key in zip(RAW, ("interaction_id", "feedback_id"), strict=True):
            ids = self.con.sql(f"select {key} from {table}").to_arrow_table()
            if not ids.num_rows:
                continue
            with warehouse.present(con, "copied", ids):
                sql = f"select count(*) from copied anti join {table} using ({key})"
                ((gone,),) = con.execute(sql).fetchall()
            if gone:
                raise StaleCopyError(
                    f"curating {self.workload_id}: {gone} rows of {table} were erased or archived "
                    "meanwhile"
                )
        settled = {table: theirs[table] for table in self._settling()}
        if settled != self._settled and theirs != ours:
            raise StaleCopyError(f"curating {self.workload_id}: another process has curated it")

    def _require_no_erasure(self, con: Connection) -> None:
        """Check that no erasure has begun since the rows were copied; its rows go only later."""
        ((begun, _),) = con.execute(ERASURES).fetchall()
        if begun != self._erasures[0]:
            raise StaleCopyError(f"curating {self.workload_id}: an erasure began meanwhile")

    def _require_no_purge(self, place: SharedWarehouse, error: Exception) -> None:
        """Check that no erasure has deleted the files of the state that was read."""
        with warehouse.reading(place, self.wait_seconds) as con:
            ((begun, finished),) = con.execute(ERASURES).fetchall()
        if (begun, finished) != self._erasures or begun != finished:
            raise StaleCopyError(
                f"curating {self.workload_id}: an erasure has deleted files meanwhile ({error})"
            ) from error

    def _replace(self, con: Connection, table: str, *, is_new: bool) -> None:
        """Delete and insert only the rows that differ, since writing a row anew costs the most.

        Both sides' rows were listed. Only those that differ pass through Arrow, in batches.
        """
        if is_new:
            self._send(con, table, OF_WORKLOAD)
            return
        listing = _listing(table)
        digests = self.con.sql(f"select digest from {listing}").to_arrow_table()
        with warehouse.present(con, "made", digests):
            # Rows may be equal, so it counts how many of them there are on each side.
            con.execute(
                "create or replace temporary table changed as select digest from ("
                f"select digest, 1 as copies from {listing}"
                " union all select digest, -1 as copies from made"
                ") group by digest having sum(copies) <> 0"
            )
        places = f"rowid in (select place from {listing} semi join changed using (digest))"
        con.execute(f"delete from {table} where {places}")
        changed = con.sql("from changed").to_arrow_table()
        with warehouse.present(self.con, "changed", changed):
            self._send(con, table, places)
        con.execute("drop table changed")

    def _send(self, con: Connection, table: str, condition: str) -> None:
        rows = self.con.sql(
            f"select * from {table} where {condition}", params=self._named(condition)
        )
        con.register("made", rows.to_arrow_reader(warehouse.BATCH_ROWS))
        con.execute(f"insert into {table} by name select * from made")
        con.unregister("made")

    def _add_counted(self, con: Connection) -> None:
        new = f"from {COUNTED} where rowid > {self._counted}"
        rows = self.con.sql(new).to_arrow_table()
        with warehouse.present(con, "made", rows):
            con.execute(
                f"insert into {COUNTED} by name"
                f" select * from made anti join {COUNTED} using (tokenizer, content)"
            )

    def _settling(self) -> list[str]:
        """List the tables that one curation leaves to the next."""
        return self._tables(but=SIGNED | REBUILT | FROZEN)

    def _tables(self, but: frozenset[str]) -> list[str]:
        """List the tables of ``curated`` that have a workload's rows."""
        tables = self.con.execute(
            "select table_name from duckdb_columns()"
            " inner join duckdb_tables() using (database_oid, schema_name, table_name)"
            " where schema_name = 'curated' and column_name = 'workload_id'"
            " and duckdb_tables.database_name = current_database() order by table_name"
        ).fetchall()
        return [f"curated.{name}" for (name,) in tables if name not in but]

    def _list_rows(self, con: Connection, tables: Sequence[str]) -> dict[str, Fingerprint]:
        """List each table's rows by place and digest in a temporary table, unless it is empty."""
        # DuckDB's hash may differ between versions; here one process computes both sides.
        place = warehouse_port.shared(con)
        empty = place.empty_tables(con) if place is not None else frozenset[str]()
        fingerprints = dict.fromkeys(empty.intersection(tables), NO_ROWS)
        for table in tables:
            if table in fingerprints:
                continue
            selects = " union all ".join(
                f"select rowid as place, hash(*columns({columns})) as digest"
                f" from {table} where {OF_WORKLOAD} and {condition}"
                for condition, columns in _COMPARED.get(table, [("true", "*")])
            )
            con.execute(
                f"create or replace temporary table {_listing(table)} as {selects}",
                {"workload_id": self.workload_id},
            )
            (fingerprints[table],) = con.execute(
                f"select count(*), sum(digest) from {_listing(table)}"
            ).fetchall()
        return fingerprints


def _listing(table: str) -> str:
    return f"listed_{table.rpartition('.')[2]}"
