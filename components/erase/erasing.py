"""Erase a subject's rows from the warehouse: tombstones and deletions, all or nothing.

What was made from the rows is noted in the same transaction, since afterwards nobody could tell;
files are deleted after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from components import warehouse
from components.erase import archive, books, folders, lineage, matching, rows, words
from components.erase.books import Erasure
from components.erase.lineage import Lineage, Outputs
from components.erase.matching import Matched
from components.erase.subject import Subject
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a subject, and what was made from it."""

    matched: Matched
    lineage: Lineage
    words: int = 0
    """Texts in which people wrote about the subject when they decided."""

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to erase."""
        return not self.matched.total and not self.words


def look(con: Connection, subject: Subject, outputs: Outputs) -> Found:
    """Find a subject's rows and what was made from them; change nothing.

    Raises:
        ArchiveGoneError: A file of retention is gone.
    """
    matched = matching.match(con, subject)
    traced = lineage.trace(outputs, rows.ids(con))
    return Found(matched, traced, words.count(con, subject))


def teller(
    con: Connection, subject: Subject, outputs: Outputs, names: Sequence[str]
) -> Callable[[str], bool]:
    """Give what tells whether a text is about the subject or its rows, while the rows are there.

    Raises:
        ArchiveGoneError: A file of retention is gone.
    """
    found = look(con, subject, outputs)
    return words.teller(subject, [*rows.ids(con), *found.lineage.requests, *names])


def erase(
    con: Connection,
    subject: Subject,
    outputs: Outputs,
    *,
    names: Sequence[str] = (),
    now: datetime,
) -> Erasure:
    """Bury and delete all rows of a subject, and note what was made from them, in one transaction.

    Args:
        con: The warehouse.
        subject: Whom to erase.
        outputs: Where what was made from rows lies.
        names: What else the subject is called in tables that were built from its rows.
        now: When it is done (UTC).

    Raises:
        ArchiveGoneError: A file of retention is gone; nothing is changed.
    """
    with warehouse.transaction(con):
        found = look(con, subject, outputs)
        erasure = books.begin(con, subject, now=now)
        _bury(con, erasure, found.matched)
        lineage.record(con, erasure.certificate_id, found.lineage.tainted)
        books.count(con, erasure.certificate_id, archive.rewrite(con))
        known_as = [*found.lineage.requests, *names]
        gone = rows.delete(con, subject, found.matched.quarantine, known_as)
        rows.forget_outputs(con, found.lineage.tainted)
        books.count(con, erasure.certificate_id, gone)
    return erasure


def clear(con: Connection, erasure: Erasure, outputs: Outputs, archived: Path) -> None:
    """Delete the files that hold what was erased; doing it twice changes nothing."""
    archive.drop_unnamed(con, archived)
    tainted = lineage.recorded(con, erasure.certificate_id)
    folders.delete(outputs, tainted, erasure.certificate_id)


def _bury(con: Connection, erasure: Erasure, matched: Matched) -> None:
    key, certificate_id = books.key(con), erasure.certificate_id
    for kind, digests in (rows.digests(con, key) | rows.content_digests(con, key)).items():
        books.bury(con, certificate_id, kind, digests)
    refused = rows.refused_digests(con, key, matched.quarantine)
    books.bury(con, certificate_id, "lines", refused)
    books.bury(con, certificate_id, "texts", matching.own_texts(con, key))
