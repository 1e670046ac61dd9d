"""Load the OTLP requests that the receiver took.

An application exports its spans and its log records apart, so those of one call may lie in
different segments. All segments that hold any are read as one, for each client for itself: what one
sends must not be joined with another's.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from components import manifest, spool
from components.collect import loading
from components.collect.judging import Origin
from components.collect.lines import Unreadable
from components.collect.loaded import Loaded
from components.collect.record import Defaults, Found, Refused, Row
from components.collect.sources import otlp, otlp_protobuf
from components.spool import Damaged, Entry
from components.warehouse import Connection

KINDS: tuple[spool.Kind, ...] = ("traces", "logs")

GENAI = "gen_ai."
"""What a request holds somewhere if anything in it is of a model's call."""


def load(con: Connection, segments: Sequence[Path], client_id: str, *, now: datetime) -> Loaded:
    """Load what a client sent, in one transaction; lines are numbered across the segments."""
    alone = segments[0] if len(segments) == 1 else None
    origin = Origin(
        str(alone or segments[0].parent),
        alone.stem if alone else manifest.digest([segment.stem for segment in segments]),
        otlp.NAME,
        Defaults(workload_id=client_id, client_id=client_id),
        now,
    )
    return loading.load_records(con, origin, _records(segments, origin.defaults))


def broken(place: int, entry: Entry, error: Exception) -> Unreadable:
    """Word what can't have passed a receiver."""
    reason = f"what {entry.client_id} sent as {entry.kind} can't be read any more: {error}"
    return Unreadable(place, entry.body.encode(), reason)


def _records(
    segments: Sequence[Path], defaults: Defaults
) -> Iterator[Found | Refused | Unreadable]:
    unreadable: list[Unreadable] = []
    for found in otlp.read(_requests(segments, defaults.client_id, unreadable), defaults):
        if isinstance(found, Found):
            yield replace(found, record={**found.record, "client_id": defaults.client_id})
        else:
            yield found
    yield from unreadable


def _requests(
    segments: Sequence[Path], client_id: str, unreadable: list[Unreadable]
) -> Iterator[Row]:
    """Go through one client's requests; those that can't be read are put in ``unreadable``.

    Requests without anything of a model's call are passed over: applications send all they do.
    """
    entries = (entry for segment in segments for entry in spool.read(segment))
    for place, entry in enumerate(entries, start=1):
        if isinstance(entry, Damaged) or entry.client_id != client_id or entry.kind not in KINDS:
            continue
        try:
            row = _request(place, entry)
        except ValueError as error:
            unreadable.append(broken(place, entry, error))
            continue
        if GENAI in row.text:
            yield row


def _request(place: int, entry: Entry) -> Row:
    """Read the JSON form of a request; a protobuf one is the base64 text in a JSON string."""
    value, text = json.loads(entry.body), entry.body
    if isinstance(value, str):
        value = otlp_protobuf.request(base64.b64decode(value))
        text = json.dumps(value, ensure_ascii=False)
    return Row(place, text, value)
