"""Delete the matched rows, and whatever else in the warehouse names them, in one transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from components import catalog, record_identity, warehouse
from components.erase import words
from components.erase.books import Kind
from components.erase.lineage import Output
from components.erase.subject import Subject, digest
from components.warehouse import Connection

CACHES = ("curated.token_counts",)
"""Digests of texts without a key, with which a guess could be checked: made anew when needed."""

AS_THEY_CAME = "raw"
"""The schema of what is not made from anything else; other schemas are built from it again."""


def ids(con: Connection) -> frozenset[str]:
    """Give the ids of the matched interactions and feedback."""
    return frozenset(id for kind in _IDS for id in _ids(con, kind))


def digests(con: Connection, key: str) -> dict[Kind, list[str]]:
    """Digest the ids of the matched rows, by kind: what keeps them from being loaded again."""
    return {kind: [digest(key, id) for id in _ids(con, kind)] for kind in _IDS}


def content_digests(con: Connection, key: str) -> dict[Kind, list[str]]:
    """Digest what the matched interactions say, and when: what keeps other wordings of them away.

    The times tell which of the rows that are loaded have to be compared.
    """
    found: dict[Kind, list[str]] = {"contents": [], "times": []}
    for row in warehouse.read(con, "marts/erased_contents", _Content):
        found["contents"].append(_content_digest(key, row.record))
        found["times"].append(digest(key, row.microseconds))
    return found


def _content_digest(key: str, text: str) -> str:
    try:
        return record_identity.erased_digest(key, record_identity.read(text))
    except RecursionError:
        return record_identity.erased_deep_digest(key, text)


@dataclass(frozen=True, slots=True)
class _Content:
    record: str
    microseconds: str


def refused_digests(con: Connection, key: str, quarantine_ids: Iterable[str]) -> list[str]:
    """Digest the bytes of refused lines."""
    rows = con.execute(
        "select content from raw.quarantine where list_contains($ids, quarantine_id)",
        {"ids": list(quarantine_ids)},
    ).fetchall()
    return [digest(key, content) for (content,) in rows]


def delete(
    con: Connection, subject: Subject, quarantine_ids: Iterable[str], names: Iterable[str]
) -> Mapping[str, int]:
    """Delete the matched rows from raw, and from all that is built from it the rows that name them.

    Those tables are made anew by the next curation, so a row too many does no harm there.

    Args:
        con: The warehouse, in a transaction, after ``matching.match``.
        subject: Whose rows; its id is a name, too, within what it is narrowed to.
        quarantine_ids: The refused lines to delete.
        names: What else names the subject in what was built, beside the ids of its rows.

    Returns:
        How many rows were deleted, by table.
    """
    gone: dict[str, int] = {}
    said = _names(con, subject, names)
    gone["raw.decision_words"] = words.forget(con, subject, said)
    gone["raw.champion_journal"] = words.forget_reasons(con, subject, said)
    for called, within in ((_names(con, subject, names), {}), ([subject.id], subject.within)):
        with warehouse.present(con, "erased_names", {"name": pa.array(called, pa.string())}):
            for table in catalog.tables(con):
                if table.schema != AS_THEY_CAME:
                    count = catalog.delete_naming(con, table, "erased_names", within)
                    gone[table.full_name] = gone.get(table.full_name, 0) + count
    for table, sql in _DELETE.items():
        gone[table] = _count(con, sql)
    for table in CACHES:
        gone[table] = catalog.delete_all(con, table)
    gone["raw.quarantine"] = _count(
        con,
        "delete from raw.quarantine where list_contains($ids, quarantine_id)",
        ids=list(quarantine_ids),
    )
    return {place: count for place, count in gone.items() if count}


def forget_outputs(con: Connection, tainted: Iterable[Output]) -> None:
    """Take the outputs whose folders go out of the books, which say where outputs lie."""
    for one in tainted:
        if one.kind in ("snapshot", "scorecard"):
            con.execute(
                "delete from raw.manifests where kind = $kind and key = $key",
                {"kind": one.kind, "key": one.key},
            )


def _names(con: Connection, subject: Subject, names: Iterable[str]) -> list[str]:
    """Give all that names the erased rows in what was built from them."""
    only = [str(row["tie"]) for row in warehouse.select(con, "marts/only_erased")]
    return sorted({*ids(con), *names, *only, *_actors(con, subject)})


def _actors(con: Connection, subject: Subject) -> list[str]:
    """Give the subject as curation calls an actor: by client and id."""
    rows = con.execute(
        "select distinct client_id from temp.erased_feedback where reason is not null order by all"
    ).fetchall()
    return [f"{client_id} {subject.id}" for (client_id,) in rows]


def _ids(con: Connection, kind: Kind) -> list[str]:
    return [id for (id,) in con.execute(_IDS[kind]).fetchall()]


def _count(con: Connection, sql: str, **values: warehouse.Value) -> int:
    return int(con.execute(sql, values or None).fetchall()[0][0])


_IDS: dict[Kind, str] = {
    "interactions": (
        "select distinct id from temp.erased_interactions where reason is not null order by id"
    ),
    "feedback": "select distinct id from temp.erased_feedback where reason is not null order by id",
}
_DELETE = {
    "raw.interactions": """
        delete from raw.interactions using temp.erased_interactions as erased
        where interaction_id = erased.id and erased.reason is not null
    """,
    "raw.feedback": """
        delete from raw.feedback using temp.erased_feedback as erased
        where feedback_id = erased.id and erased.reason is not null
    """,
}
