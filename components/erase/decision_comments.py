"""Blank approvers' texts about a subject; the chain of decisions stays valid."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from components.erase.subject import Subject
from components.store import warehouse
from components.store.warehouse import Connection

APPROVER = "approver"  # the field of the approver's name
DOCUMENT = "document"  # the field of the signed statement or the rules, which also has the name

ERASED = "(erased)"  # replaces a note

OF_WORKLOAD = "($workload_id::varchar is null or workload_id = $workload_id)"

RELEASES = ("curated.releases", "curated.released_losses")  # what people let in, with their notes


def text_matcher(subject: Subject, names: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate: whether a text holds the subject's id or one of the ``names``."""
    known = set(names)
    pattern = None if subject.client_id else re.compile(subject.pattern, re.ASCII)

    def is_about(text: str) -> bool:
        if not known.isdisjoint(re.findall(r"\w+", text)):
            return True
        return pattern is not None and pattern.search(text) is not None

    return is_about


def blank_comments(con: Connection, subject: Subject, names: Iterable[str]) -> int:
    """Delete the texts that hold the subject's id, or one of the ``names``; return how many.

    With mentions this includes an approver with that name, and that approver's last code.
    """
    texts = _about(con, subject, names)
    for sequence, field in texts:
        con.execute(
            "delete from raw.decision_words where sequence = $sequence and field = $field",
            {"sequence": sequence, "field": field},
        )
    if subject.mentions and not subject.is_narrowed:
        con.execute("delete from raw.approver_codes where approver = $id", {"id": subject.id})
        con.execute("delete from raw.starters where started_by = $id", {"id": subject.id})
    return len(texts)


def count_comments(con: Connection, subject: Subject) -> int:
    """Count the texts that hold the subject's id, in decisions and notes."""
    return len(_about(con, subject, ())) + len(_notes(con, subject, ()))


def _about(con: Connection, subject: Subject, names: Iterable[str]) -> list[tuple[int, str]]:
    workload_id = subject.workload_id
    rows = warehouse.records(con, "marts/decision_texts", _Text, workload_id=workload_id)
    is_about = text_matcher(subject, names)
    texts = {
        (row.sequence, row.field)
        for row in rows
        if (row.field not in (APPROVER, DOCUMENT) or subject.mentions) and is_about(row.text)
    }
    # A signed statement has the digest of the text, against which a guess could be checked.
    decisions = {sequence for sequence, _ in texts}
    texts |= {
        (r.sequence, r.field) for r in rows if r.sequence in decisions and r.field == DOCUMENT
    }
    return sorted(texts)


@dataclass(frozen=True, slots=True)
class _Text:
    sequence: int
    field: str
    text: str


def blank_notes(con: Connection, subject: Subject, names: Iterable[str]) -> Mapping[str, int]:
    """Blank the notes about the subject on what people let in; return the row counts by table.

    The rows stay, because they are about other people's interactions, and else the next curation
    asks again. With mentions this includes an operator with that name.
    """
    blanked: Counter[str] = Counter()
    for table, column, text in _notes(con, subject, names):
        changed = con.execute(
            f"update {table} set {column} = $erased"  # noqa: S608 - of ours
            f" where {column} = $text and {OF_WORKLOAD}",
            {"erased": ERASED, "text": text, "workload_id": subject.workload_id},
        ).fetchall()
        blanked[table] += changed[0][0]
    return blanked


def _notes(con: Connection, subject: Subject, names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return the texts about the subject on what people let in, with their table and column."""
    is_about = text_matcher(subject, names)
    columns = ("note", "released_by") if subject.mentions else ("note",)
    return [
        (table, column, text)
        for table, column in product(RELEASES, columns)
        for text in warehouse.texts(
            con,
            f"select distinct {column} from {table} where {OF_WORKLOAD}",  # noqa: S608 - of ours
            workload_id=subject.workload_id,
        )
        if is_about(text)
    ]
