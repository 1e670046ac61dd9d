"""Cut a request of OTLP into its spans and log records, each a request of its own again."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from components.collect.record import Row
from components.collect.sources import otlp_values, shape
from components.collect.sources.shape import Obj
from components.schema import Json

SIGNALS = {
    "resourceSpans": ("scopeSpans", "spans"),
    "resourceLogs": ("scopeLogs", "logRecords"),
}
"""The lists of a request, and what lies inside them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One span or log record, with the attributes of its resource.

    ``request`` holds nothing else, but is a request that can be read again; ``row`` is what it was
    cut out of, only its place unless nothing else was in there (``is_alone``); ``characters`` is
    about its length.
    """

    row: Row
    signal: Literal["resourceSpans", "resourceLogs"]
    body: Obj
    resource: Obj
    request: Obj
    at: str
    is_alone: bool
    characters: int


def pieces(row: Row) -> list[Piece]:
    """Cut a request into its pieces."""
    cut = [*_cut(row, "resourceSpans"), *_cut(row, "resourceLogs")]
    share = len(row.text) // max(1, len(cut))
    # Pieces may wait long: those that are not alone must not keep the rest of the row alive.
    kept = row if len(cut) == 1 else Row(row.place, "", {})
    return [replace(piece, row=kept, is_alone=len(cut) == 1, characters=share) for piece in cut]


def whole(parts: Iterable[Piece]) -> Row:
    """Put pieces together: one request, or the row itself if that held nothing else."""
    held = list(parts)
    if len(held) == 1 and held[0].is_alone:
        return held[0].row
    request: dict[str, list[Json]] = {}
    for piece in held:
        for key, values in piece.request.items():
            request.setdefault(key, []).extend(values if isinstance(values, list) else [])
    return shape.part(held[0].row, {**request})


def _cut(row: Row, signal: Literal["resourceSpans", "resourceLogs"]) -> Iterator[Piece]:
    scopes_key, bodies_key = SIGNALS[signal]
    for path, group in shape.objects(shape.may_array(row.value, signal), signal):
        resource = shape.may_object(group, "resource", path)
        attributes = otlp_values.attributes(resource, f"{path}resource.")
        scopes = shape.may_array(group, scopes_key, path)
        for scope_path, scope in shape.objects(scopes, f"{path}{scopes_key}"):
            bodies = shape.may_array(scope, bodies_key, scope_path)
            for at, body in shape.objects(bodies, f"{scope_path}{bodies_key}"):
                inner: Obj = {**scope, bodies_key: [body]}
                request: Obj = {signal: [{**group, scopes_key: [inner]}]}
                yield Piece(
                    row, signal, body, attributes, request, at, is_alone=False, characters=0
                )
