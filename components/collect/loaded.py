"""What came of loading one file."""

from dataclasses import dataclass
from pathlib import Path

from components.collect.quarantine_reasons import QuarantineReason


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows of a file were new, known from before, or unreadable.

    ``skipped``: a file of equal content was loaded before, so this one was not read again; its
    rows count as ``known``. ``new_fields`` are those that no earlier file of its source had shown.
    ``merged`` counts the interactions that were known and to which the file added metadata.
    ``reasons`` explain the quarantined lines, the most frequent reason first.
    """

    path: Path
    new: int
    known: int
    quarantined: int
    skipped: bool
    source: str = ""
    new_fields: tuple[str, ...] = ()
    merged: int = 0
    reasons: tuple[QuarantineReason, ...] = ()
