"""Write batches of records into ``raw``: duplicates once, invalid records into quarantine."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import chain, groupby
from typing import TypeAlias, TypeVar, cast

import pyarrow as pa

from components.collect import reconciliation
from components.collect.lines import Unreadable
from components.collect.reconciliation import Reconciled
from components.collect.record_batches import (
    READERS,
    Batch,
    BatchValidator,
    RecordOrigin,
    ValidatedBatch,
)
from components.collect.source import Kind
from components.store import record_identity, warehouse, warehouse_port
from components.store.arrow import ArrowStream, ArrowTable
from components.store.warehouse import Connection, Value

Item = TypeVar("Item")
Result = TypeVar("Result")
Begin: TypeAlias = Callable[[], Future[Item] | Future[Item | None] | None]

WAL_BYTES = 16 * 2**20  # bytes of DuckDB's write-ahead log at which it checkpoints
MANY_BYTES = 256 * 2**20  # bytes of a load that fills several row groups
AHEAD = 3  # batches to validate ahead of the writer; each holds up to twice 32 MiB
MAX_REFUSED = 32 * 2**20  # maximum bytes of refused records in memory before they are written


Within: TypeAlias = Callable[[Connection], AbstractContextManager[None]]
"""The transaction of a load, which ends with its commit or, in a dry run, with a rollback."""


def committed(con: Connection) -> AbstractContextManager[None]:
    """Begin a transaction of a load that counts."""
    return warehouse.transaction(con, "raw")


@contextmanager
def prefetch(items: Iterator[Item], most: int) -> Generator[Iterator[Item]]:
    """Yield ``items``, read by a thread up to ``most`` ahead; its exceptions are raised here."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield _in_order(lambda: thread.submit(next, items, None), most)


@contextmanager
def map_in_threads(
    work: Callable[[Item], Result], items: Iterator[Item], workers: int
) -> Generator[Iterator[Result]]:
    """Yield the results of ``work`` in the order of ``items``, computed in ``workers`` threads.

    One more result than threads is held, so that a slow item doesn't block the others.
    """
    with ThreadPoolExecutor(max_workers=workers) as threads:

        def begin() -> Future[Result] | None:
            item = next(items, None)
            return None if item is None else threads.submit(work, item)

        yield _in_order(begin, workers + 1)


def _in_order(begin: Begin[Item], most: int) -> Iterator[Item]:
    futures = deque(begin() for _ in range(most))  # now, before the first result is requested

    def results() -> Iterator[Item]:
        while (future := futures.popleft()) is not None and (item := future.result()) is not None:
            futures.append(begin())
            yield item

    return results()


@contextmanager
def bulk_load(con: Connection, size: int) -> Generator[None]:
    """Let DuckDB write the block's commits of about ``size`` bytes the fast way, if they are large.

    A file gets them without the write-ahead log. DuckDB does so by itself, but estimates a commit
    by its number of rows, not their size: 100,000 of 2.3 KB would all go into the log first,
    uncompressed. One that is shared gets all processors, which compress a row group each.
    """
    if (place := warehouse_port.shared(con)) is not None:
        with place.bulk(con) if size >= MANY_BYTES else nullcontext():
            yield
        return
    if size < WAL_BYTES:
        yield
        return
    con.execute("set checkpoint_threshold = '1KB'")
    try:
        yield
    finally:
        con.execute("reset checkpoint_threshold")


def append_tables(
    con: Connection, model: str, name: str, tables: Iterator[ArrowTable], **values: Value
) -> int:
    """Append the result of ``model``, which reads the streamed tables as ``name``; return the rows.

    All tables have the first one's schema; exceptions while they are produced are raised here.
    """
    first = next(tables, None)
    if first is None:
        return 0
    stream = ArrowStream(first.schema, chain([first], tables))
    con.register(name, stream)
    try:
        with _unordered(con):
            added = warehouse.append(con, model, **values)
    finally:
        con.unregister(name)
    if stream.error is not None:
        raise stream.error
    return added


@contextmanager
def _unordered(con: Connection) -> Generator[None]:
    """Let all connections to the file ignore insertion order.

    To keep it, DuckDB copies many rows again, and compresses the last row groups on one thread.
    """
    # On a second connection, because a failed transaction can't reset settings.
    with warehouse.second_connection(con, reads=False) as second:
        second.execute("set preserve_insertion_order = false")
        try:
            yield
        finally:
            second.execute("reset preserve_insertion_order")


@dataclass(frozen=True, slots=True)
class Stored:
    """How many rows of a batch were new, already known, and quarantined."""

    new: int
    known: int
    quarantined: int
    merged: int = 0  # known interactions to which a later record's metadata was added

    def __add__(self, other: "Stored") -> "Stored":
        return Stored(
            self.new + other.new,
            self.known + other.known,
            self.quarantined + other.quarantined,
        )


@contextmanager
def validated(
    validator: BatchValidator, now: datetime, batches: Iterable[Batch]
) -> Generator[Iterator[ValidatedBatch]]:
    """Yield validated batches that arrived at ``now``, computed ahead of the writer."""
    with (
        prefetch(iter(batches), 1) as unparsed,
        map_in_threads(partial(validator.read, now), unparsed, READERS) as parsed,
        prefetch(map(validator.validate, parsed), AHEAD) as validated_batches,
    ):
        yield validated_batches


def store_batches(
    con: Connection,
    origin: RecordOrigin,
    batches: Iterable[ValidatedBatch],
    digests: Sequence[str] = (),
) -> Stored:
    """Store batches in the open transaction, for which they were validated; return the counts.

    ``digests`` are those of several files, if the batches' rows have ``file_digest``; else all are
    the origin's. One statement stores consecutive batches of a kind: DuckDB compresses a row group
    of 122,880 rows on one thread, so only a statement that fills several keeps all threads busy.
    """
    stored, last_rows = Stored(0, 0, 0), dict[Kind, int]()
    numbered = _number_statements(batches)
    for (_, kind), members in groupby(numbered, lambda member: (member[0], member[1].kind)):
        if kind not in last_rows:
            last_rows[kind] = reconciliation.last_row(con, kind)
        stored += _store(con, origin, kind, (batch for _, batch in members))
    reconciled, repeated = Reconciled(), 0
    if "interactions" in last_rows:
        reconciled = reconciliation.reconcile(
            con, last_rows["interactions"], digests or [origin.digest]
        )
    if "feedback" in last_rows:
        repeated = reconciliation.reconcile_feedback(con, last_rows["feedback"])
    known = reconciled.known + reconciled.erased + repeated
    return Stored(stored.new - known, stored.known + known, stored.quarantined, reconciled.merged)


def store_quarantined(con: Connection, origin: RecordOrigin, refused: Iterable[Unreadable]) -> int:
    """Write refused records to quarantine with bytes, place and reasons; return the row count.

    A line may have several bad parts, such as the spans of a request; each becomes a row.
    """
    reasons: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for record in refused:
        reasons[record.number, record.content].append(record.reason)
    records: list[warehouse.Row] = [
        {
            "quarantine_id": hashlib.md5(
                f"{origin.digest} {origin.source} {number} ".encode() + content
            ).hexdigest(),
            "path": origin.path,
            "file_digest": origin.digest,
            "source": origin.source,
            **asdict(origin.defaults),
            "line": number,
            "reason": "; ".join(dict.fromkeys(texts)),
            "content": content,
            "quarantined_at": origin.now,
        }
        for (number, content), texts in reasons.items()
    ]
    return warehouse.insert(con, "raw.quarantine", _without_erased(con, records))


def _without_erased(con: Connection, records: list[warehouse.Row]) -> list[warehouse.Row]:
    # Loading their file again must not restore erased lines.
    sql = "select digest, key from raw.erased, raw.erasure_key where kind = 'lines'"
    erased = con.execute(sql).fetchall() if records else []
    if not erased:
        return records
    digests, key = {digest for digest, _ in erased}, str(erased[0][1]).encode()

    def is_erased(content: bytes) -> bool:
        texts = (content, (record_identity.canonical_text(content) or "").encode())
        return any(hashlib.sha256(key + text).hexdigest() in digests for text in texts)

    return [record for record in records if not is_erased(cast("bytes", record["content"]))]


def _number_statements(batches: Iterable[ValidatedBatch]) -> Iterator[tuple[int, ValidatedBatch]]:
    """Yield each batch with a number that grows whenever ``MAX_REFUSED`` is reached."""
    size = 0
    for batch in batches:
        yield size // MAX_REFUSED, batch
        size += sum(len(refused.content) for refused in batch.refused)


def _store(
    con: Connection, origin: RecordOrigin, kind: Kind, batches: Iterable[ValidatedBatch]
) -> Stored:
    records, refused = 0, list[Unreadable]()
    fields: set[str] = set()

    def rows() -> Iterator[ArrowTable]:
        nonlocal records
        for batch in batches:
            records += batch.records
            refused.extend(batch.refused)
            fields.update(batch.fields)
            if batch.rows is None:
                continue
            if "file_digest" in batch.rows.schema.names:
                yield batch.rows
            else:
                digests = pa.repeat(origin.digest, batch.rows.num_rows)
                yield batch.rows.append_column("file_digest", digests)

    new = append_tables(con, f"raw/{kind}", "judged", rows(), source_name=origin.source)
    _register_fields(con, origin, fields)
    return Stored(new, records - new, store_quarantined(con, origin, refused))


def _register_fields(con: Connection, origin: RecordOrigin, fields: set[str]) -> None:
    if fields:
        values = {"source_name": origin.source, "path": origin.path, "now": origin.now}
        with warehouse.present(con, "shown", {"field": sorted(fields)}):
            warehouse.append(con, "raw/fields", **values)
