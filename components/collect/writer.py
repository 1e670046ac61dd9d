"""Write batches of records into ``raw``: equal ones once, invalid ones into quarantine."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain, groupby
from typing import TypeVar, cast

from components.collect import reconciliation
from components.collect.lines import Unreadable
from components.collect.record_batches import (
    READERS,
    Batch,
    BatchValidator,
    RecordOrigin,
    ValidatedBatch,
)
from components.collect.source import Kind
from components.store import warehouse
from components.store.arrow import ArrowStream, ArrowTable
from components.store.warehouse import Connection, Value

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def prefetch(items: Iterator[Item], most: int) -> Generator[Iterator[Item]]:
    """Let a thread go through ``items``, up to ``most`` of them ahead; what it raises is raised."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield _in_order(lambda: thread.submit(next, items, None), most)


@contextmanager
def map_in_threads(
    work: Callable[[Item], Result], items: Iterator[Item], workers: int
) -> Generator[Iterator[Result]]:
    """Let threads work on one item each; the results come in the order of ``items``.

    One more result than there are threads is held, so that a slow item doesn't keep the others.
    """
    with ThreadPoolExecutor(max_workers=workers) as threads:

        def begin() -> Future[Result] | None:
            item = next(items, None)
            return None if item is None else threads.submit(work, item)

        yield _in_order(begin, workers + 1)


def _in_order(
    begin: Callable[[], Future[Item] | Future[Item | None] | None], most: int
) -> Iterator[Item]:
    """Begin at once, before anyone asks for a result."""
    return _produce(deque(begin() for _ in range(most)), begin)


def _produce(
    coming: deque[Future[Item] | Future[Item | None] | None],
    begin: Callable[[], Future[Item] | Future[Item | None] | None],
) -> Iterator[Item]:
    while (future := coming.popleft()) is not None and (item := future.result()) is not None:
        coming.append(begin())
        yield item


LOGGED = 16 * 2**20
"""Bytes of DuckDB's write-ahead log at which it writes what is in it to the file."""


@contextmanager
def bulk_load(con: Connection, size: int) -> Generator[None]:
    """Let what the block commits, about that many bytes, go straight to the file if it is much.

    DuckDB does so by itself, but estimates a commit by its rows, whatever they hold: 100,000 of 2.3
    KB would all go into the write-ahead log first, uncompressed.
    """
    if size < LOGGED:
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
    """Add what the select of ``model`` gives, which reads the tables, made meanwhile, as ``name``.

    All have the schema of the first. What they raise while they are made is raised here. The rows
    are stored in no order: to keep one, DuckDB copies many of them once more, and one thread
    compresses the last row groups alone.
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
    """Let all connections to the file give and store rows in any order that none asks for.

    It is set on one beside: in a transaction that failed nothing can be set back.
    """
    with warehouse.beside(con) as second:
        second.execute("set preserve_insertion_order = false")
        try:
            yield
        finally:
            second.execute("reset preserve_insertion_order")


AHEAD = 3
"""Batches that are judged ahead of what is stored: each holds up to twice 32 MiB."""

MOST_REFUSED = 32 * 2**20
"""Bytes of refused records that are held before they are put in quarantine."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How many rows of a batch were new, known from before, and put in quarantine."""

    new: int
    known: int
    quarantined: int
    merged: int = 0
    """Known interactions to which a later record's metadata was added."""

    def __add__(self, other: "Stored") -> "Stored":
        """Count two batches together."""
        return Stored(
            self.new + other.new,
            self.known + other.known,
            self.quarantined + other.quarantined,
        )


@contextmanager
def validated(
    judge: BatchValidator, now: datetime, batches: Iterable[Batch]
) -> Generator[Iterator[ValidatedBatch]]:
    """Begin to judge batches that came at that time, ahead of what stores them."""
    with (
        prefetch(iter(batches), 1) as read,
        map_in_threads(partial(judge.read, now), read, READERS) as readings,
        prefetch(map(judge.judge, readings), AHEAD) as found,
    ):
        yield found


def store_batches(
    con: Connection, origin: RecordOrigin, batches: Iterable[ValidatedBatch]
) -> Stored:
    """Store judged batches within the transaction that is open, for which they were judged.

    One statement stores what follows each other of a kind: DuckDB compresses a row group of 122,880
    rows on one thread, so only a statement that fills several of them keeps all threads busy.
    """
    stored = Stored(0, 0, 0)
    last_row = reconciliation.last_row(con, "interactions")
    last_feedback = reconciliation.last_row(con, "feedback")
    for (_, kind), members in groupby(
        _in_order_of_arrival(batches), lambda one: (one[0], one[1].kind)
    ):
        stored += _store(con, origin, kind, (one for _, one in members))
    found = reconciliation.reconcile(con, last_row)
    repeated = reconciliation.reconcile_feedback(con, last_feedback)
    known = found.known + found.erased + repeated
    return Stored(stored.new - known, stored.known + known, stored.quarantined, found.merged)


def store_quarantined(con: Connection, origin: RecordOrigin, refused: Iterable[Unreadable]) -> int:
    """Keep what could not be read: its bytes, its place and the reasons; return how many.

    A line may hold several bad parts, such as the spans of a request; each is kept.
    """
    reasons: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for one in refused:
        reasons[one.number, one.content].append(one.reason)
    records: list[warehouse.Row] = [
        {
            "quarantine_id": hashlib.md5(
                f"{origin.digest} {origin.source} {number} ".encode() + content
            ).hexdigest(),
            "path": origin.path,
            "file_digest": origin.digest,
            "source": origin.source,
            "workload_id": origin.defaults.workload_id,
            "client_id": origin.defaults.client_id,
            "line": number,
            "reason": "; ".join(dict.fromkeys(found)),
            "content": content,
            "quarantined_at": origin.now,
        }
        for (number, content), found in reasons.items()
    ]
    return warehouse.insert(con, "raw.quarantine", _without_erased(con, records))


def _without_erased(con: Connection, records: list[warehouse.Row]) -> list[warehouse.Row]:
    """Leave out the lines that were erased: reading their file again must not bring them back."""
    erased = "select digest, key from raw.erased, raw.erasure_key where kind = 'lines'"
    found = con.execute(erased).fetchall() if records else []
    digests, keys = {digest for digest, _ in found}, {key for _, key in found}
    return [
        record
        for record in records
        if not any(_digest(key, cast("bytes", record["content"])) in digests for key in keys)
    ]


def _digest(key: str, content: bytes) -> str:
    return hashlib.sha256(key.encode() + content).hexdigest()


def _in_order_of_arrival(judged: Iterable[ValidatedBatch]) -> Iterator[tuple[int, ValidatedBatch]]:
    """Number batches by how often the refused records before them have filled what is held."""
    size = 0
    for one in judged:
        yield size // MOST_REFUSED, one
        size += sum(len(refused.content) for refused in one.refused)


def _store(
    con: Connection, origin: RecordOrigin, kind: Kind, judged: Iterable[ValidatedBatch]
) -> Stored:
    records, refused = 0, list[Unreadable]()
    fields: set[str] = set()

    def rows() -> Iterator[ArrowTable]:
        nonlocal records
        for one in judged:
            records += one.records
            refused.extend(one.refused)
            fields.update(one.fields)
            if one.rows is not None:
                yield one.rows

    values = {"digest": origin.digest, "source_name": origin.source}
    new = append_tables(con, f"raw/{kind}", "judged", rows(), **values)
    _register_fields(con, origin, fields)
    return Stored(new, records - new, store_quarantined(con, origin, refused))


def _register_fields(con: Connection, origin: RecordOrigin, fields: set[str]) -> None:
    """Note those fields that the source has not shown before."""
    if fields:
        values = {"source_name": origin.source, "path": origin.path, "now": origin.now}
        with warehouse.present(con, "shown", {"field": sorted(fields)}):
            warehouse.append(con, "raw/fields", **values)
