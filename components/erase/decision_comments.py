"""Blank approvers' texts about a subject; the chain of decisions stays valid."""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from components.erase.subject import Subject
from components.store.warehouse import Connection

APPROVER, DOCUMENT = "approver", "document"
"""Texts that name an approver: the name itself, and the signed statement or the rules."""

ERASED = "(erased)"  # replaces a text of the champions' journal


def text_matcher(subject: Subject, names: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate: whether a text holds the subject's id or one of the ``names``."""
    known = set(names)
    return lambda text: _is_about(subject, known, text)


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
    """Count the texts that hold the subject's id, in decisions and in the journal of champions."""
    return len(_about(con, subject, ())) + len(_reasons(con, subject, ()))


def _about(con: Connection, subject: Subject, names: Iterable[str]) -> list[tuple[int, str]]:
    rows = con.execute(
        """
        select words.sequence, words.field, words.text
        from raw.decision_words as words
        inner join raw.decision_chain as chain using (sequence)
        where $workload_id::varchar is null or chain.workload_id = $workload_id
        order by words.sequence, words.field
        """,
        {"workload_id": subject.workload_id},
    ).fetchall()
    is_about = text_matcher(subject, names)
    texts = {
        (sequence, field): None
        for sequence, field, text in rows
        if (field not in (APPROVER, DOCUMENT) or subject.mentions) and is_about(text)
    }
    # A signed statement has the digest of the text, against which a guess could be checked.
    signed = {(sequence, field) for sequence, field, _ in rows if field == DOCUMENT}
    texts |= {key: None for sequence, _ in list(texts) if (key := (sequence, DOCUMENT)) in signed}
    return list(texts)


def blank_reasons(con: Connection, subject: Subject, names: Iterable[str]) -> int:
    """Blank the reasons of champion changes that are about the subject; return the row count.

    The rows stay, because they are needed to finish an interrupted change.
    """
    count = 0
    for reason in _reasons(con, subject, names):
        changed = con.execute(
            """
            update raw.champion_journal
            set asked_by = $who, reason = $why
            where
                asked_by = $asked_by and reason = $reason
                and ($workload_id::varchar is null or workload_id = $workload_id)
            """,
            {**asdict(reason), "workload_id": subject.workload_id},
        ).fetchall()
        count += changed[0][0]
    return count


@dataclass(frozen=True, slots=True)
class _Reason:
    """Who ordered a change and why, and the two texts that replace these."""

    asked_by: str
    reason: str
    who: str
    why: str


def _reasons(con: Connection, subject: Subject, names: Iterable[str]) -> list[_Reason]:
    rows = con.execute(
        """
        select distinct asked_by, reason
        from raw.champion_journal
        where $workload_id::varchar is null or workload_id = $workload_id
        """,
        {"workload_id": subject.workload_id},
    ).fetchall()
    is_about = text_matcher(subject, names)
    reasons = [
        _Reason(
            asked_by,
            reason,
            ERASED if subject.mentions and is_about(asked_by) else asked_by,
            ERASED if is_about(reason) else reason,
        )
        for asked_by, reason in rows
    ]
    return [r for r in reasons if (r.who, r.why) != (r.asked_by, r.reason)]


def _is_about(subject: Subject, names: set[str], text: str) -> bool:
    if not names.isdisjoint(re.findall(r"\w+", text)):
        return True
    return subject.client_id is None and re.search(subject.pattern, text, re.ASCII) is not None
