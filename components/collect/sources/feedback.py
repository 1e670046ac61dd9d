"""Feedback in a file of its own, in canonical form; how named scores become signals."""

from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import fivekey
from components.schema import Json

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
"""Names under which applications log a thumb, and whether true means up."""


def score_signal(name: str, value: Json) -> tuple[str, Json]:
    """Give kind and value of a score: a thumb if it is a yes or no of that name, else an outcome.

    Numbers stay outcomes whatever their name: a rating wants its scale, which scores don't say.
    """
    means_up = THUMBS.get(name.strip().lower().replace("-", "_").replace(" ", "_"))
    if means_up is not None and isinstance(value, bool):
        return "thumb", "up" if value is means_up else "down"
    return "outcome", {"name": name, "value": value}


NAME = "feedback"
KEYS = frozenset({"timestamp", "actor_id", "kind", "value"})


def claims(value: dict[str, Json]) -> bool:
    """Take what says who thought what, when."""
    return value.keys() >= KEYS


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Pass records on as they are, with the workload and the client that they leave out."""
    for found in fivekey.read(rows, defaults):
        yield (
            ParsedRecord(found.row, "feedback", found.record)
            if isinstance(found, ParsedRecord)
            else found
        )
