"""Load what the receiver took, and delete each segment once all its rows are committed.

The owner of a request's token is the client of all that it brought, whatever the records say.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

from components import spool
from components.collect import loading, telemetry
from components.collect.judging import Origin
from components.collect.lines import Unreadable
from components.collect.loaded import Loaded
from components.collect.record import Defaults, Found, Kind, Row
from components.collect.sources import feedback, fivekey
from components.schema import Json
from components.spool import Damaged, Entry
from components.warehouse import Connection

Piece: TypeAlias = Callable[[Connection], list[Loaded]]
"""Loads a part of the spool into the warehouse."""

CLAIMED = "claimed_client_id"
"""Keeps what a record said where the token's owner is another."""

CANONICAL: tuple[tuple[Kind, str], ...] = (
    ("interactions", fivekey.NAME),
    ("feedback", feedback.NAME),
)
"""Kinds whose records are canonical, and what they are the source of."""

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_SPELLED_OTHERWISE = re.compile(r"\\u00(?:5[fF]|6|7)")
"""An escaped ASCII letter: with it a key may be called ``client_id`` and not look like it."""


def load(con: Connection, folder: Path, *, now: datetime) -> list[Loaded]:
    """Load every sealed segment of the spool, and what killed receivers left; delete the loaded.

    A segment that is found again, because a load was killed before it deleted it, changes nothing.
    """
    return [loaded for piece in pieces(folder, now=now) for loaded in piece(con)]


def pieces(folder: Path, *, now: datetime) -> Iterator[Piece]:
    """Yield what loads the spool, segment after segment.

    The telemetry of all segments comes last, a client at a time: a trace may be in several. A
    segment is deleted when all of it is loaded, while the warehouse is held: another collect, which
    may have come between two pieces, finds it whole or not at all.
    """
    spool.recover(folder)
    observed: list[Path] = []
    clients: set[str] = set()
    for segment in spool.sealed(folder):
        try:
            kinds, senders = _contents(segment)
        except FileNotFoundError:  # loaded by another collect since it was listed
            continue
        yield partial(_load, segment=segment, kinds=kinds, now=now, is_all=not senders)
        if senders:
            observed.append(segment)
            clients |= senders
    last = max(clients, default="")
    for client in sorted(clients):
        yield partial(_load_telemetry, observed, client=client, now=now, is_all=client == last)


def _load(
    con: Connection, *, segment: Path, kinds: set[spool.Kind], now: datetime, is_all: bool
) -> list[Loaded]:
    """Load the canonical records that a segment holds, kind after kind."""
    if not segment.exists():
        return []
    nobody = Defaults("", "")  # the records say all
    loaded = [
        loading.load_records(
            con, Origin(str(segment), segment.stem, source, nobody, now), _found(segment, kind)
        )
        for kind, source in CANONICAL
        if kind in kinds
    ]
    if is_all:
        spool.remove(segment)
    return loaded


def _load_telemetry(
    observed: list[Path], con: Connection, *, client: str, now: datetime, is_all: bool
) -> list[Loaded]:
    segments = [segment for segment in observed if segment.exists()]
    if not segments:
        return []
    loaded = telemetry.load(con, segments, client, now=now)
    if is_all:
        for segment in segments:
            spool.remove(segment)
    return [loaded]


def _contents(segment: Path) -> tuple[set[spool.Kind], set[str]]:
    """Tell which kinds a segment holds, and who sent telemetry; damage counts as interactions."""
    kinds: set[spool.Kind] = set()
    senders: set[str] = set()
    for entry in spool.read(segment):
        kinds.add(entry.kind if isinstance(entry, Entry) else "interactions")
        if isinstance(entry, Entry) and entry.kind in telemetry.KINDS:
            senders.add(entry.client_id)
    return kinds, senders


def _found(segment: Path, kind: Kind) -> Iterator[Found | Unreadable]:
    """Go through the records of a kind; damaged lines come with the interactions."""
    place = 0
    for entry in spool.read(segment):
        if isinstance(entry, Entry) and entry.kind == kind:
            for record in _records(entry, place):
                place += 1
                yield Found(record, kind, record.value) if isinstance(record, Row) else record
        elif isinstance(entry, Damaged) and kind == "interactions":
            place += 1
            yield Unreadable(place, entry.content, entry.reason)


def _records(entry: Entry, before: int) -> Iterator[Row | Unreadable]:
    """Cut a body into its records, with the token's owner as the client of each."""
    try:
        elements = list(_elements(entry.body))
    except (ValueError, IndexError) as error:
        yield telemetry.broken(before + 1, entry, error)
        return
    for place, (text, value) in enumerate(elements, start=before + 1):
        if isinstance(value, dict):
            yield _owned(Row(place, text, value), entry.client_id)
        else:
            yield Unreadable(place, text.encode(), "the record is no JSON object")


def _elements(body: str) -> Iterator[tuple[str, Json]]:
    """Cut a body into its texts: the one object that it is, or those of its array."""
    if not body.lstrip().startswith("["):
        yield body, json.loads(body)
        return
    at = _after_space(body, body.index("[") + 1)
    while body[at] != "]":
        value, end = _DECODER.raw_decode(body, at)
        yield body[at:end], value
        at = _after_space(body, end)
        if body[at] == ",":
            at = _after_space(body, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _owned(row: Row, owner: str) -> Row:
    """Give the record with the token's owner as its client; its text stays, if it may.

    With two keys of one name, one reader takes the first and another the last. So a record that
    says who its client is keeps its text only if it says so once, and truly.
    """
    if "client_id" not in row.value:
        rest = row.text.lstrip().removeprefix("{").lstrip()
        comma = "" if rest.startswith("}") else ", "
        text = f'{{"client_id": {json.dumps(owner)}{comma}{rest}'
        return Row(row.place, text, {"client_id": owner, **row.value})
    if _claims(row) == [owner]:
        return row
    value = {**row.value, "client_id": owner, CLAIMED: row.value["client_id"]}
    return Row(row.place, json.dumps(value), value)


def _claims(row: Row) -> list[Json]:
    """Give the values of every top-level key of a record that is called ``client_id``."""
    if row.text.count('"client_id"') == 1 and not _SPELLED_OTHERWISE.search(row.text):
        return [row.value["client_id"]]
    pairs: list[tuple[str, Json]] = []

    def keep(found: list[tuple[str, Json]]) -> None:
        pairs[:] = found  # the outermost object is the last to be complete

    json.loads(row.text, object_pairs_hook=keep)
    return [value for key, value in pairs if key == "client_id"]
