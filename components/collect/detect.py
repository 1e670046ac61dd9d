"""Which source a file belongs to: the one that is named, else the one that claims its records."""

from collections.abc import Iterable

from components.collect.record import Kind, Source
from components.collect.sources import (
    feedback,
    fivekey,
    langfuse,
    mlflow_traces,
    openai_finetuning,
    openai_logs,
    openpipe,
    otlp,
    sharegpt,
    tensorzero,
)
from components.schema import Json

SOURCES: tuple[Source, ...] = (
    fivekey,
    feedback,
    otlp,
    mlflow_traces,
    langfuse,
    tensorzero,
    openpipe,
    openai_logs,
    openai_finetuning,
    sharegpt,
)
"""All there are; where two claim equally many records, the first of them has it."""

CANONICAL: dict[str, Kind] = {fivekey.NAME: "interactions", feedback.NAME: "feedback"}
"""Sources whose records are canonical as they stand, and the one kind that each holds."""

JOINING = frozenset({otlp.NAME})
"""Sources that join rows of one file, so that it is always read whole."""

ROWS_LOOKED_AT = 20


class UnknownSourceError(ValueError):
    """A source that does not exist was named."""


def named(name: str) -> Source:
    """Give the source of that name.

    Raises:
        UnknownSourceError: There is none.
    """
    sources = {source.NAME: source for source in SOURCES}
    if name not in sources:
        known = ", ".join(sources)
        raise UnknownSourceError(f"no source is called {name!r}; there are {known}")
    return sources[name]


def detect(values: Iterable[dict[str, Json]]) -> Source | None:
    """Give the source that claims most of the records; ``None`` if none claims any."""
    looked_at = list(values)
    claims = {source: sum(map(source.claims, looked_at)) for source in SOURCES}
    best = max(SOURCES, key=lambda source: claims[source])  # the first of equal ones
    return best if claims[best] else None
