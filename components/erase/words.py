"""Forget what people wrote about a subject when they decided; the chain of decisions still holds.

A decision's row has the digest of each text under a salt, and the salt goes with the text. An
approver's name is only taken where mentions are, too: it may be another person of the same name.
"""

import re
from collections.abc import Iterable

from components.erase.subject import Subject
from components.warehouse import Connection

APPROVER = "approver"


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


def _is_about(subject: Subject, names: set[str], text: str) -> bool:
    if not names.isdisjoint(re.findall(r"\w+", text)):
        return True
    return subject.client_id is None and re.search(subject.pattern, text, re.ASCII) is not None
