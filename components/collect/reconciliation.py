"""Tell apart, once a file's rows are stored, what is one interaction in two wordings.

Rows are compared where they have the time and the likeness in common (``sql/temp/alike.sql``): few
in most logs, all where a log comes again from another exporter. What is one interaction stays one
row, to which the later record's metadata is added; what was erased goes, however it is worded.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby

import pyarrow as pa

from components.collect.source import Kind
from components.store import record_identity, warehouse
from components.store.record_identity import Names, Record
from components.store.warehouse import Connection

GROUPS = 5_000
"""Groups of rows that are compared at a time, to bound what is held in memory."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many rows of a load were known in other words, how many brought metadata, were erased."""

    known: int = 0
    merged: int = 0
    erased: int = 0


@dataclass(slots=True)
class _Row:
    """A stored row of a group, and what becomes of it."""

    row_id: int
    interaction_id: str
    record: Record
    is_merged: bool = False
    is_renamed: bool = False


@dataclass(slots=True)
class _Changes:
    """The rows to delete, and those to update."""

    dropped: list[int] = field(default_factory=list[int])
    changed: list[_Row] = field(default_factory=list[_Row])


class _Interactions:
    """The rows of one content, found by whose they are in time that doesn't grow with them."""

    def __init__(self) -> None:
        self._exact: dict[Names, _Row] = {}
        self._reduced: dict[Names, _Row] = {}

    def add(self, row: _Row) -> None:
        """Take a row in, or again after it was merged with a record that names more."""
        names = record_identity.record_names(row.record)
        self._exact.setdefault(names, row)
        for reduced in record_identity.reductions(names):
            self._reduced.setdefault(reduced, row)

    def find(self, names: Names) -> _Row | None:
        """Find a row that may be of these names: the same, fewer, or more of them."""
        fewer = (self._exact.get(reduced) for reduced in record_identity.reductions(names))
        more = (self._reduced.get(reduced) for reduced in record_identity.reductions(names))
        for row in chain(fewer, more):
            if row is not None and record_identity.names_agree(
                names, record_identity.record_names(row.record)
            ):
                return row
        return None


def last_row(con: Connection, kind: Kind) -> int:
    """Return the row id below which all rows are of earlier loads, -1 where there is none."""
    rows = con.table(f"raw.{kind}").max("rowid").fetchall()
    return -1 if rows[0][0] is None else int(rows[0][0])


def reconcile(con: Connection, last_row: int) -> Reconciled:
    """Compare the rows of this load with each other and with those of earlier loads.

    Args:
        con: The warehouse, in the transaction of the load, after its rows were stored.
        last_row: What ``last_row`` returned before they were.
    """
    within = con.execute(
        "select min(timestamp), max(timestamp) from raw.interactions where rowid > $last_row",
        {"last_row": last_row},
    ).fetchall()
    earliest, latest = within[0]
    if earliest is None:
        return Reconciled()
    erased = _drop_erased(con, last_row)
    times = {"earliest": earliest, "latest": latest}
    warehouse.build(con, "temp/alike", last_row=last_row, **times)
    count = int(con.execute("select count(*) from temp.alike").fetchall()[0][0])
    known = merged = 0
    for first in range(1, count + 1, GROUPS):
        changes = _compare(con, first, first + GROUPS - 1, last_row)
        _apply(con, changes)
        known += len(changes.dropped)
        merged += sum(row.is_merged for row in changes.changed)
    return Reconciled(known, merged, erased)


def reconcile_feedback(con: Connection, last_row: int) -> int:
    """Delete what this load repeats of people's words, with its keys in another order; count it.

    Args:
        con: The warehouse, in the transaction of the load, after its rows were stored.
        last_row: What ``last_row`` returned before they were.
    """
    repeated: list[int] = []
    known: set[tuple[str, str]] = set()
    for row in warehouse.select(con, "temp/alike_feedback", last_row=last_row):
        row_id = int(row["row_id"])  # pyright: ignore[reportArgumentType] - a number
        try:
            content = record_identity.feedback_digest(str(row["record"]))
        except RecursionError:  # nested too deeply to be compared
            continue
        event = (str(row["occasion"]), content)
        if event in known and row_id > last_row:
            repeated.append(row_id)
        known.add(event)
    _delete(con, repeated, "feedback")
    return len(repeated)


def _compare(con: Connection, first: int, last: int, last_row: int) -> _Changes:
    changes = _Changes()
    found = warehouse.select(con, "temp/alike_rows", first=first, last=last)
    for _, group in groupby(found, key=lambda row: row["number"]):
        rows: list[_Row] = []
        ids: set[str] = set()
        deep: set[str] = set()
        for row in group:
            row_id, interaction_id = int(row["row_id"]), str(row["interaction_id"])  # pyright: ignore[reportArgumentType] - a number
            if (record := _record(row)) is not None:
                rows.append(_Row(row_id, interaction_id, record))
            elif interaction_id in ids and row_id > last_row:
                changes.dropped.append(row_id)
            else:
                deep.add(interaction_id)
            ids.add(interaction_id)
        _tell_apart(rows, deep, last_row, changes)
    return changes


def _record(row: Mapping[str, warehouse.Value]) -> Record | None:
    """Read a stored record; ``None`` if it is nested too deeply to be compared."""
    try:
        record = record_identity.read(str(row["record"] or row["payload"]))
        record_identity.canonical(dict(record))
    except RecursionError:
        return None
    return record


def _tell_apart(rows: Sequence[_Row], taken: set[str], last_row: int, changes: _Changes) -> None:
    """Decide of each row of this load whether it is one of the rows before it.

    ``taken`` are the ids of rows that can't be compared.
    """
    contents: dict[str, _Interactions] = defaultdict(_Interactions)
    ids = set(taken)
    kept: list[_Row] = []
    for row in rows:
        same = contents[record_identity.content_digest(row.record)]
        names = record_identity.record_names(row.record)
        target = same.find(names) if row.row_id > last_row else None
        if target is None:
            if row.interaction_id in ids:
                row.interaction_id = record_identity.duplicate_group_id(row.interaction_id, names)
                row.is_renamed = True
            ids.add(row.interaction_id)
            same.add(row)
            kept.append(row)
            continue
        changes.dropped.append(row.row_id)
        if (merged := record_identity.merge(target.record, row.record)) is not None:
            target.record, target.is_merged = merged, True
            same.add(target)
    changes.changed += [row for row in kept if row.is_merged or row.is_renamed]


def _apply(con: Connection, changes: _Changes) -> None:
    _delete(con, changes.dropped)
    if not changes.changed:
        return
    records = [json.dumps(row.record) if row.is_merged else None for row in changes.changed]
    columns = {
        "row_id": pa.array([row.row_id for row in changes.changed]),
        "new_id": pa.array([row.interaction_id for row in changes.changed]),
        "new_record": pa.array(records, pa.large_string()),
    }
    with warehouse.present(con, "changed_rows", columns):
        con.execute(
            """
            update raw.interactions
            set
                interaction_id = changed.new_id,
                record = coalesce(changed.new_record, interactions.record)
            from changed_rows as changed
            where interactions.rowid = changed.row_id
            """
        )


def _delete(con: Connection, row_ids: Sequence[int], table: Kind = "interactions") -> None:
    if row_ids:
        with warehouse.present(con, "dropped_rows", {"row_id": pa.array(row_ids)}):
            con.execute(
                f"delete from raw.{table} using dropped_rows as dropped"  # noqa: S608 - of ours
                f" where {table}.rowid = dropped.row_id"
            )


def _erased_digest(key: str, row: Mapping[str, warehouse.Value]) -> str:
    if (record := _record(row)) is not None:
        return record_identity.erased_digest(key, record)
    return record_identity.erased_deep_digest(key, str(row["record"] or row["payload"]))


def _drop_erased(con: Connection, last_row: int) -> int:
    """Delete the rows of this load that say what was erased, in whatever words."""
    erased = "select digest, key from raw.erased, raw.erasure_key where kind = 'contents'"
    found = con.execute(erased).fetchall()
    if not found:
        return 0
    digests, key = {digest for digest, _ in found}, str(found[0][1])
    dropped = [
        int(row["row_id"])  # pyright: ignore[reportArgumentType] - a number
        for row in warehouse.select(con, "temp/erased_times", last_row=last_row)
        if _erased_digest(key, row) in digests
    ]
    _delete(con, dropped)
    return len(dropped)
