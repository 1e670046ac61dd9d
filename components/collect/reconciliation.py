"""Merge the stored rows of a load that are one interaction in two wordings, and delete erased ones.

Only rows with the same time and likeness are compared (``sql/temp/alike.sql``): few in most logs,
all when another exporter sends a log again. One interaction stays one row, to which the later
record's metadata is added; erased content is deleted in any wording.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import chain, groupby

import pyarrow as pa

from components.collect.source import Kind
from components.store import record_identity, warehouse, warehouse_port
from components.store.record_identity import MergedRecord, Names, Record
from components.store.warehouse import Connection, Value

GROUPS = 5_000  # groups of rows to compare at a time, to bound memory


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many rows of a load were known in another wording, added metadata, or were erased."""

    known: int = 0
    merged: int = 0
    erased: int = 0


@dataclass(slots=True)
class _Row:
    row_id: int
    interaction_id: str
    record: Record
    is_renamed: bool = False
    merged: MergedRecord | None = None

    @property
    def is_merged(self) -> bool:
        """Whether another record has added metadata."""
        return self.merged is not None and self.merged.has_news

    def merge(self, later: Record) -> bool:
        """Add a later record's metadata; return whether it had any news."""
        if self.merged is None:
            self.merged = MergedRecord(self.record)
            self.record = self.merged.record
        return self.merged.add(later)


@dataclass(slots=True)
class _Changes:
    dropped: list[int] = field(default_factory=list[int])
    changed: list[_Row] = field(default_factory=list[_Row])


class _Interactions:
    """The rows with one content, found by their names in constant time."""

    def __init__(self) -> None:
        self._exact: dict[Names, _Row] = {}
        self._reduced: dict[Names, _Row] = {}

    def add(self, row: _Row) -> None:
        """Add a row; add it again after merging in a record with more names."""
        names = record_identity.record_names(row.record)
        self._exact.setdefault(names, row)
        for reduced in record_identity.reductions(names):
            self._reduced.setdefault(reduced, row)

    def find(self, names: Names) -> _Row | None:
        """Return a row whose names agree with these (the same, fewer, or more); else ``None``."""
        fewer = (self._exact.get(reduced) for reduced in record_identity.reductions(names))
        more = (self._reduced.get(reduced) for reduced in record_identity.reductions(names))
        for row in chain(fewer, more):
            if row and record_identity.names_agree(names, record_identity.record_names(row.record)):
                return row
        return None


def last_row(con: Connection, kind: Kind) -> int:
    """Return the largest row id of earlier loads, -1 if there is no row."""
    rows = con.table(f"raw.{kind}").max("rowid").fetchall()
    return -1 if rows[0][0] is None else int(rows[0][0])


def reconcile(con: Connection, last_row: int, digests: Sequence[str]) -> Reconciled:
    """Compare the rows after ``last_row`` with each other and with earlier ones; merge and delete.

    To be called in the transaction of the load, after its rows were stored with the ``digests`` of
    its files. A shared warehouse finds those by the range of digests without reading all row ids.
    """
    loaded: dict[str, Value] = {
        "last_row": last_row,
        "digests": [*digests],
        "lowest": min(digests),
        "highest": max(digests),
    }
    ((earliest, latest),) = con.execute(
        "select min(timestamp), max(timestamp) from raw.interactions where rowid > $last_row"
        " and file_digest between $lowest and $highest and list_contains($digests, file_digest)",
        loaded,
    ).fetchall()
    if earliest is None:
        return Reconciled()
    erased = _drop_erased(con, loaded)
    warehouse.build(con, "temp/alike", **loaded, earliest=earliest, latest=latest)
    count = int(con.execute("select count(*) from temp.alike").fetchall()[0][0])
    known = merged = 0
    for first in range(1, count + 1, GROUPS):
        changes = _compare(con, first, first + GROUPS - 1, last_row)
        _apply(con, changes, last_row)
        known += len(changes.dropped)
        merged += sum(row.is_merged for row in changes.changed)
    return Reconciled(known, merged, erased)


def reconcile_feedback(con: Connection, last_row: int) -> int:
    """Delete feedback after ``last_row`` that repeats an event in any wording; return its count."""
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
    alike = warehouse.select(con, "temp/alike_rows", first=first, last=last)
    for _, group in groupby(alike, key=lambda row: row["number"]):
        rows: list[_Row] = []
        ids: set[str] = set()
        deep: set[str] = set()  # of rows that are nested too deeply to be compared
        for row in group:
            row_id, interaction_id = int(row["row_id"]), str(row["interaction_id"])  # pyright: ignore[reportArgumentType] - a number
            if (record := _record(row)) is not None:
                rows.append(_Row(row_id, interaction_id, record))
            elif interaction_id in ids and row_id > last_row:
                changes.dropped.append(row_id)
            else:
                deep.add(interaction_id)
            ids.add(interaction_id)
        _match_rows(rows, deep, last_row, changes)
    return changes


def _record(row: Mapping[str, Value]) -> Record | None:
    try:
        record = record_identity.read(str(row["record"] or row["payload"]))
        record_identity.canonical(dict(record))
    except RecursionError:
        return None
    return record


def _match_rows(rows: Sequence[_Row], deep: set[str], last_row: int, changes: _Changes) -> None:
    """Merge each row of this load into an earlier row of the same interaction, or keep it."""
    contents: dict[str, _Interactions] = defaultdict(_Interactions)
    ids = set(deep)
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
        if target.merge(row.record):
            same.add(target)
    changes.changed += [row for row in kept if row.is_merged or row.is_renamed]


def _apply(con: Connection, changes: _Changes, last_row: int) -> None:
    _delete(con, changes.dropped)
    if warehouse_port.shared(con) is not None:
        new = [row for row in changes.changed if row.row_id > last_row]
        _store_again(con, new)
        _update(con, [row for row in changes.changed if row.row_id <= last_row])
    else:
        _update(con, changes.changed)


def _changed_columns(rows: Sequence[_Row]) -> dict[str, Sized]:
    records = [json.dumps(row.record) if row.is_merged else None for row in rows]
    return {
        "row_id": pa.array([row.row_id for row in rows], pa.int64()),
        "new_id": pa.array([row.interaction_id for row in rows], pa.string()),
        "new_record": pa.array(records, pa.large_string()),
    }


def _store_again(con: Connection, rows: Sequence[_Row]) -> None:
    """Replace rows of the open transaction by changed ones.

    A shared warehouse may keep the temporary row ids of rows that an update changes before their
    commit: those of two loads are equal, and a deletion by row id would reach both.
    """
    if not rows:
        return
    with warehouse.present(con, "changed_rows", _changed_columns(rows)):
        con.execute(
            """
            create or replace temporary table changed_interactions as
            select
                interactions.* replace (
                    changed.new_id as interaction_id,
                    coalesce(changed.new_record, interactions.record) as record
                )
            from raw.interactions as interactions
            inner join changed_rows as changed on interactions.rowid = changed.row_id
            """
        )
    _delete(con, [row.row_id for row in rows])
    con.execute("insert into raw.interactions by name from temp.changed_interactions")
    con.execute("drop table temp.changed_interactions")


def _update(con: Connection, rows: Sequence[_Row]) -> None:
    if not rows:
        return
    with warehouse.present(con, "changed_rows", _changed_columns(rows)):
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


def _erased_digest(key: str, row: Mapping[str, Value]) -> str:
    if (record := _record(row)) is not None:
        return record_identity.erased_digest(key, record)
    return record_identity.erased_deep_digest(key, str(row["record"] or row["payload"]))


def _drop_erased(con: Connection, loaded: Mapping[str, Value]) -> int:
    sql = "select digest, key from raw.erased, raw.erasure_key where kind = 'contents'"
    erased = con.execute(sql).fetchall()
    if not erased:
        return 0
    digests, key = {digest for digest, _ in erased}, str(erased[0][1])
    dropped = [
        int(row["row_id"])  # pyright: ignore[reportArgumentType] - a number
        for row in warehouse.select(con, "temp/erased_times", **loaded)
        if _erased_digest(key, row) in digests
    ]
    _delete(con, dropped)
    return len(dropped)
