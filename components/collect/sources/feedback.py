"""Canonical feedback files, and the conversion of named scores to signals."""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import fields, fivekey
from components.schema import Json

NAME = "feedback"
KEYS = frozenset({"timestamp", "actor_id", "kind", "value"})

THUMBS = {
    "thumb": True,
    "thumbs": True,
    "thumbs_up": True,
    "like": True,
    "liked": True,
    "user_feedback": True,
    "thumbs_down": False,
    "dislike": False,
    "disliked": False,
}
"""Names that applications use for a thumb, and whether true means up."""


def score_signal(name: str, value: Json) -> tuple[str, Json]:
    """Return kind and value of a score: a thumb if it is a boolean of such a name, else an outcome.

    Numbers are always outcomes: a rating needs a scale, which scores lack.
    """
    means_up = THUMBS.get(name.strip().lower().replace("-", "_").replace(" ", "_"))
    if means_up is not None and isinstance(value, bool):
        return "thumb", "up" if value is means_up else "down"
    return "outcome", {"name": name, "value": value}


def claims(value: dict[str, Json]) -> bool:
    """Claim records with the keys of feedback."""
    return value.keys() >= KEYS


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the record unchanged, with the default workload and client where they are missing."""
    yield ParsedRecord(row, "feedback", fivekey.complete(row.value, defaults))
