"""Store batches of records: equal ones once, bad ones in quarantine."""

import hashlib
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import cast

from components import warehouse
from components.collect import bulk, reconciliation
from components.collect.ahead import abreast, ahead
from components.collect.batch import Batch
from components.collect.judging import READERS, Judge, Judged, Origin
from components.collect.lines import Unreadable
from components.collect.record import Kind
from components.shown import Table
from components.warehouse import Connection

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
def judged(judge: Judge, now: datetime, batches: Iterable[Batch]) -> Generator[Iterator[Judged]]:
    """Begin to judge batches that came at that time, ahead of what stores them."""
    with (
        ahead(iter(batches), 1) as read,
        abreast(partial(judge.read, now), read, READERS) as readings,
        ahead(map(judge.judge, readings), AHEAD) as found,
    ):
        yield found


def store(con: Connection, origin: Origin, batches: Iterable[Judged]) -> Stored:
    """Store judged batches within the transaction that is open, for which they were judged.

    One statement stores what follows each other of a kind: DuckDB compresses a row group of 122,880
    rows on one thread, so only a statement that fills several of them keeps all threads busy.
    """
    stored = Stored(0, 0, 0)
    last_row = reconciliation.last_row(con, "interactions")
    last_feedback = reconciliation.last_row(con, "feedback")
    for (_, kind), members in groupby(_numbered(batches), lambda one: (one[0], one[1].kind)):
        stored += _store(con, origin, kind, (one for _, one in members))
    found = reconciliation.reconcile(con, last_row)
    repeated = reconciliation.reconcile_feedback(con, last_feedback)
    known = found.known + found.erased + repeated
    return Stored(stored.new - known, stored.known + known, stored.quarantined, found.merged)


def quarantine(con: Connection, origin: Origin, refused: Iterable[Unreadable]) -> int:
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


def _numbered(judged: Iterable[Judged]) -> Iterator[tuple[int, Judged]]:
    """Number batches by how often the refused records before them have filled what is held."""
    size = 0
    for one in judged:
        yield size // MOST_REFUSED, one
        size += sum(len(refused.content) for refused in one.refused)


def _store(con: Connection, origin: Origin, kind: Kind, judged: Iterable[Judged]) -> Stored:
    records, refused = 0, list[Unreadable]()
    fields: set[str] = set()

    def rows() -> Iterator[Table]:
        nonlocal records
        for one in judged:
            records += one.records
            refused.extend(one.refused)
            fields.update(one.fields)
            if one.rows is not None:
                yield one.rows

    values = {"digest": origin.digest, "source_name": origin.source}
    new = bulk.append(con, f"raw/{kind}", "judged", rows(), **values)
    _show(con, origin, fields)
    return Stored(new, records - new, quarantine(con, origin, refused))


def _show(con: Connection, origin: Origin, fields: set[str]) -> None:
    """Note those fields that the source has not shown before."""
    if fields:
        values = {"source_name": origin.source, "path": origin.path, "now": origin.now}
        with warehouse.present(con, "shown", {"field": sorted(fields)}):
            warehouse.append(con, "raw/fields", **values)
