"""Forget what people wrote about a subject when they decided; the chain of decisions still holds.

A decision's row has the digest of each text under a salt, and the salt goes with the text. An
approver's name is only taken where mentions are, too: it may be another person of the same name.
"""

import re
from collections.abc import Iterable

from components.erase.subject import Subject
from components.warehouse import Connection

APPROVER = "approver"

ERASED = "(erased)"
"""Stands where a text of the champions' journal was."""


def forget(con: Connection, subject: Subject, names: Iterable[str]) -> int:
    """Delete the texts that hold the subject's id, or one of the ``names``; return how many."""
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
    wanted = set(names)
    found = [
        (sequence, field)
        for sequence, field, text in rows
        if (field != APPROVER or subject.mentions) and _is_about(subject, wanted, text)
    ]
    for sequence, field in found:
        con.execute(
            "delete from raw.decision_words where sequence = $sequence and field = $field",
            {"sequence": sequence, "field": field},
        )
    return len(found)


def forget_reasons(con: Connection, subject: Subject, names: Iterable[str]) -> int:
    """Blank the reasons of changes of a champion that are about the subject; return how many rows.

    The rows stay: they say how to finish a change that was interrupted.
    """
    rows = con.execute(
        """
        select distinct asked_by, reason
        from raw.champion_journal
        where $workload_id::varchar is null or workload_id = $workload_id
        """,
        {"workload_id": subject.workload_id},
    ).fetchall()
    wanted, count = set(names), 0
    for asked_by, reason in rows:
        who = asked_by
        if subject.mentions and _is_about(subject, wanted, asked_by):
            who = ERASED
        why = ERASED if _is_about(subject, wanted, reason) else reason
        if (who, why) != (asked_by, reason):
            changed = con.execute(
                """
                update raw.champion_journal
                set asked_by = $who, reason = $why
                where
                    asked_by = $asked_by and reason = $reason
                    and ($workload_id::varchar is null or workload_id = $workload_id)
                """,
                {
                    "who": who,
                    "why": why,
                    "asked_by": asked_by,
                    "reason": reason,
                    "workload_id": subject.workload_id,
                },
            ).fetchall()
            count += changed[0][0]
    return count


def _is_about(subject: Subject, names: set[str], text: str) -> bool:
    if not names.isdisjoint(re.findall(r"\w+", text)):
        return True
    return subject.client_id is None and re.search(subject.pattern, text, re.ASCII) is not None
