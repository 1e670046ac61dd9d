"""Feedback in a file of its own, one signal a line: its records are the canonical form itself."""

from collections.abc import Iterable, Iterator

from components.collect.record import Defaults, Found, Refused, Row
from components.collect.sources import fivekey
from components.schema import Json

NAME = "feedback"
KEYS = frozenset({"timestamp", "actor_id", "kind", "value"})


def claims(value: dict[str, Json]) -> bool:
    """Take what says who thought what, when."""
    return value.keys() >= KEYS


def read(rows: Iterable[Row], defaults: Defaults) -> Iterator[Found | Refused]:
    """Pass records on as they are, with the workload and the client that they leave out."""
    for found in fivekey.read(rows, defaults):
        yield Found(found.row, "feedback", found.record) if isinstance(found, Found) else found
