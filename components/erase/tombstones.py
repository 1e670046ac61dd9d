"""Records of erasures in the warehouse: the digest key, tombstones, counts."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from components.erase.subject import Subject, keyed_digest
from components.store import manifest, warehouse
from components.store.warehouse import Connection

Kind: TypeAlias = Literal["interactions", "feedback", "lines", "texts", "contents", "times"]
"""What a tombstone's digest is made from."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure of a subject; its id becomes that of its certificate."""

    certificate_id: str
    subject_digest: str
    scope: str
    begun_at: datetime
    finished_at: datetime | None


def digest_key(con: Connection) -> str:
    """Return the key of this warehouse's digests; created at the first erasure."""
    rows = con.execute("select key from raw.erasure_key").fetchall()
    if rows:
        return str(rows[0][0])
    key = secrets.token_hex(32)
    con.execute("insert into raw.erasure_key values ($key)", {"key": key})
    return key


def subject_digest(con: Connection, subject: Subject) -> str:
    """Return the keyed digest of the subject's id, which certificates show."""
    return keyed_digest(digest_key(con), subject.id)


def unfinished(con: Connection, subject: Subject) -> Erasure | None:
    """Return the subject's erasure that was killed before its certificate was written, if any."""
    for erasure in erasures_of(con, subject_digest(con, subject)):
        if erasure.finished_at is None and erasure.scope == subject.scope:
            return erasure
    return None


def begin_erasure(con: Connection, subject: Subject, *, now: datetime) -> Erasure:
    """Record the start of an erasure, or return the subject's unfinished one."""
    if (begun := unfinished(con, subject)) is not None:
        return begun
    who = subject_digest(con, subject)
    certificate_id = manifest.digest([who, subject.scope, now.isoformat()])
    begun = Erasure(certificate_id, who, subject.scope, now, None)
    con.execute(
        "insert into raw.erasures values ($id, $who, $scope, $now, null)",
        {"id": certificate_id, "who": who, "scope": subject.scope, "now": now},
    )
    return begun


def erasures_of(con: Connection, subject_digest: str) -> list[Erasure]:
    """List the erasures of a subject, the oldest first."""
    values = {"subject_digest": subject_digest, "certificate_id": None}
    return warehouse.records(con, "marts/erasures", Erasure, **values)


def unfinished_erasures(con: Connection) -> list[Erasure]:
    """List the erasures of anybody whose certificate is not clean yet, the oldest first."""
    rows = con.execute(
        "select certificate_id, subject_digest, scope, begun_at, finished_at from raw.erasures"
        " where finished_at is null order by begun_at, certificate_id"
    ).fetchall()
    return [Erasure(*row) for row in rows]


def erasure_named(con: Connection, certificate_id: str) -> Erasure:
    """Return an erasure by its certificate; raise ``LookupError`` if there is none."""
    values = {"subject_digest": None, "certificate_id": certificate_id}
    erasures = warehouse.records(con, "marts/erasures", Erasure, **values)
    if not erasures:
        raise LookupError(f"this warehouse has no erasure with the certificate {certificate_id}")
    return erasures[0]


def finish_erasure(con: Connection, certificate_id: str, *, now: datetime) -> None:
    """Record that the certificate is written."""
    con.execute(
        "update raw.erasures set finished_at = $now where certificate_id = $id",
        {"id": certificate_id, "now": now},
    )


def add_tombstones(
    con: Connection, certificate_id: str, kind: Kind, digests: Iterable[str]
) -> None:
    """Insert the digests of data that must not be loaded again."""
    rows = [
        {"kind": kind, "digest": digest, "certificate_id": certificate_id}
        for digest in sorted(set(digests))
    ]
    warehouse.insert(con, "raw.erased", rows)


def tombstones(con: Connection, certificate_ids: Iterable[str]) -> dict[Kind, list[str]]:
    """Return the tombstones of these erasures by kind, sorted."""
    rows = con.execute(
        "select kind, list(distinct digest order by digest) from raw.erased"
        " where list_contains($ids, certificate_id) group by kind order by kind",
        {"ids": list(certificate_ids)},
    ).fetchall()
    return {kind: list(digests) for kind, digests in rows}


def add_counts(con: Connection, certificate_id: str, rows: Mapping[str, int]) -> None:
    """Insert the numbers of deleted rows by place."""
    records: list[warehouse.Row] = [
        {"certificate_id": certificate_id, "place": place, "rows": number}
        for place, number in rows.items()
        if number
    ]
    warehouse.insert(con, "raw.erasure_counts", records)


def read_counts(con: Connection, certificate_id: str) -> dict[str, int]:
    """Return the numbers of rows that an erasure deleted, by place."""
    rows = con.execute(
        "select place, sum(rows)::bigint from raw.erasure_counts where certificate_id = $id"
        " group by place order by place",
        {"id": certificate_id},
    ).fetchall()
    return dict(rows)
